"""What bad input gets, and how a run ends that cannot go on."""

import functools
import re
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20, dtype=np.int32) % 3
MODEL = dl.Sequential(dl.Dense(5), jax.nn.relu, dl.Dense(3))
DEFAULTS = {
    "loss": losses.softmax_cross_entropy,
    "optimizer": optax.adam(1e-2),
    "progress": False,
}


def spoiled(value, row=3):
    inputs = X.copy()
    inputs[row, 1] = value
    return inputs


CASES = {
    "lengths": (
        {"data": (X, Y[:19])},
        "data: every array needs one entry an example, got 20 inputs, 19 targets.",
    ),
    "weights": (
        {"data": (X, Y, np.ones(3, np.float32))},
        "got 20 inputs, 20 targets, 3 weights",
    ),
    "empty": ({"data": (X[:0], Y[:0])}, "the set is empty"),
    "no pair": ({"data": (X,)}, "expected a pair (inputs, targets)"),
    "nan": (
        {"data": (spoiled(np.nan), Y)},
        "data inputs: 1 of 80 numbers are not finite, the first is nan at index [3, 1]",
    ),
    "infinity": ({"data": (spoiled(np.inf), Y)}, "the first is inf at index [3, 1]"),
    "labels": ({"data": (X, Y + 1)}, "labels lie outside 0…2"),
    "negative labels": ({"data": (X, Y - 1)}, "labels lie outside 0…2"),
    "float labels": (
        {"data": (X, Y.astype(np.float32))},
        "data targets: softmax_cross_entropy",
    ),
    "rank": (
        {"data": (X[:, 0], Y)},
        "Dense at 'dense_0': expected [batch, ..., features], got shape (20,)",
    ),
    "validation width": (
        {"validation": (X[:, :3], Y)},
        "Dense at 'dense_0': expected 4 features, as at init, got 3",
    ),
    "validation lengths": (
        {"validation": (X, Y[:5])},
        "validation: every array needs one entry an example",
    ),
    "validation share": (
        {"validation": 1.5},
        "a share of the data lies between 0 and 1, got 1.5",
    ),
    "scalar loss": (
        {"loss": lambda o, t: losses.softmax_cross_entropy(o, t).mean()},
        "value for each example",
    ),
    "swapped": ({"loss": lambda o, t: losses.softmax_cross_entropy(t, o)}, "swapped"),
    "no optimizer": ({"optimizer": optax.adam}, "optimizer: expected an optax optimizer"),
    "a number as optimizer": (
        {"optimizer": 0.1},
        "optimizer: expected an optax optimizer, got 0.1",
    ),
    "way": (
        {"compile": "fast"},
        "compile is one of 'eager', 'step', 'epoch', 'auto', got 'fast'.",
    ),
    "metric": ({"metrics": {"m": lambda o, t: jnp.ones(())}}, "metric 'm'"),
    "metric class": ({"metrics": {"m": metrics.R2}}, "R2"),
    "metric name": (
        {"metrics": {"loss": metrics.accuracy}},
        "a name that the history uses itself",
    ),
    "metrics list": ({"metrics": [metrics.accuracy]}, "metrics: expected a dict by name"),
    "epochs": ({"epochs": 0}, "epochs is a whole number of at least 1, got 0."),
    "batch size": ({"batch_size": 2.5}, "batch_size is a whole number of at least 1, got 2.5."),
    "accumulate": (
        {"accumulate": 3, "batch_size": 8},
        "a batch of 8 examples cannot be cut into 3 equal parts",
    ),
    "class weight": ({"class_weight": {0: 1.0, 1: 1.0}}, "class 2 has examples and no weight"),
    "monitor": (
        {"early_stopping": dl.EarlyStopping(monitor="validation_loss")},
        "early_stopping: the history will have no 'validation_loss' to monitor",
    ),
    "steps per epoch": ({"steps_per_epoch": 3}, "an epoch of arrays is one pass over them"),
    "no data": ({"data": 3}, "something that yields batches, got int"),
    "initial": (
        {"initial": ({"dense_0": {"kernel": np.zeros((4, 7), np.float32)}}, {})},
        "dense_0.kernel has shape (4, 7) where the model has (4, 5)",
    ),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_a_sentence_before_anything_is_compiled(case, monkeypatch):
    from jaxdl.training import program

    def compiled(*_):
        raise AssertionError("the program was run")

    monkeypatch.setattr(program, "epoch_loop", compiled)
    changes, message = CASES[case]
    data = changes.get("data", (X, Y))
    options = DEFAULTS | {key: value for key, value in changes.items() if key != "data"}
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        dl.fit(MODEL, data, **options)


@pytest.mark.usefixtures("unchecked")
def test_a_model_with_state_of_its_own_is_refused():
    class Stateful:
        def __init__(self):
            self.weight = np.ones(3)

        def __call__(self, x):
            return x * self.weight

    with pytest.raises(
        TypeError, match="may hold state of its own, which a pure model cannot see"
    ):
        dl.Sequential(dl.Dense(3), Stateful())
    with pytest.raises(
        TypeError, match=r"Dense is a class where a layer is expected — call it: Dense\(…\)"
    ):
        dl.fit(dl.Dense, (X, Y), **DEFAULTS)


def test_a_threshold_for_logits_is_refused_for_probabilities():
    model = dl.Sequential(dl.Dense(1), jax.nn.sigmoid)
    options = DEFAULTS | {"loss": losses.binary_cross_entropy_from_probabilities}
    with pytest.raises(ValueError, match=r"metric 'accuracy' .* threshold=0\.5"):
        dl.fit(model, (X, Y % 2), metrics={"accuracy": metrics.accuracy}, **options)
    dl.fit(
        model,
        (X, Y % 2),
        metrics={"accuracy": functools.partial(metrics.accuracy, threshold=0.5)},
        **options,
    )


@pytest.mark.sampled
@pytest.mark.parametrize("way", ["eager", "step", "epoch"])
def test_a_loss_that_is_not_finite_ends_the_run_at_the_last_finite_state(way):
    def poisoned(outputs, targets):
        return jnp.where(targets == 7, jnp.nan, (outputs[:, 0] - targets) ** 2)

    targets = np.zeros(20, np.float32)
    targets[13] = 7  # in batch 4 of 5
    options = DEFAULTS | {
        "loss": poisoned,
        "optimizer": optax.sgd(0.01),
        "shuffle": False,
        "batch_size": 4,
        "compile": way,
    }
    start = dl.Dense(1).init(jax.random.key(0), X)
    with pytest.warns(
        RuntimeWarning, match=r"the loss or a gradient was not finite at step 4 \(epoch 1\)"
    ) as warned:
        run = dl.fit(dl.Dense(1), (X, targets), initial=start, epochs=3, **options)
    assert [each.filename for each in warned] == [__file__]
    good = dl.fit(dl.Dense(1), (X[:12], targets[:12]), initial=start, epochs=1, **options)
    assert int(run.train_state.step) == 3
    assert "loss" in run.history
    assert not any(run.history.values())  # no epoch ended
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), run.params, good.params
    )
    assert "those after step 3, the last that are finite" in run.stopped


