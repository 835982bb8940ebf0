"""Parameters that a layer did not draw: of other names, in other orientations, or of length 1, which would broadcast."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.tree import map_named, named_leaves

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
SEQUENCES, IMAGES, INDICES = (2, 5, 6), (2, 6, 6, 4), (2, 5)
LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "dense": (dl.Dense(3), SEQUENCES),
    "embedding": (dl.Embedding(7, 3), INDICES),
    "conv": (dl.Conv(3, (3, 2)), IMAGES),
    "conv grouped": (dl.Conv(4, 3, groups=2), IMAGES),
    "conv transpose": (dl.ConvTranspose(3, 2), IMAGES),
    "batch norm": (dl.BatchNorm(), IMAGES),
    "layer norm": (dl.LayerNorm(), SEQUENCES),
    "rms norm": (dl.RMSNorm(), SEQUENCES),
    "group norm": (dl.GroupNorm(2), IMAGES),
    "instance norm": (dl.InstanceNorm(), IMAGES),
    "simple rnn": (dl.SimpleRNN(3), SEQUENCES),
    "lstm": (dl.LSTM(3), SEQUENCES),
    "gru": (dl.GRU(3), SEQUENCES),
    "attention": (dl.MultiHeadAttention(2), SEQUENCES),
    "learned positions": (dl.LearnedPositions(7), SEQUENCES),
    "prelu": (dl.PReLU(), IMAGES),
}
every_layer = pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS.keys())


def drawn(layer: Any, shape: tuple[int, ...]) -> tuple[Any, Any, Any]:
    x = jnp.zeros(shape, jnp.int32 if isinstance(layer, dl.Embedding) else jnp.float32)
    params, state = jax.eval_shape(lambda: layer.init(KEY, x))
    return *jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, state)), x


def refused(layer: Any, params: Any, state: Any, x: Any) -> str:
    """The error, which comes before anything runs."""
    for mode in (dl.Eval(), dl.Train(KEY)):
        with pytest.raises(dl.LayerError) as caught:
            jax.eval_shape(lambda mode=mode: layer.apply(params, state, x, mode))
    return str(caught.value)


@pytest.mark.sampled(4)
@every_layer
def test_parameters_of_length_1_do_not_broadcast(layer: Any, shape: tuple[int, ...]) -> None:
    params, state, x = drawn(layer, shape)
    trees = {"params": params, "state": state}
    for path in named_leaves(trees):
        wrong = map_named(
            lambda name, leaf, path=path: leaf.reshape(-1)[:1] if name == path else leaf, trees
        )
        assert "got" in refused(layer, wrong["params"], wrong["state"], x), path


@pytest.mark.sampled(4)
@every_layer
def test_a_parameter_of_another_name_is_missed(layer: Any, shape: tuple[int, ...]) -> None:
    params, state, x = drawn(layer, shape)
    for name in params:
        others = {other if other != name else "weight": leaf for other, leaf in params.items()}
        if name != "recurrent_bias":
            assert f"among them '{name}', got " in refused(layer, others, state, x)


TRANSPOSED = [
    (
        dl.Dense(3),
        SEQUENCES,
        "kernel",
        (1, 0),
        "expected 'kernel' of shape […, 3], got [3, 6] — it seems to be transposed",
    ),
    (
        dl.LSTM(3),
        SEQUENCES,
        "kernel",
        (1, 0),
        "expected 'kernel' of shape […, 12], got [12, 6] — it seems to be transposed",
    ),
    (
        dl.GRU(3),
        SEQUENCES,
        "recurrent_kernel",
        (1, 0),
        "'recurrent_kernel' of shape [3, 9], got [9, 3] — it seems to be",
    ),
    (
        dl.Embedding(7, 3),
        INDICES,
        "embedding",
        (1, 0),
        "'embedding' of shape [7, 3], got [3, 7] — it seems to be transposed",
    ),
    (
        dl.Conv(3, (3, 2)),
        IMAGES,
        "kernel",
        (3, 2, 0, 1),
        "got [3, 4, 3, 2] — it seems to be PyTorch's, with the window last",
    ),
]


@pytest.mark.parametrize(
    ("layer", "shape", "name", "axes", "text"),
    TRANSPOSED,
    ids=lambda value: getattr(value, "name", None),
)
def test_kernels_of_another_orientation_are_named(
    layer: Any, shape: Any, name: str, axes: Any, text: str
) -> None:
    params, state, x = drawn(layer, shape)
    wrong = {**params, name: np.transpose(params[name], axes)}
    assert text in refused(layer, wrong, state, x)


def test_the_fix_for_a_kernel_of_pytorch_is_right() -> None:
    kernel = np.arange(3 * 4 * 3 * 2.0).reshape(3, 2, 4, 3)  # [*window, channels, features]
    torch_kernel = kernel.transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(jnp.moveaxis(torch_kernel, (1, 0), (-2, -1)), kernel)


def test_a_parameter_that_the_layer_has_not_is_left_alone() -> None:
    layer = dl.Dense(3, use_bias=False)
    y, _ = layer.apply({"kernel": jnp.ones((6, 3)), "bias": jnp.ones(3)}, {}, jnp.ones((2, 6)))
    np.testing.assert_array_equal(y, 6)


@pytest.mark.usefixtures("unchecked")
def test_parameters_that_are_no_dict_are_refused() -> None:
    assert "expected parameters by name, among them 'kernel', got a list" in refused(
        dl.Dense(3), [], {}, jnp.ones((2, 6))
    )


def test_an_input_of_another_size_is_still_told_as_such() -> None:
    params, state, _ = drawn(dl.Dense(3), SEQUENCES)
    assert "expected 6 features, as at init, got 9" in refused(
        dl.Dense(3), params, state, jnp.ones((2, 9))
    )
    params, state, _ = drawn(dl.BatchNorm(), IMAGES)
    assert "expected 4 channels, as at init, got 1" in refused(
        dl.BatchNorm(), params, state, jnp.ones((2, 6, 6, 1))
    )
