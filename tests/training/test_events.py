"""What happens within an epoch: rows of the history by step, callbacks and what they change."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from tests.training.test_resume import assert_same_bits

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
Y = RNG.normal(size=(50, 1)).astype(np.float32)
LABELS = (X.sum(1) > 0).astype(np.int32)
MODEL = dl.Dense(1)
BATCHES = [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 50)]


def fitted(**more: Any) -> dl.Run:
    given: dict[str, Any] = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.adam(1e-2),
        "batch_size": 16,
        "epochs": 3,
        "progress": False,
    }
    return dl.fit(MODEL, (X, Y), **(given | more))


def squared(params: Any, rows: slice) -> np.ndarray:
    """The loss of each example, in float64."""
    kernel, bias = (np.asarray(params[name], np.float64) for name in ("kernel", "bias"))
    return ((X[rows] @ kernel + bias - Y[rows]) ** 2)[:, 0]


@pytest.mark.sampled
@pytest.mark.parametrize("compile", ["epoch", "step", "eager"])
@pytest.mark.parametrize("every", [1, 3, 5, 100])
def test_a_row_is_of_the_examples_since_the_row_before(every: int, compile: Any) -> None:
    seen: list[tuple[int, int]] = []
    run = fitted(
        optimizer=optax.sgd(0.0),
        shuffle=False,
        compile=compile,
        every=f"{every} steps",
        callbacks=[lambda stage: seen.append((stage.epoch, stage.steps))],
    )
    ends = [*range(every, 12, every), 12]
    assert run.history["step"] == ends
    assert seen == [((step - 1) // 4, step) for step in ends]
    begins = [0, *ends[:-1]]
    means = []
    for first, last in zip(begins, ends, strict=True):
        parts = [squared(run.params, BATCHES[step % 4]) for step in range(first, last)]
        means.append(np.concatenate(parts).mean())
    np.testing.assert_allclose(run.history["loss"], means, rtol=1e-5)


@pytest.mark.parametrize("waits", [False, True], ids=["alone", "validated"])
def test_rows_change_no_update(waits: bool) -> None:
    more = {"validation": (X[:20], Y[:20])} if waits else {}
    plain = fitted(**more)
    for every in ("3 steps", "2 epochs", "1 epoch"):
        run = fitted(every=every, **more)
        jax.tree.map(np.testing.assert_array_equal, run.params, plain.params)
    assert run.history.keys() == plain.history.keys()
    by_two = fitted(every="2 epochs", **more)
    assert by_two.history["step"] == [8, 12]
    first = np.mean(plain.history["loss"][:2])  # of epochs of equal size
    np.testing.assert_allclose(by_two.history["loss"], [first, plain.history["loss"][2]])
    if waits:
        assert by_two.history["validation_loss"] == plain.history["validation_loss"][1:]


def test_rows_of_figures_that_need_every_row_at_once() -> None:
    run = dl.fit(
        dl.Dense(2),
        (X, LABELS),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.sgd(0.0),
        metrics={"auc": metrics.ROCAUC(), "accuracy": metrics.accuracy},
        batch_size=16,
        epochs=2,
        shuffle=False,
        every="6 steps",
        progress=False,
    )
    scikit = pytest.importorskip("sklearn.metrics")
    kernel, bias = (np.asarray(run.params[name]) for name in ("kernel", "bias"))
    outputs = X @ kernel + bias
    chances = np.asarray(jax.nn.softmax(outputs))[:, 1]
    assert run.history["step"] == [6, 8]
    for row, rows in enumerate(([*range(50), *range(32)], range(32, 50))):
        rows = list(rows)
        auc = scikit.roc_auc_score(LABELS[rows], chances[rows])
        assert run.history["auc"][row] == pytest.approx(auc, abs=1e-6)
        right = np.mean(outputs[rows].argmax(1) == LABELS[rows])
        assert run.history["accuracy"][row] == pytest.approx(right, abs=1e-6)


def test_events_compile_nothing() -> None:
    fitted(validation=(X[:20], Y[:20]))
    with dl.why_compiled(show=False) as why:
        fitted(validation=(X[:20], Y[:20]), every="3 steps", callbacks=[lambda stage: None])
    assert [each.function for each in why.functions] == []


def test_streams_have_rows_by_step() -> None:
    batches = [(X[:16], Y[:16]), (X[16:32], Y[16:32]), (X[32:48], Y[32:48])]
    for compile in ("step", "epoch"):
        run = dl.fit(
            MODEL,
            batches,
            loss=losses.mean_squared_error,
            optimizer=optax.sgd(0.0),
            epochs=3,
            every="4 steps",
            compile=compile,
            progress=False,
        )
        assert run.history["step"] == [4, 8, 9]
        whole = squared(run.params, slice(0, 48)).mean()
        parts = [squared(run.params, BATCHES[k]).mean() for k in range(3)]
        np.testing.assert_allclose(
            run.history["loss"],
            [(3 * whole + parts[0]) / 4, (3 * whole + parts[1]) / 4, parts[2]],
            rtol=1e-5,
        )


def test_early_stopping_and_the_best_row_count_rows() -> None:
    run = fitted(
        optimizer=optax.sgd(0.0),
        every="2 steps",
        validation=(X[:20], Y[:20]),
        early_stopping=dl.EarlyStopping(patience=2),
    )
    assert run.history["step"] == [2, 4, 6]
    assert run.best is not None
    assert run.best.epoch == 0
    assert run.stopped.endswith("has not become better for 2 rows, one every 2 steps")
    assert repr(run).startswith(f"Run({run.stopped!r}, steps=6, ")
    assert run.table().columns[0] == "step"
    assert [row["step"] for row in run.table()] == [2, 4, 6]


@pytest.mark.slow
def test_a_plot_of_rows_has_steps(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = fitted(every="3 steps", validation=(X[:20], Y[:20]))
    figure = run.plot(tmp_path / "run.png")
    (axis,) = figure.axes
    assert axis.get_xlabel() == "step"
    assert list(axis.lines[0].get_xdata()) == run.history["step"]


class Crash(Exception):
    pass


@pytest.mark.sampled
@pytest.mark.parametrize("compile", ["epoch", "step"])
@pytest.mark.parametrize("at", [3, 6, 10])
def test_a_run_goes_on_within_a_row_to_the_same_bits(
    tmp_path: Path, at: int, compile: Any
) -> None:
    given: dict[str, Any] = {
        "every": "3 steps",
        "compile": compile,
        "metrics": {"r2": metrics.R2()},
        "validation": (X[:20], Y[:20]),
    }

    class Crashes(dl.Callback):
        def on_stage(self, stage: dl.Stage) -> None:
            if stage.steps >= at:
                raise Crash

    whole = fitted(**given)
    checkpoint = dl.Checkpoints(tmp_path / "run", every="2 steps")
    with pytest.raises(Crash):
        fitted(checkpoint=checkpoint, callbacks=[Crashes()], **given)
    assert_same_bits(whole, fitted(checkpoint=checkpoint, **given))


def test_a_run_of_other_rows_is_refused(tmp_path: Path) -> None:
    checkpoint = dl.Checkpoints(tmp_path / "run")
    fitted(every="3 steps", checkpoint=checkpoint)
    with pytest.raises(dl.CheckpointError, match=r"every: '3 steps'"):
        fitted(checkpoint=checkpoint)
    on = dataclasses.replace(checkpoint, on_change="continue")
    run = fitted(epochs=4, checkpoint=on)
    assert run.history["step"][:4] == [3, 6, 9, 12]
    assert np.isnan(run.history["step"][4])


class Recorded(dl.Callback):
    def __init__(self, answers: dict[int, Any] | None = None) -> None:
        self.answers = answers or {}
        self.moments: list[tuple[str, int, int]] = []

    def on_train_begin(self, stage: dl.Stage) -> Any:
        self.moments.append(("begin", stage.epoch, stage.steps))
        assert stage.metrics == {}
        return self.answers.get(0)

    def on_stage(self, stage: dl.Stage) -> Any:
        self.moments.append(("stage", stage.epoch, stage.steps))
        assert stage.metrics["loss"] == stage.history["loss"][-1]
        return self.answers.get(stage.steps)

    def on_train_end(self, stage: dl.Stage) -> None:
        self.moments.append(("end", stage.epoch, stage.steps))


def test_moments_of_a_callback() -> None:
    recorded = Recorded()
    fitted(epochs=2, callbacks=[recorded])
    assert recorded.moments == [
        ("begin", 0, 0),
        ("stage", 0, 4),
        ("stage", 1, 8),
        ("end", 1, 8),
    ]
    with pytest.warns(RuntimeWarning, match="was not finite"):
        fitted(optimizer=optax.sgd(1e30), callbacks=[recorded := Recorded()])
    assert [name for name, *_ in recorded.moments][-1] == "end"


def test_callbacks_see_the_row_that_early_stopping_ends_with() -> None:
    recorded = Recorded()
    run = fitted(
        optimizer=optax.sgd(0.0),
        validation=(X[:20], Y[:20]),
        early_stopping=dl.EarlyStopping(patience=1),
        callbacks=[recorded],
    )
    assert run.stopped.startswith("early stopping")
    assert [name for name, *_ in recorded.moments] == ["begin", "stage", "stage", "end"]


@pytest.mark.parametrize("answer", [True, np.bool_(True), dl.Change(stop=True)])
def test_a_callback_ends_the_run(answer: Any) -> None:
    run = fitted(callbacks=[lambda stage: answer])
    assert (run.stopped, len(run.history["loss"])) == ("callback", 1)
    at_once = fitted(callbacks=[Recorded({0: answer})])
    assert (at_once.stopped, at_once.history["loss"]) == ("callback", [])
    said = fitted(callbacks=[Recorded({4: dl.Change(stop="as good as it gets")})])
    assert said.stopped == "as good as it gets"


def test_a_callback_changes_the_learning_rate() -> None:
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
    fitted(optimizer=optimizer)
    halved = Recorded({3: dl.Change(learning_rate=0.05), 6: dl.Change(learning_rate=0.025)})
    with dl.why_compiled(show=False) as why:
        run = fitted(optimizer=optimizer, every="3 steps", callbacks=[halved])
    assert [each.function for each in why.functions] == []
    np.testing.assert_allclose(run.history["learning_rate"], [0.1, 0.05, 0.025, 0.025])
    schedule = optax.join_schedules(
        [optax.constant_schedule(rate) for rate in (0.1, 0.05, 0.025)], [3, 6]
    )
    same = fitted(optimizer=optax.sgd(schedule))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), run.params, same.params
    )


def test_the_learning_rates_of_several_optimizers_change_together() -> None:
    generator = dl.Sequential(dl.Dense(8), jax.nn.relu, dl.Dense(4))
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3)
    step = dl.Adversarial(generator, dl.Dense(1), 2, optimizer, optimizer)
    changing = Recorded({4: dl.Change(learning_rate=5e-4)})
    changing.on_stage = lambda stage: changing.answers.get(stage.steps)  # it reports no "loss"
    run = dl.train(
        step, X, epochs=2, batch_size=16, every="4 steps", callbacks=[changing], progress=False
    )
    states = run.train_state.optimizer_state
    assert {float(each.hyperparams["learning_rate"]) for each in states.values()} == {
        float(np.float32(5e-4))
    }


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1),
        optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, 9)),
    ],
    ids=["closed", "scheduled"],
)
def test_a_learning_rate_that_is_nowhere_is_refused(optimizer: Any) -> None:
    with pytest.raises(ValueError, match="the optimizer keeps none in its state — give"):
        fitted(optimizer=optimizer, callbacks=[Recorded({4: dl.Change(learning_rate=1.0)})])


def test_arguments_are_checked(unchecked: None) -> None:
    for every in ("0 steps", "5 minutes", "often", 100):
        with pytest.raises(ValueError, match="every is a number and what it counts, in steps"):
            fitted(every=every)
    for callbacks in ([Recorded], ["x"]):
        with pytest.raises(TypeError, match="expected functions of a Stage, or Callbacks"):
            fitted(callbacks=callbacks)
    with pytest.raises(ValueError, match="Change: learning_rate is a finite number"):
        dl.Change(learning_rate=-1.0)
    with pytest.raises(TypeError, match="Change: stop is True, False or why"):
        dl.Change(stop=1)  # type: ignore[arg-type]
    assert jnp.isfinite(fitted(epochs=1).history["loss"][0])