@pytest.mark.slow
def test_parameters_that_overflow_are_taken_back_too():
    options = DEFAULTS | {
        "loss": losses.mean_squared_error,
        "optimizer": optax.sgd(1e30),
        "batch_size": 20,
    }
    with pytest.warns(RuntimeWarning, match="the loss or a gradient was not finite"):
        run = dl.fit(dl.Dense(1), (X, X[:, 0]), epochs=50, **options)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert int(run.train_state.step) >= 1


SCRIPT = """
import signal, sys
import jax, numpy as np, optax, jaxdl as dl
from jaxdl import losses
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
x = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
model = dl.Sequential(dl.Dense(256), jax.nn.relu, dl.Dense(1))
shown = lambda end: print("epoch", end.epoch, flush=True)
run = dl.fit(model, (x, x[:, 0]), loss=losses.mean_squared_error, optimizer=optax.adam(1e-3), epochs=10**6, batch_size=32,
             callbacks=[shown] if sys.argv[1] == "callback" else [], progress=False, compile=sys.argv[2])
print(run.stopped, len(run.history["loss"]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["epoch", "step"])
@pytest.mark.once
def test_ctrl_c_ends_a_run_soon_with_its_history(way):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), "callback", way],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    seconds = time.monotonic() - began
    stopped, epochs = rest.splitlines()[-1].split()
    assert stopped == "interrupted"
    assert int(epochs) >= 3
    assert seconds < 5  # about one on an idle machine


@pytest.mark.slow
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_a_ctrl_c_that_python_drops_ends_a_run_too(way, monkeypatch):
    class Dropped:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    dropped, handler = [], signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(sys, "unraisablehook", lambda what: dropped.append(what.exc_type))

    def callback(end):
        if end.epoch == 1:
            Dropped()

    run = dl.fit(MODEL, (X, Y), **DEFAULTS, epochs=10, compile=way, callbacks=[callback])
    assert dropped == []  # a callback is not interrupted: the run ends behind it
    assert (run.stopped, len(run.history["loss"])) == ("interrupted", 2)
    assert signal.signal(signal.SIGINT, handler) is signal.default_int_handler


@pytest.mark.slow
def test_progress_is_plain_lines_without_a_terminal(capsys):
    dl.fit(
        MODEL,
        (X, Y),
        **(DEFAULTS | {"progress": True}),
        epochs=2,
        validation=(X, Y),
        metrics={"accuracy": metrics.accuracy},
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "val accuracy" in lines[0]
    dl.fit(MODEL, (X, Y), **DEFAULTS)
    assert capsys.readouterr().out == ""


@pytest.mark.sampled
@pytest.mark.parametrize("forced", [False, True])
def test_progress_is_plain_lines_in_a_notebook_without_widgets(capsys, monkeypatch, forced):
    """There rich shows no bar; and its kernel asks for colours in the environment."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    if forced:
        monkeypatch.setenv("FORCE_COLOR", "1")
    dl.fit(MODEL, (X, Y), **(DEFAULTS | {"progress": True}), epochs=2, validation=(X, Y))
    told = capsys.readouterr()
    assert re.fullmatch(r"(epoch [12]/2  loss \d\.\d+  val loss \d\.\d+\n){2}", told.out)
    assert told.err == ""
