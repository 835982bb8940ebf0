"""Normalisation against Flax and PyTorch: training, evaluation, running statistics and masks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from tests.layers.oracles import (
    close,
    figures,
    flax_figures,
    layer_figures,
    normal,
    perturbed,
    torch_figures,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")
VECTORS, LINE, IMAGE = (6, 4), (3, 5, 4), (3, 5, 4, 6)
TRAIN = dl.Train(jax.random.key(0))


def drawn(layer: Any, shape: tuple[int, ...]) -> tuple[Any, Any, jax.Array]:
    x = normal(0, shape) * 2 + 1
    params, state = layer.init(jax.random.key(0), x)
    return perturbed(params, 1), perturbed(state, 2), x


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", [VECTORS, LINE, IMAGE])
@pytest.mark.parametrize("mode", [dl.Eval(), TRAIN], ids=["eval", "train"])
def test_batch_norm_is_that_of_flax(shape: tuple[int, ...], mode: dl.Mode) -> None:
    layer = dl.BatchNorm(momentum=0.9)
    params, state, x = drawn(layer, shape)
    module = nn.BatchNorm(use_running_average=isinstance(mode, dl.Eval), momentum=0.9)

    def theirs(params: Any, x: Any) -> Any:
        return module.apply({"params": params, "batch_stats": state}, x, mutable="batch_stats")

    close(
        figures(lambda params, x: layer.apply(params, state, x, mode)[0], params, x),
        figures(lambda params, x: theirs(params, x)[0], params, x),
    )
    close(layer.apply(params, state, x, mode)[1], theirs(params, x)[1]["batch_stats"], 1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", [VECTORS, IMAGE])
@pytest.mark.parametrize("mode", [dl.Eval(), TRAIN], ids=["eval", "train"])
def test_batch_norm_is_that_of_pytorch(shape: tuple[int, ...], mode: dl.Mode) -> None:
    torch = pytest.importorskip("torch")
    layer = dl.BatchNorm(momentum=0.75, epsilon=1e-3)
    params, state, x = drawn(layer, shape)
    mean, var = (torch.tensor(np.asarray(state[name])) for name in ("mean", "var"))

    def theirs(params: Any, x: Any) -> Any:
        args = (params["scale"], params["bias"], isinstance(mode, dl.Train), 0.25, 1e-3)
        return torch.nn.functional.batch_norm(x, mean, var, *args)

    ours = figures(lambda params, x: layer.apply(params, state, x, mode)[0], params, x)
    close(ours, torch_figures(theirs, params, x))
    if isinstance(mode, dl.Train):
        new = layer.apply(params, state, x, mode)[1]
        count = x.size // x.shape[-1]
        close(new["mean"], mean.numpy())
        unbiased = (new["var"] - 0.75 * state["var"]) * (count / (count - 1)) + 0.75 * state[
            "var"
        ]
        close(unbiased, var.numpy())


def test_batch_norm_moves_its_statistics_to_those_of_the_data() -> None:
    layer = dl.BatchNorm(momentum=0.5)
    x = normal(0, (64, 3)) * jnp.array([[1.0, 2.0, 3.0]]) + jnp.array([[0.0, 5.0, -5.0]])
    params, state = layer.init(jax.random.key(0), x)
    for _ in range(30):
        _, state = layer.apply(params, state, x, TRAIN)
    close(state, {"mean": x.mean(0), "var": x.var(0)}, 1e-5)
    close(layer.apply(params, state, x)[0], layer.apply(params, state, x, TRAIN)[0])


def test_a_batch_without_examples_leaves_the_running_statistics() -> None:
    """Such as a part of a padded batch, where gradients are accumulated over parts."""
    layer = dl.BatchNorm()
    params, state, x = drawn(layer, VECTORS)
    y, new = layer.apply(params, state, x, dl.Train(jax.random.key(0), jnp.zeros(len(x), bool)))
    close(new, state, 0)
    assert jnp.isfinite(y).all()


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [VECTORS, IMAGE])
def test_a_masked_batch_is_that_of_flax(shape: tuple[int, ...]) -> None:
    layer = dl.BatchNorm(momentum=0.9)
    params, state, x = drawn(layer, shape)
    mask = jnp.arange(shape[0]) != 1
    module = nn.BatchNorm(use_running_average=False, momentum=0.9)
    spread = jnp.broadcast_to(mask.reshape(-1, *(1,) * (len(shape) - 1)), shape)

    def theirs(params: Any, x: Any) -> Any:
        return module.apply(
            {"params": params, "batch_stats": state}, x, mask=spread, mutable="batch_stats"
        )

    y, new = layer.apply(params, state, x, dl.Train(jax.random.key(0), mask))
    close((y[mask], new), (theirs(params, x)[0][mask], theirs(params, x)[1]["batch_stats"]))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("layer", "module", "shape"),
    [
        (dl.LayerNorm(), nn.LayerNorm(), LINE),
        (dl.LayerNorm(use_scale=False), nn.LayerNorm(use_scale=False), IMAGE),
        (dl.RMSNorm(), nn.RMSNorm(), LINE),
        (dl.RMSNorm(use_scale=False), nn.RMSNorm(use_scale=False), VECTORS),
        (dl.GroupNorm(2), nn.GroupNorm(2), IMAGE),
        (dl.GroupNorm(3, use_bias=False), nn.GroupNorm(3, use_bias=False), IMAGE),
        (dl.GroupNorm(2), nn.GroupNorm(2), VECTORS),
        (dl.InstanceNorm(), nn.InstanceNorm(), IMAGE),
        (dl.InstanceNorm(use_bias=False), nn.InstanceNorm(use_bias=False), LINE),
    ],
)
def test_norms_are_those_of_flax(layer: Any, module: Any, shape: tuple[int, ...]) -> None:
    params, _, x = drawn(layer, shape)
    close(layer_figures(layer, params, x), flax_figures(module, params, x))


@pytest.mark.parametrize(
    "name", ["BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm"]
)
def test_defaults_are_those_of_flax(name: str) -> None:
    ours, theirs = getattr(dl, name)(), getattr(nn, name)()
    for field in {"epsilon", "use_scale", "use_bias", "param_dtype"} & set(vars(ours)):
        assert getattr(ours, field) == getattr(theirs, field)
    assert getattr(ours, "groups", None) == getattr(theirs, "num_groups", None)


def test_momentum_and_epsilon_of_batch_norm_are_those_of_pytorch() -> None:
    theirs = pytest.importorskip("torch").nn.BatchNorm1d(3)
    assert dl.BatchNorm().momentum == pytest.approx(1 - theirs.momentum)
    assert dl.BatchNorm().epsilon == theirs.eps


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [VECTORS, LINE, IMAGE])
def test_norms_are_those_of_pytorch(shape: tuple[int, ...]) -> None:
    functional = pytest.importorskip("torch").nn.functional
    last = shape[-1:]
    params, _, x = drawn(dl.LayerNorm(), shape)
    close(
        layer_figures(dl.LayerNorm(), params, x),
        torch_figures(
            lambda p, x: functional.layer_norm(x, last, p["scale"], p["bias"], 1e-6),
            params,
            x,
            False,
        ),
    )
    close(
        layer_figures(dl.GroupNorm(2), params, x),
        torch_figures(
            lambda p, x: functional.group_norm(x, 2, p["scale"], p["bias"], 1e-6), params, x
        ),
    )
    scale = {"scale": params["scale"]}
    close(
        layer_figures(dl.RMSNorm(), scale, x),
        torch_figures(
            lambda p, x: functional.rms_norm(x, last, p["scale"], 1e-6), scale, x, False
        ),
    )
    if len(shape) > 2:
        close(
            layer_figures(dl.InstanceNorm(), params, x),
            torch_figures(
                lambda p, x: functional.instance_norm(
                    x, None, None, p["scale"], p["bias"], eps=1e-6
                ),
                params,
                x,
            ),
        )


@pytest.mark.sampled
@pytest.mark.parametrize(
    "layer", [dl.BatchNorm(), dl.LayerNorm(), dl.GroupNorm(2), dl.InstanceNorm()]
)
def test_a_large_mean_costs_no_precision(layer: Any) -> None:
    """The variance is taken of deviations, not as a difference of squares."""
    x = np.random.default_rng(0).normal(size=IMAGE) + 1e4
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x.astype(np.float32), TRAIN)
    with jax.enable_x64(True):
        exact, _ = layer.apply(
            params, state, jnp.asarray(x.astype(np.float32), jnp.float64), TRAIN
        )
    close(y, exact, 1e-2)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "layer", [dl.BatchNorm(), dl.LayerNorm(), dl.RMSNorm(), dl.GroupNorm(2), dl.InstanceNorm()]
)
def test_bfloat16_is_normalised_in_float32(layer: Any) -> None:
    params, state, x = drawn(layer, (3, 40, 40, 6))
    x = (x + 30).astype(jnp.bfloat16)  # a sum of 4800 of these is past bfloat16's whole numbers
    y, new = layer.apply(params, state, x, TRAIN)
    expected, moved = layer.apply(params, state, x.astype(jnp.float32), TRAIN)
    close(y, expected.astype(jnp.bfloat16), 0)
    close(new, moved, 0)


@pytest.mark.parametrize("mode", [dl.Eval(), TRAIN], ids=["eval", "train"])
def test_float64_is_computed_in_float64(mode: dl.Mode) -> None:
    """Even where parameters and statistics are float32."""
    layer = dl.BatchNorm()
    params, state, _ = drawn(layer, VECTORS)
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=VECTORS))
        y, _ = layer.apply(params, state, x, mode)
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, state))
        exact, _ = layer.apply(params, state, x, mode)
        close(y, exact, 1e-14)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "layer", [dl.BatchNorm(), dl.LayerNorm(), dl.RMSNorm(), dl.GroupNorm(3), dl.InstanceNorm()]
)
def test_bytes_are_read_as_intensities(layer: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    params, state = layer.init(jax.random.key(0), images)
    expected = layer.apply(params, state, images.astype(np.float32) / np.float32(255), TRAIN)
    close(layer.apply(params, state, images, TRAIN), expected)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: dl.BatchNorm(1.0),
            "BatchNorm: momentum is the share of the old statistics, in [0, 1), got 1.0.",
        ),
        (
            lambda: dl.BatchNorm(-0.1),
            "BatchNorm: momentum is the share of the old statistics, in [0, 1), got -0.1.",
        ),
        (lambda: dl.GroupNorm(0), "GroupNorm: groups is a whole number of at least 1, got 0."),
        (
            lambda: dl.GroupNorm(4).init(jax.random.key(0), jnp.zeros((1, 4, 6))),
            "GroupNorm: 6 channels cannot be split into 4 groups of one size.",
        ),
        (
            lambda: dl.LayerNorm().init(jax.random.key(0), jnp.zeros(6)),
            "LayerNorm: expected [batch, ..., features], got shape (6,) — a single example needs x[None].",
        ),
        (
            lambda: dl.InstanceNorm().init(jax.random.key(0), jnp.zeros((2, 6))),
            "InstanceNorm: expected [batch, *space, channels] with at least one spatial dimension, got shape (2, 6) — images "
            "without a channel axis need x[..., None], a single image x[None].",
        ),
        (
            lambda: dl.BatchNorm().apply(
                *dl.BatchNorm().init(jax.random.key(0), jnp.zeros((2, 6))), jnp.zeros((2, 5))
            ),
            "BatchNorm: expected 6 channels, as at init, got 5 (input of shape (2, 5)) — was the input's size changed after init?",
        ),
        (
            lambda: dl.RMSNorm().apply(
                *dl.RMSNorm().init(jax.random.key(0), jnp.zeros((2, 6))), jnp.zeros((2, 5))
            ),
            "RMSNorm: expected 6 features, as at init, got 5 (input of shape (2, 5)) — was the input's size changed after init?",
        ),
        (
            lambda: dl.BatchNorm().apply(
                *dl.BatchNorm().init(jax.random.key(0), jnp.zeros((2, 6))),
                jnp.zeros((4, 6)),
                dl.Train(jax.random.key(0), jnp.ones(2, bool)),
            ),
            "BatchNorm: the mode's mask has shape (2,) and the input (4, 6): one entry an example is needed — a part before this "
            "one that folds another axis into the batch belongs in Map, which repeats the mask.",
        ),
        (
            lambda: dl.LayerNorm().init(jax.random.key(0), jnp.zeros((2, 6), jnp.int32)),
            "LayerNorm: expected floating-point numbers, or images in uint8 (read as x / 255), got int32 — convert them with "
            "x.astype('float32'), or put Embedding in front if they are indices.",
        ),
    ],
)
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(LayerError) as caught:
        build()
    assert str(caught.value) == text


@pytest.mark.sampled(3)
@pytest.mark.parametrize("value", [100.0, 12345.678, 1e6 / 3, 1.7e9, 1e10])
@pytest.mark.parametrize("shape", [(9, 2), (33, 3, 3, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_constant_channel_gives_zero(
    value: float, shape: tuple[int, ...], masked: bool
) -> None:
    """However large it is: its mean is off by a rounding, which a tiny deviation would divide. What is masked is no part of it."""
    mask = jnp.arange(shape[0]) > 1 if masked else None
    x = jnp.full(shape, value, jnp.float32)
    x = x.at[:2].set(-3.0) if masked else x
    layer = dl.BatchNorm(momentum=0.0)
    y, state = layer.apply(
        *layer.init(jax.random.key(0), x), x, dl.Train(jax.random.key(1), mask)
    )
    np.testing.assert_array_equal(y[2:], 0)
    np.testing.assert_array_equal(state["mean"], np.float32(value))
    np.testing.assert_array_equal(state["var"], 0)


@pytest.mark.sampled
@pytest.mark.parametrize(
    "layer", [dl.BatchNorm(), dl.LayerNorm(), dl.GroupNorm(1), dl.InstanceNorm()]
)
def test_deviations_that_are_small_beside_the_mean(layer: Any) -> None:
    """Against the definition in float64: numbers of 10,000 that differ by their last bits."""
    steps = np.random.default_rng(0).integers(0, 8, (4, 6, 5, 8))
    x = (10_000 + steps * 2.0**-10).astype(np.float32)
    axes = {
        "BatchNorm": (0, 1, 2),
        "LayerNorm": (3,),
        "GroupNorm": (1, 2, 3),
        "InstanceNorm": (1, 2),
    }[type(layer).__name__]
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(axes, keepdims=True) + layer.epsilon)
    params, state = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, state, x, dl.Train(jax.random.key(1)))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (0, 4, 4, 3)])
def test_an_empty_batch_leaves_the_running_moments(shape: tuple[int, ...]) -> None:
    layer = dl.BatchNorm()
    x = jnp.zeros(shape)
    params, state = layer.init(jax.random.key(0), x)
    y, new = layer.apply(params, state, x, dl.Train(jax.random.key(1)))
    assert y.shape == shape
    jax.tree.map(np.testing.assert_array_equal, new, state)
