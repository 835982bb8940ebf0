"""How inputs enter a model: integers that fit, images in [0, 1], zeros behind the ends of sequences."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.function import as_layer

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
BYTES = np.random.default_rng(0).integers(0, 256, (3, 4, 6)).astype(np.uint8)
IMAGES = BYTES / 255
SCALED = IMAGES.astype(np.float32)
WIDE = np.array([[2**32 + 3, 1]])


def twice(x: Any) -> Any:
    return x * 2


@dataclasses.dataclass(frozen=True)
class Scale(dl.Stateless):
    """A layer of a user's own, without state."""

    dtype: Any = None

    def weights(self, key: Any, x: Any) -> Any:
        return {"scale": jnp.full(x.shape[-1:], 3, x.dtype)}

    def forward(self, params: Any, x: Any) -> Any:
        return x * params["scale"].reshape(1, 1, -1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Shift(dl.Layer):
    """A layer of a user's own."""

    def init(self, key: Any, x: Any) -> Any:
        return {"shift": jnp.zeros(x.shape[-1:], x.dtype)}, {}

    def apply(self, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
        return x + 1 + params["shift"].reshape(1, 1, -1), state


@dataclasses.dataclass(frozen=True)
class Sum(dl.Composite):
    """A composite of a user's own."""

    def wire(self, wiring: Any, x: Any) -> Any:
        return wiring.math(lambda a, b: a + 2 * b, x, wiring.part("dense", dl.Dense(6), x))


@dataclasses.dataclass(frozen=True)
class Raw(dl.Parameterless):
    """A layer that asks for bytes."""

    takes_bytes: ClassVar[bool] = True

    def compute(self, x: Any) -> Any:
        return x


BY_HAND = {
    "function": (as_layer(twice), 2 * IMAGES),
    "function in front": (dl.Sequential(twice, twice), 4 * IMAGES),
    "behind a flatten": (dl.Sequential(dl.Flatten(), twice), (2 * IMAGES).reshape(3, -1)),
    "mapped": (dl.Map(twice), 2 * IMAGES),
    "residual": (dl.Residual(twice), 3 * IMAGES),
    "parallel": (dl.Parallel(twice, twice, combine="add"), 4 * IMAGES),
    "frozen": (dl.Frozen(twice), 2 * IMAGES),
    "own layer without state": (Scale(), 3 * IMAGES),
    "own layer": (Shift(), 1 + IMAGES),
    "own layer inside": (dl.Sequential(dl.Dropout(0.5), Shift()), 1 + IMAGES),
}


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("model", "expected"), BY_HAND.values(), ids=BY_HAND.keys())
def test_images_are_read_in_0_to_1_whatever_reads_them(model: Any, expected: Any) -> None:
    params, state = model.init(KEY, BYTES)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype("float32")}
    for x in (BYTES, jnp.asarray(BYTES)):
        for y in (
            model.apply(params, state, x)[0],
            jax.jit(dl.forward(model, state))(params, x),
        ):
            assert y.dtype == jnp.float32
            np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_composite_reads_images_once() -> None:
    for model in (
        Sum(),
        dl.Sequential(twice, dl.Dense(5)),
        dl.Sequential(dl.Flatten(), twice, dl.BatchNorm()),
    ):
        params, state = model.init(KEY, BYTES)
        jax.tree.map(np.testing.assert_array_equal, (params, state), model.init(KEY, SCALED))
        np.testing.assert_allclose(
            model.apply(params, state, BYTES)[0],
            model.apply(params, state, SCALED)[0],
            atol=1e-6,
        )


def test_images_stay_bytes_until_they_are_read() -> None:
    model = dl.Sequential(twice, dl.Dense(5))
    params, state = model.init(KEY, BYTES)
    assert jax.make_jaxpr(model.apply)(params, state, BYTES).in_avals[-1].dtype == jnp.uint8
    assert Raw().apply({}, {}, BYTES)[0].dtype == jnp.uint8
    assert (
        Scale("bfloat16").apply(*Scale("bfloat16").init(KEY, BYTES), BYTES)[0].dtype
        == jnp.bfloat16
    )


def test_own_layers_read_images_in_the_precision_of_the_model() -> None:
    model = dl.in_precision(dl.Sequential(Scale(), Shift()), "bfloat16")
    params, state = model.init(KEY, BYTES)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    y, _ = model.apply(params, state, BYTES)
    np.testing.assert_allclose(y, 1 + 3 * SCALED, rtol=2**-6)


def test_indices_in_bytes_stay_indices() -> None:
    tokens = np.random.default_rng(0).integers(0, 200, (3, 5)).astype(np.uint8)
    for model in (
        dl.Embedding(200, 4),
        dl.Sequential(dl.Embedding(200, 4), dl.Dense(2)),
        dl.Sequential(dl.Flatten(), dl.Embedding(200, 4)),
        dl.Frozen(dl.Embedding(200, 4)),
    ):
        params, state = model.init(KEY, tokens)
        y, expected = (
            model.apply(params, state, tokens.astype(dtype))[0] for dtype in ("uint8", "int32")
        )
        np.testing.assert_array_equal(y, expected)


