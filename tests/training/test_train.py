"""`train`: any step, any data, and what is refused."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(43, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 43).astype(np.int32)
MODEL = dl.Sequential(dl.Dense(6), jax.nn.relu, dl.Dense(3))
OPTIMIZER = optax.adam(1e-2)
SUPERVISED = dl.Supervised(MODEL, losses.softmax_cross_entropy, OPTIMIZER)
AUTOENCODER = dl.Reconstruction(
    dl.Sequential(dl.Dense(3), dl.Dense(4)), losses.mean_squared_error, OPTIMIZER
)


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_fit_is_train_with_a_supervised_step() -> None:
    options = {"epochs": 3, "batch_size": 8, "validation": 0.2, "progress": False}
    fitted = dl.fit(
        MODEL, (X, Y), loss=losses.softmax_cross_entropy, optimizer=OPTIMIZER, **options
    )
    trained = dl.train(SUPERVISED, (X, Y), **options)
    same(fitted.params, trained.params)
    assert {n: v for n, v in fitted.history.items() if n != "seconds"} == {
        n: v for n, v in trained.history.items() if n != "seconds"
    }


def slices(*arrays: Any) -> list[Any]:
    return [tuple(a[i : i + 10] for a in arrays) for i in range(0, 43, 10)]


@pytest.mark.sampled
@pytest.mark.parametrize(
    "data",
    [
        X,
        jnp.asarray(X),
        (X,),
        (X, Y),
        (X, None, np.ones(43, np.float32)),
        [X[i : i + 10] for i in range(0, 43, 10)],
        slices(X),
        slices(X, Y),
        lambda: iter(slices(X)),
    ],
    ids=[
        "array",
        "jax",
        "one",
        "labelled",
        "weighted",
        "arrays of a stream",
        "stream",
        "labelled stream",
        "function",
    ],
)
def test_inputs_come_alone_or_with_more_whole_or_in_batches(data: Any) -> None:
    options = {"epochs": 2, "batch_size": 10, "shuffle": False, "progress": False}
    run = dl.train(AUTOENCODER, data, **options)
    whole = dl.train(AUTOENCODER, X, **options)
    np.testing.assert_allclose(run.history["loss"], whole.history["loss"], rtol=1e-5)
    assert int(run.train_state.step) == 10


def test_a_torch_data_loader_of_inputs_alone() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(torch.from_numpy(X)), batch_size=10)
    run = dl.train(AUTOENCODER, loader, epochs=2, progress=False)
    whole = dl.train(AUTOENCODER, X, epochs=2, batch_size=10, shuffle=False, progress=False)
    np.testing.assert_allclose(run.history["loss"], whole.history["loss"], rtol=1e-5)


def test_a_dict_of_arrays_is_a_tree_of_inputs() -> None:
    step = Counting(10.0)
    run = dl.train(
        step,
        {"a": X, "b": X[:, :1]},
        batch_size=10,
        validation={"a": X[:5], "b": X[:5, :1]},
        progress=False,
    )
    assert run.history["examples"] == [43.0]
    assert run.history["validation_examples"] == [5.0]


def test_a_run_goes_on_where_an_earlier_one_ended() -> None:
    options = {"batch_size": 10, "shuffle": False, "progress": False}
    whole = dl.train(AUTOENCODER, X, epochs=3, **options)
    first = dl.train(AUTOENCODER, X, epochs=1, **options)
    rest = dl.train(AUTOENCODER, X, epochs=2, initial=first.train_state, **options)
    same(rest.params, whole.params)
    same(rest.train_state.optimizer_state, whole.train_state.optimizer_state)
    assert first.history["loss"] + rest.history["loss"] == whole.history["loss"]


@dataclasses.dataclass(frozen=True)
class Counting(dl.TrainingStep):
    """A step such as a user writes: no loss, figures of its own that are made of its sums."""

    gain: float

    def init(self, key: Any, batch: Any) -> dl.TrainState:
        del batch
        return dl.TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros(())}, {}, (), key)

    def evaluation(self) -> "CountingEvaluation":
        return CountingEvaluation(self)

    def __call__(self, state: dl.TrainState, batch: Any) -> tuple[dl.TrainState, dl.Measured]:
        w = state.params["w"] + self.gain
        sums = {"count": batch.example_weights().sum(), "square": jnp.square(w)}
        return state._replace(step=state.step + 1, params={"w": w}), dl.Measured(sums, {})

    def finite(self, measured: dl.Measured) -> Any:
        return jnp.isfinite(measured.sums["square"])

    def observe(self, state: dl.TrainState) -> dict[str, Any]:
        return {"w": state.params["w"]}

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del gathered
        return {"examples": float(sums["count"]), "square": float(sums["square"])}


@dataclasses.dataclass(frozen=True)
class CountingEvaluation(dl.EvaluationStep):
    """Measures what `Counting` does, and changes nothing."""

    of: Counting

    def __call__(self, state: dl.EvalState, batch: Any) -> dl.Measured:
        sums = {"count": batch.example_weights().sum(), "square": jnp.square(state.params["w"])}
        return dl.Measured(sums, {})

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self.of.report(sums, gathered)


@pytest.mark.sampled
@pytest.mark.parametrize("way", ["eager", "step", "epoch"])
def test_a_first_state_of_numpy_arrays_is_kept_where_no_step_is_finite(way: Any) -> None:
    start = dl.TrainState(
        np.int32(0), {"w": np.zeros((), np.float32)}, {}, (), jax.random.key(0)
    )
    with pytest.warns(RuntimeWarning, match="not finite"):
        run = dl.train(
            Counting(np.inf),
            X,
            initial=start,
            epochs=1,
            batch_size=10,
            compile=way,
            progress=False,
        )
    assert float(run.params["w"]) == 0


@pytest.mark.sampled
@pytest.mark.parametrize("way", ["eager", "step", "epoch", "auto"])
def test_a_step_of_ones_own_runs_in_every_way(way: Any) -> None:
    run = dl.train(
        Counting(1.0), X, epochs=3, batch_size=10, validation=X[:7], compile=way, progress=False
    )
    assert run.history["examples"] == [43.0] * 3
    assert run.history["w"] == [5.0, 10.0, 15.0]
    assert run.history["square"][0] == sum(n * n for n in range(1, 6))
    assert run.history["validation_examples"] == [7.0] * 3
    assert (run.best, run.stopped) == (None, "finished")
    assert repr(run).startswith("Run('finished', epochs=3, examples=43")


def test_early_stopping_may_watch_any_figure() -> None:
    stopping = dl.EarlyStopping(monitor="square", mode="min", patience=2)
    run = dl.train(
        Counting(1.0), X, epochs=20, batch_size=10, early_stopping=stopping, progress=False
    )
    assert len(run.history["square"]) == 3
    assert float(run.params["w"]) == 5.0  # of the first epoch, the best


def test_evaluation_begins_every_pass_at_step_zero() -> None:
    seen = []

    @dataclasses.dataclass(frozen=True)
    class WatchedEvaluation(CountingEvaluation):
        def __call__(self, state: Any, batch: Any) -> Any:
            jax.debug.callback(lambda step: seen.append(int(step)), state.step, ordered=True)
            return super().__call__(state, batch)

    @dataclasses.dataclass(frozen=True)
    class Watched(Counting):
        def evaluation(self) -> WatchedEvaluation:
            return WatchedEvaluation(self)

    dl.train(Watched(1.0), X, epochs=2, batch_size=10, validation=X[:20], progress=False)
    assert seen == [0, 1, 0, 1]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no step": (
        {"step": MODEL},
        "step: expected an Objective, or a training step such as Reconstruction(model, loss, optimizer), got "
        "Sequential",
    ),
    "a class": ({"step": dl.Supervised}, "got the class Supervised — call it."),
    "a list within": (
        {"step": Counting([1.0])},  # type: ignore[arg-type]
        "step: Counting cannot be hashed (unhashable type: 'list')",
    ),
    "way": (
        {"compile": "fast"},
        "compile is one of 'eager', 'step', 'epoch', 'auto', got 'fast'.",
    ),
    "nan": ({"data": np.where(X > 2, np.nan, X)}, "data inputs: "),
    "validation nan": ({"validation": np.where(X > 2, np.nan, X)}, "validation inputs: "),
    "empty": ({"data": X[:0]}, "the set is empty"),
    "a number": (
        {"data": 3},
        "data: expected arrays or something that yields batches, got int",
    ),
    "scalar": (
        {"data": np.float32(3)},
        "data inputs: expected arrays with one entry an example, got a scalar.",
    ),
    "lengths": (
        {"data": (X, Y[:3])},
        "every array needs one entry an example, got 43 inputs, 3 targets",
    ),
    "too many": ({"data": (X, Y, Y, Y)}, "data: expected a pair"),
    "epochs": ({"epochs": 0}, "epochs is a whole number of at least 1, got 0."),
    "batch size": ({"batch_size": 0}, "batch_size is a whole number of at least 1, got 0."),
    "width": (
        {"validation": X[:, :3]},
        "Dense at 'dense_0': expected 4 features, as at init, got 3",
    ),
    "monitor": (
        {"early_stopping": dl.EarlyStopping()},
        "the history will have no 'validation_loss' to monitor, only loss",
    ),
    "initial": (
        {"initial": SUPERVISED.init(jax.random.key(0), dl.Batch(X, Y))},
        "initial: params.dense_0.bias has shape (6,)",
    ),
    "steps per epoch": ({"steps_per_epoch": 3}, "an epoch of arrays is one pass over them"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_a_sentence_before_anything_is_compiled(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jaxdl.training import program

    def compiled(*_: Any) -> None:
        raise AssertionError("the program was run")

    monkeypatch.setattr(program, "epoch_loop", compiled)
    changes, message = CASES[case]
    step, data = changes.get("step", AUTOENCODER), changes.get("data", X)
    options = {name: value for name, value in changes.items() if name not in ("step", "data")}
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        dl.train(step, data, progress=False, **options)


def test_a_step_whose_state_changes_its_structure_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Growing(Counting):
        def __call__(self, state: Any, batch: Any) -> Any:
            state, measured = super().__call__(state, batch)
            return state._replace(params={**state.params, "v": state.params["w"]}), measured

    with pytest.raises(
        ValueError, match=r"step: the state after it: params.v is not the model's"
    ):
        dl.train(Growing(1.0), X, progress=False)


def test_a_figure_that_is_not_finite_ends_the_run() -> None:
    with pytest.warns(RuntimeWarning, match="not finite"):
        run = dl.train(Counting(1e19), X, epochs=3, batch_size=10, progress=False)
    assert not any(run.history.values())  # no epoch ended
    assert float(run.params["w"]) == pytest.approx(1e19)
