"""A run that was saved opens again, in another process too, and predicts the same bits."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.checkpoint import manifest
from jaxdl.training.printed import (
    CannotPrintError,
    Printed,
    opened_loss,
    opened_metric,
    opened_model,
    printed_loss,
    printed_metric,
    printed_model,
)
from tests.laws.catalogue import CATALOGUE, Decoder, Gated, Leaky, attend

pytest.importorskip("safetensors")
pytestmark = pytest.mark.usefixtures("quickly_compiled")

OWN = [Gated, Decoder, Leaky, attend]
MODEL = dl.Sequential(dl.Dense(6), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.3), dl.Dense(3))
PROGRAM = """
import sys, jax, numpy as np, jaxdl as dl
run = dl.load_run(sys.argv[1])
x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
np.save(sys.argv[2], np.asarray(run.predict(x)))
print(run.model, run.loss.__name__, sorted(run.metrics), run.stopped)
"""


def blobs(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    x = random.normal(size=(count, 4)) + labels[:, None]
    return x.astype(np.float32), labels.astype(np.int32)


def settings(**more: Any) -> dict[str, Any]:
    return {
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(1e-2),
        "epochs": 3,
        "batch_size": 20,
        "metrics": {"accuracy": metrics.accuracy, "auc": metrics.ROCAUC()},
        "progress": False,
    } | more


def fitted(model: Any = MODEL, **more: Any) -> dl.Run:
    return dl.fit(model, blobs(), **settings(**more))


def bits(tree: Any) -> list[bytes]:
    leaves = jax.tree.leaves(tree)
    plain = [
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in leaves
    ]
    return [np.asarray(leaf).tobytes() for leaf in plain]


def assert_same(found: dl.Run, run: dl.Run) -> None:
    for name in ("params", "state", "average", "train_state", "best"):
        ours = getattr(found, name)
        theirs = getattr(run, name)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs), name
        if name != "best" or theirs is not None:
            assert bits(ours[2:] if name == "best" else ours) == bits(
                theirs[2:] if name == "best" else theirs
            ), name
    np.testing.assert_equal(found.history, run.history)
    for name in ("stopped", "compile_seconds", "step", "model", "loss", "metrics", "settings"):
        assert getattr(found, name) == getattr(run, name), name
    if run.best is not None and found.best is not None:
        assert found.best[:2] == run.best[:2]


@pytest.fixture(scope="module")
def run() -> dl.Run:
    return fitted(validation=blobs(30), average=0.9)


def test_a_run_comes_back_bit_by_bit(tmp_path: Path, run: dl.Run) -> None:
    run.save(tmp_path / "runs" / "blobs")
    found = dl.load_run(tmp_path / "runs" / "blobs")
    assert_same(found, run)
    assert isinstance(found.train_state, dl.TrainState)
    x, _ = blobs()
    np.testing.assert_array_equal(found.predict(x), run.predict(x))
    assert found.evaluate(blobs(30)) == run.evaluate(blobs(30))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"early_stopping": dl.EarlyStopping(patience=1), "validation": 0.3, "average": 0.5},
        {"precision": "float16"},
        {"precision": "bfloat16"},
        {"if_not_finite": "rollback"},
        {"optimizer": "schedule_free_adamw", "learning_rate": 0.01},
        {"optimizer": optax.inject_hyperparams(optax.sgd)(0.1)},
        {"clip_norm": 1.0, "optimizer": optax.adamw(optax.cosine_decay_schedule(0.1, 9))},
        {"metrics": {"cm": metrics.ConfusionMatrix(3), "f": metrics.F1(average=None)}},
        {"metrics": {"top": functools.partial(metrics.top_k_accuracy, k=2)}},
        {"metrics": {"most": metrics.Maximum(functools.partial(metrics.top_k_accuracy, k=2))}},
        {"metrics": {"part": metrics.Mean(metrics.accuracy, ignore=-1)}},
    ],
    ids=lambda more: ", ".join(more),
)
def test_runs_of_many_kinds(tmp_path: Path, more: dict[str, Any]) -> None:
    made = fitted(**more)
    made.save(tmp_path)
    found = dl.load_run(tmp_path)
    assert_same(found, made)
    np.testing.assert_array_equal(found.predict(blobs()[0]), made.predict(blobs()[0]))


def test_training_goes_on_from_a_saved_run(tmp_path: Path) -> None:
    step = dl.Supervised(dl.Dense(3), losses.softmax_cross_entropy, optax.adam(0.1))
    first = dl.train(step, blobs(), epochs=2, progress=False)
    first.save(tmp_path)
    found = dl.load_run(tmp_path)
    on = [
        dl.train(step, blobs(), initial=each.train_state, progress=False)
        for each in (first, found)
    ]
    assert bits(on[0].params) == bits(on[1].params)


def test_another_process_predicts_the_same_bits(tmp_path: Path, run: dl.Run) -> None:
    run.save(tmp_path / "run")
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), str(tmp_path / "y.npy")]
    optimized_alike = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}  # as quickly_compiled has it
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | optimized_alike
    )
    x = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    assert np.load(tmp_path / "y.npy").tobytes() == np.asarray(run.predict(x)).tobytes()
    assert said.stdout.strip() == (
        f"{MODEL} softmax_cross_entropy ['accuracy', 'auc'] finished"
    )


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_layer_is_read_back_from_its_printed_call(entry: Any) -> None:
    printed = printed_model(entry.layer)
    assert set(printed.types) <= {"Gated", "Decoder", "Leaky", "attend"}
    found = opened_model(printed, OWN)
    assert found == entry.layer
    assert hash(found) == hash(entry.layer)
    assert repr(found) == repr(entry.layer) == printed.call


@dataclasses.dataclass(frozen=True)
class Options(dl.Layer):
    """A layer with fields of many kinds."""

    width: int
    activations: tuple[Any, ...] = ()
    scale: Any = 1.0
    names: Any = None
    kind: Any = None
    count: int = dataclasses.field(kw_only=True)
    derived: int = dataclasses.field(init=False, default=3)

    def init(self, key: Any, x: Any) -> Any:
        return {}, {}

    def apply(self, params: Any, state: Any, x: Any, mode: Any = None) -> Any:
        return x, state


@pytest.mark.parametrize(
    "model",
    [
        dl.models.mlp(4, 3),
        dl.models.resnet(10),
        dl.models.gpt(11, context=8, features=8, layers=1, heads=2),
        dl.models.VariationalAutoencoder(dl.Dense(3), dl.Dense(4), latent=2),
        dl.in_precision(dl.Dense(3, dtype=jnp.bfloat16), "float16"),
        dl.Dense(3, dtype=jnp.dtype("bfloat16"), param_dtype=np.dtype("float16")),
        dl.Dense(3, kernel_init=jax.nn.initializers.zeros),
        Options(3, scale=np.float32(0.25), kind=np.True_, count=2),
        dl.Dense(3, kernel_init=dl.initializers.Normal(np.float64(0.1))),
        dl.Sequential(jnp.sin, jnp.add, jax.nn.relu6),
        dl.SimpleRNN(3, activation=functools.partial(jax.nn.leaky_relu, negative_slope=0.1)),
        Options(3, (jax.nn.relu, dl.Dense), -float("inf"), {"a": [1]}, dl.GRU, count=2),
        Options(3, kind=(dl.Dense(1),), count=-2),
    ],
    ids=repr,
)
def test_models_are_read_back_from_their_printed_calls(model: Any) -> None:
    found = opened_model(printed_model(model), [Options])
    assert repr(found) == repr(model)
    if not isinstance(model, dl.SimpleRNN):
        assert found == model


def relu(x: jax.Array) -> jax.Array:
    return x


def test_a_function_of_ones_own_that_is_called_like_another() -> None:
    model = dl.Sequential(relu, dl.Dense(2))
    printed = printed_model(model)
    assert printed == Printed("Sequential(relu, Dense(2))", ("relu",))
    assert opened_model(printed, [relu]) == model
    with pytest.raises(CannotPrintError, match="two parts of it are called relu"):
        printed_model(dl.Sequential(relu, dl.Residual(make_relu())))
    with pytest.raises(CannotPrintError, match="makes another value"):
        printed_model(dl.Sequential(relu, jax.nn.relu))


def make_relu() -> Any:
    def relu(x: jax.Array) -> jax.Array:
        return 2 * x

    return relu


@pytest.mark.parametrize(
    "loss",
    [
        losses.huber,
        functools.partial(losses.huber, delta=2.0),
        optax.losses.squared_error,
        losses.focal,
    ],
)
def test_losses_are_read_back(loss: Any) -> None:
    found = opened_loss(printed_loss(loss))
    x = jnp.array([[0.3], [0.6]])
    np.testing.assert_array_equal(found(x, jnp.ones((2, 1))), loss(x, jnp.ones((2, 1))))


@losses.batchwise
def spread(outputs: Any, targets: Any, *, mask: Any, power: int = 2) -> Any:
    return jnp.mean(abs(outputs - targets) ** power, where=mask[:, None])


def test_batchwise_losses_are_read_back() -> None:
    function = spread.function
    for loss in (spread, losses.batchwise(functools.partial(function, power=1))):
        printed = printed_loss(loss)
        assert printed.types == ("spread",)
        assert opened_loss(printed, {"spread": function}) == loss
        assert opened_loss(printed, [spread]) == loss


@pytest.mark.parametrize(
    "metric",
    [
        metrics.accuracy,
        functools.partial(metrics.accuracy, threshold=0.5),
        metrics.F1(average="macro"),
        metrics.Perplexity(),
        metrics.Part(metrics.R2(), 1),
        losses.mean_absolute_error,
    ],
)
def test_metrics_are_read_back(metric: Any) -> None:
    lifted = metrics.as_metric(metric)
    assert opened_metric(printed_metric(lifted)) == lifted


def mine(outputs: Any, targets: Any) -> Any:
    return losses.softmax_cross_entropy(outputs, targets)


@pytest.mark.slow
def test_what_is_the_callers_own_is_asked_for(tmp_path: Path) -> None:
    run = fitted(Gated(3), loss=mine, epochs=1, metrics={"mine": mine})
    run.save(tmp_path)
    with pytest.raises(
        dl.CheckpointError,
        match=r"names Gated, which is not jaxdl's — give what it is called there, "
        r"load_run\(folder, types=\[Gated\]\)",
    ):
        dl.load_run(tmp_path)
    some = dl.load_run(tmp_path, [Gated])
    assert (some.loss, some.metrics) == (None, {})
    for types in ([Gated, mine], {"Gated": Gated, "mine": mine}):
        found = dl.load_run(tmp_path, types)
        assert found.evaluate(blobs()) == run.evaluate(blobs())
    given = dl.load_run(tmp_path, model=Gated(3))
    np.testing.assert_array_equal(given.predict(blobs()[0]), run.predict(blobs()[0]))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("types", [Gated, [3], "Gated", {"a": 3}, [functools.partial(relu)]])
def test_types_that_are_none(tmp_path: Path, types: Any) -> None:
    fitted(Gated(3), epochs=1).save(tmp_path)
    with pytest.raises(TypeError, match="types: expected"):
        dl.load_run(tmp_path, types)


def test_a_model_that_does_not_print_is_left_out(tmp_path: Path) -> None:
    run = fitted(dl.Sequential(lambda x: 2 * x, dl.Dense(3)), epochs=1)
    with pytest.warns(
        UserWarning,
        match="holds the run without its model, since <lambda> in it has no name — define it by "
        "def; all else is there",
    ):
        run.save(tmp_path)
    found = dl.load_run(tmp_path)
    assert found.model is None
    with pytest.raises(ValueError, match=r"saved without its model — give it, as in load_run"):
        found.predict(blobs()[0])
    again = dl.load_run(tmp_path, model=run.model)
    np.testing.assert_array_equal(again.predict(blobs()[0]), run.predict(blobs()[0]))


def test_an_optimizer_whose_state_no_file_can_describe(tmp_path: Path) -> None:
    optimizer = optax.GradientTransformation(
        lambda params: jax.tree_util.Partial(relu, jnp.zeros(())), lambda g, s, p=None: (g, s)
    )
    run = fitted(dl.Dense(3), optimizer=optimizer, epochs=1, metrics=None)
    with pytest.warns(UserWarning, match="without the optimizer's state, in which train_state"):
        run.save(tmp_path)
    found = dl.load_run(tmp_path)
    assert found.train_state.optimizer_state is None
    assert bits(found.train_state.params) == bits(run.train_state.params)


def rewritten(folder: Path, **changes: Any) -> None:
    fields = json.loads((folder / "run.json").read_text())
    fields.pop("digest")
    (folder / "run.json").write_bytes(manifest.digested_text(fields | changes))


@pytest.mark.parametrize(
    "call",
    [
        "Dense(3).__class__.__mro__",
        "Sequential(os.system('touch touched'))",
        "Sequential(open('touched', 'w'))",
        "__import__('pathlib')",
        "Sequential(lambda x: x)",
        "Sequential(*[Dense(3) for i in (1, 2)])",
        "Dense(1 + 2)",
        "relu(3)",
        "3",
        "Dense(-3)",
    ],
)
def test_hostile_models_are_refused(
    tmp_path: Path, run: dl.Run, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run.save(tmp_path / "run")
    rewritten(tmp_path / "run", model={"call": call, "types": []})
    with pytest.raises(
        dl.CheckpointError, match=r"load_run: the model in .* (nothing of it was run|names)"
    ):
        dl.load_run(tmp_path / "run", types=OWN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("name", ["os.path.join", "optax.adam", "jaxdl.models.mlp", "../x.y"])
def test_trees_are_made_of_named_tuples_alone(tmp_path: Path, run: dl.Run, name: str) -> None:
    run.save(tmp_path)
    rewritten(tmp_path, structure={"of": name, "fields": {}})
    with pytest.raises(
        dl.CheckpointError, match="which this version of jaxdl, or of optax, does"
    ):
        dl.load_run(tmp_path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder: truncated(folder / "run.json"), "has a damaged run.json"),
        (lambda folder: (folder / "run.json").unlink(), "has no run.json"),
        (lambda folder: truncated(next(folder.glob("arrays-*"))), "is damaged: it holds"),
        (lambda folder: next(folder.glob("arrays-*")).unlink(), "cannot be read"),
        (lambda folder: rewritten(folder, version=2), "is of format 2, which a newer jaxdl"),
        (lambda folder: rewritten(folder, format="x"), "that is not of a run"),
        (lambda folder: rewritten(folder, arrays="../x"), "which is no file in it"),
        (
            lambda folder: dl.save(next(folder.glob("arrays-*")), {}),
            "that are not of this run",
        ),
    ],
)
def test_damage_is_named(
    tmp_path: Path, run: dl.Run, damage: Callable[[Path], object], text: str
) -> None:
    run.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(dl.CheckpointError, match=f"load_run: .*{text}"):
        dl.load_run(tmp_path)


def test_a_run_is_replaced_whole(tmp_path: Path, run: dl.Run) -> None:
    run.save(tmp_path)
    other = fitted(dl.Dense(3), epochs=1)
    other.save(tmp_path)
    assert_same(dl.load_run(tmp_path), other)
    assert len(list(tmp_path.iterdir())) == 2


def test_links_and_the_umask(tmp_path: Path, run: dl.Run) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to("real")
    before = os.umask(0o027)
    try:
        run.save(tmp_path / "run")
    finally:
        os.umask(before)
    assert (tmp_path / "run").is_symlink()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "real").iterdir()} == {0o640}


def test_a_folder_that_cannot_be_written(tmp_path: Path, run: dl.Run) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(dl.CheckpointError, match=r"run\.save: .* cannot be written"):
        run.save(tmp_path / "file")