@pytest.mark.slow
def test_images_are_trained_on_as_floats_are() -> None:
    targets = np.arange(3)
    model = dl.Sequential(twice, dl.Flatten(), dl.Dense(3))
    options: dict[str, Any] = {
        "loss": dl.losses.softmax_cross_entropy,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "epochs": 2,
        "batch_size": 3,
        "progress": False,
    }
    a, b = (dl.fit(model, (x, targets), **options) for x in (BYTES, SCALED))
    np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (WIDE, "input: 4294967299 does not fit int32"),
        (-WIDE, "input: -4294967299 does not fit int32"),
        (WIDE.astype(np.uint64), "input: 4294967299 does not fit uint32"),
    ],
)
@pytest.mark.parametrize(
    "model",
    [dl.Embedding(10, 4), dl.Sequential(dl.Embedding(10, 4)), as_layer(twice)],
    ids=repr,
)
def test_integers_that_would_wrap_are_refused(model: Any, x: Any, text: str) -> None:
    params, state = model.init(KEY, np.zeros((1, 2), np.int32))
    with pytest.raises(dl.LayerError, match=text):
        model.apply(params, state, x)
    with pytest.raises(dl.LayerError, match=text):
        model.apply(params, state, dl.Padded(x, np.array([2])))


@pytest.mark.slow
def test_integers_that_fit_are_read_in_any_dtype() -> None:
    model = dl.Embedding(10, 4)
    params, state = model.init(KEY, np.zeros((1, 2), np.int32))
    rows = np.asarray(params["embedding"])[[3, 1]]
    for dtype in ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"):
        np.testing.assert_array_equal(
            model.apply(params, state, np.array([[3, 1]], dtype))[0][0], rows
        )
    for outside in (
        np.array([[2**31 - 1]]),
        np.array([[-(2**31)]]),
        np.array([[2**32 - 1]], np.uint32),
    ):
        assert jnp.isnan(model.apply(params, state, outside)[0]).all()
    with jax.enable_x64(True):
        assert jnp.isnan(model.apply(params, state, -WIDE)[0]).all()
        y, _ = model.apply(params, state, WIDE)
        assert jnp.isnan(y[0, 0]).all()
        np.testing.assert_array_equal(y[0, 1], rows[1])


LENGTHS = np.array([5, 2, 0], np.int32)
VALUES = np.random.default_rng(1).normal(size=(3, 5, 8)).astype(np.float32)
BEHIND = np.arange(5)[None] >= LENGTHS[:, None]
ON_SEQUENCES = {
    "dense": dl.Dense(3),
    "layer norm": dl.LayerNorm(),
    "rms norm": dl.RMSNorm(),
    "prelu": dl.Sequential(dl.Residual(dl.Dense(8)), jax.nn.gelu),
    "function": as_layer(jax.nn.softmax),
    "positions": dl.Sequential(dl.LearnedPositions(), dl.Dropout(0.5)),
    "attention": dl.MultiHeadAttention(2),
    "transformer": dl.TransformerBlock(2),
    "lstm": dl.LSTM(3, backward=True),
    "frozen": dl.Sequential(dl.Dense(8), dl.Frozen(dl.LayerNorm())),
    "deep": dl.Sequential(
        dl.Sequential(dl.TransformerBlock(2, norm="post")),
        dl.Bidirectional(dl.GRU(3)),
        dl.GlobalAvgPool(),
    ),
    "in precision": dl.in_precision(dl.Sequential(dl.Dense(3), dl.LayerNorm()), "bfloat16"),
}


def learnt(model: Any, params: Any, state: Any, values: Any, mode: Any) -> Any:
    """The output within the lengths, and gradients by parameters and by inputs."""

    def objective(params: Any, values: Any) -> Any:
        y, _ = model.apply(params, state, dl.Padded(values, jnp.asarray(LENGTHS)), mode)
        y = jnp.where(BEHIND[..., None], 0, y.values) if isinstance(y, dl.Padded) else y
        return jnp.sum(jnp.square(y)), y

    return jax.jit(jax.grad(objective, (0, 1), has_aux=True))(params, jnp.asarray(values))


@pytest.mark.sampled
@pytest.mark.parametrize("fill", [np.nan, np.inf, -3e38])
@pytest.mark.parametrize("mode", [dl.Eval(), dl.Train(KEY)], ids=["evaluation", "training"])
@pytest.mark.parametrize("model", ON_SEQUENCES.values(), ids=ON_SEQUENCES.keys())
def test_what_lies_behind_the_ends_leaves_no_trace(model: Any, mode: Any, fill: float) -> None:
    params, state = model.init(KEY, dl.Padded(VALUES, LENGTHS))
    dirty, clean = (
        np.where(BEHIND[..., None], filling, VALUES).astype(np.float32) for filling in (fill, 0)
    )
    given, expected = (learnt(model, params, state, values, mode) for values in (dirty, clean))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(given))
    jax.tree.map(np.testing.assert_array_equal, given, expected)
    assert not np.asarray(given[0][1])[BEHIND].any()


@pytest.mark.slow
def test_indices_behind_the_ends_are_read_by_nothing() -> None:
    tokens = np.where(BEHIND, -1, 3).astype(np.int32)
    model = dl.Sequential(dl.Embedding(7, 4), dl.Dense(2))
    params, state = model.init(KEY, dl.Padded(tokens, LENGTHS))
    gradient = jax.grad(
        lambda p: jnp.sum(model.apply(p, state, dl.Padded(tokens, LENGTHS))[0].values[0])
    )(params)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_what_lies_behind_is_zeroed_once() -> None:
    block = dl.Sequential(
        dl.Dense(8), dl.Residual(dl.Dense(8)), dl.LayerNorm(), dl.Dropout(0.0)
    )
    model = dl.Sequential(block, dl.Frozen(block), dl.in_precision(block, "float32"))
    x = dl.Padded(jnp.asarray(VALUES), jnp.asarray(LENGTHS))
    params, state = model.init(KEY, x)
    for mode in (dl.Eval(), dl.Train(KEY)):
        text = str(
            jax.make_jaxpr(lambda p, x, mode=mode: model.apply(p, state, x, mode)[0])(params, x)
        )
        assert text.count("select_n") == 1
    assert "select_n" not in str(
        jax.make_jaxpr(lambda p: model.apply(p, state, x.values)[0])(params)
    )
