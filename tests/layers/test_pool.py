"""Pooling against Flax and PyTorch, ties and NaN, and what wrong arguments get."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, flax_figures, layer_figures, normal, torch_figures

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LINE, IMAGE, VOLUME = (2, 9, 3), (2, 7, 6, 3), (2, 5, 4, 4, 2)
POOLS = {
    "line": (LINE, {"window": 2}),
    "line, overlapping": (LINE, {"window": 4, "stride": 1, "padding": "SAME"}),
    "image": (IMAGE, {"window": 2}),
    "rectangle": (IMAGE, {"window": (1, 3)}),
    "overlapping": (IMAGE, {"window": 3, "stride": 2}),
    "same": (IMAGE, {"window": 3, "stride": (2, 1), "padding": "SAME"}),
    "stride past the window": (IMAGE, {"window": 1, "stride": 2}),
    "padded": (IMAGE, {"window": 3, "stride": 2, "padding": ((1, 1), (0, 2))}),
    "volume": (VOLUME, {"window": (2, 1, 3), "stride": 1}),
}
pools = pytest.mark.parametrize(("shape", "arguments"), POOLS.values(), ids=POOLS.keys())

MaxPool: Any = dl.MaxPool  # for arguments that a type checker refuses


def spread(
    arguments: dict[str, Any], dimensions: int
) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
    window, stride = (
        value if isinstance(value, tuple) else (value,) * dimensions
        for value in (arguments["window"], arguments.get("stride", arguments["window"]))
    )
    return window, stride, arguments.get("padding", "VALID")


def pads(shape: tuple[int, ...], window: Any, stride: Any, padding: Any) -> Any:
    if padding == "VALID":
        return ((0, 0),) * len(window)
    if padding != "SAME":
        return padding
    totals = [
        max((-(-n // s) - 1) * s + k - n, 0)
        for n, k, s in zip(shape[1:-1], window, stride, strict=True)
    ]
    return [(total // 2, total - total // 2) for total in totals]


def functional(name: str, dimensions: int) -> Any:
    return getattr(pytest.importorskip("torch").nn.functional, f"{name}{dimensions}d")


def padded(x: Any, sides: Any, value: float) -> Any:
    pad = pytest.importorskip("torch").nn.functional.pad
    return pad(x, [n for pair in reversed(sides) for n in pair], value=value)


@pytest.mark.sampled(2)
@pools
def test_pools_are_those_of_flax(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    x = normal(0, shape)
    window, strides, padding = spread(arguments, len(shape) - 2)
    for layer, function in (
        (dl.MaxPool(**arguments), lambda x: nn.max_pool(x, window, strides, padding)),
        (dl.AvgPool(**arguments), lambda x: nn.avg_pool(x, window, strides, padding)),
        (
            dl.AvgPool(**arguments, count_padding=False),
            lambda x: nn.avg_pool(x, window, strides, padding, count_include_pad=False),
        ),
    ):
        theirs = nn.Sequential([function])
        close(layer_figures(layer, {}, x), flax_figures(theirs, {}, x), 1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", [LINE, IMAGE, VOLUME])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [1, "each"])
def test_whole_numbers_pad_as_in_pytorch(
    shape: tuple[int, ...], stride: int, padding: Any
) -> None:
    x, dimensions = normal(0, shape), len(shape) - 2
    padding = (1, 0, 1)[:dimensions] if padding == "each" else padding
    window = (3, 2, 3)[:dimensions]
    theirs_of = pytest.importorskip("torch").from_numpy(np.moveaxis(np.array(x), -1, 1))
    pairs = {
        dl.MaxPool(window, stride, padding): functional("max_pool", dimensions)(
            theirs_of, window, stride, padding
        ),
        dl.AvgPool(window, stride, padding): functional("avg_pool", dimensions)(
            theirs_of, window, stride, padding
        ),
        dl.AvgPool(window, stride, padding, count_padding=False): functional(
            "avg_pool", dimensions
        )(theirs_of, window, stride, padding, count_include_pad=False),
    }
    for layer, theirs in pairs.items():
        y, _ = layer.apply({}, {}, x)
        np.testing.assert_allclose(
            np.moveaxis(np.asarray(y), -1, 1), theirs.numpy(), rtol=1e-6, atol=1e-6
        )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("window", [8, 32, 96])
@pytest.mark.parametrize("count", [True, False])
def test_means_of_narrow_numbers_are_rounded_once(dtype: str, window: int, count: bool) -> None:
    """A sum in bfloat16 no longer grows after 256 terms, and one in float16 overflows."""
    x = jnp.asarray(np.random.default_rng(0).uniform(0, 1500, (1, 96, 96, 2)), dtype)
    blocks = np.asarray(x, np.float64).reshape(1, 96 // window, window, 96 // window, window, 2)
    y, _ = dl.AvgPool(window, count_padding=count).apply({}, {}, x)
    np.testing.assert_allclose(
        np.asarray(y, np.float64), blocks.mean((2, 4)), rtol=float(jnp.finfo(dtype).eps)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", [dl.AvgPool(64, 1), dl.MaxPool(64, 1)], ids=["average", "max"]
)
def test_gradients_of_narrow_numbers_are_summed_before_they_are_rounded(layer: Any) -> None:
    """The last element lies in 64 windows; with x rising, each of them has its maximum at its end."""
    x = jnp.arange(127, dtype=jnp.bfloat16).reshape(1, 127, 1)
    slope = np.random.default_rng(0).uniform(0.5, 1, 64).astype(np.float32)

    def loss(x: Any) -> Any:
        return jnp.sum(layer.apply({}, {}, x)[0].astype(jnp.float32) * slope[None, :, None])

    got = np.asarray(jax.grad(loss)(x), np.float64)[0, :, 0]
    rounded = np.asarray(jnp.asarray(slope, jnp.bfloat16), np.float64)
    if isinstance(layer, dl.AvgPool):
        np.testing.assert_allclose(got, np.convolve(rounded, np.ones(64)) / 64, rtol=2**-7)
    else:
        assert got.sum() == pytest.approx(rounded.sum(), rel=2**-7)


@pytest.mark.sampled(2)
@pools
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_is_that_of_pytorch(
    shape: tuple[int, ...], arguments: dict[str, Any], ties: bool
) -> None:
    """Of equal elements, the first in row order gets the gradient."""
    x = normal(0, shape)
    x = jnp.round(x) if ties else x
    window, stride, padding = spread(arguments, len(shape) - 2)
    sides = pads(shape, window, stride, padding)
    pool = functional("max_pool", len(window))
    theirs = torch_figures(lambda _, x: pool(padded(x, sides, -np.inf), window, stride), {}, x)
    close(layer_figures(dl.MaxPool(**arguments), {}, x), theirs, 1e-6)


@pytest.mark.sampled(2)
@pools
@pytest.mark.parametrize("count_padding", [False, True])
def test_average_pool_is_that_of_pytorch(
    shape: tuple[int, ...], arguments: dict[str, Any], count_padding: bool
) -> None:
    x = normal(0, shape)
    window, stride, padding = spread(arguments, len(shape) - 2)
    sides = pads(shape, window, stride, padding)
    pool = functional("avg_pool", len(window))

    def forward(_: Any, x: Any) -> Any:
        mean = pool(padded(x, sides, 0), window, stride)
        share = (
            1 if count_padding else pool(padded(x.detach() * 0 + 1, sides, 0), window, stride)
        )
        return mean / share

    layer = dl.AvgPool(**arguments, count_padding=count_padding)
    close(layer_figures(layer, {}, x), torch_figures(forward, {}, x), 1e-6)


DILATED = {
    "line": (LINE, {"window": 3, "stride": 1, "padding": 1, "dilation": 2}),
    "window side by side": (IMAGE, {"window": 2, "stride": 2, "dilation": 2}),
    "padded": (IMAGE, {"window": (3, 2), "stride": (1, 2), "padding": 1, "dilation": (2, 3)}),
    "volume": (VOLUME, {"window": 2, "stride": 1, "dilation": (2, 1, 3)}),
}
dilated = pytest.mark.parametrize(("shape", "arguments"), DILATED.values(), ids=DILATED.keys())


@pytest.mark.sampled(2)
@dilated
@pytest.mark.parametrize("ties", [False, True])
def test_a_dilated_maximum_is_that_of_pytorch(
    shape: tuple[int, ...], arguments: dict[str, Any], ties: bool
) -> None:
    x = normal(0, shape)
    x = jnp.round(x) if ties else x
    options = {"kernel_size" if name == "window" else name: v for name, v in arguments.items()}
    pool = functional("max_pool", len(shape) - 2)
    theirs = torch_figures(lambda _, x: pool(x, **options), {}, x)
    close(layer_figures(dl.MaxPool(**arguments), {}, x), theirs, 1e-6)


@pytest.mark.sampled(2)
@dilated
@pytest.mark.parametrize("count_padding", [False, True])
def test_a_dilated_mean_is_a_convolution_of_pytorch(
    shape: tuple[int, ...], arguments: dict[str, Any], count_padding: bool
) -> None:
    torch = pytest.importorskip("torch")
    dimensions = len(shape) - 2
    window, stride, _ = spread(arguments, dimensions)
    options = {
        "stride": stride,
        "padding": arguments.get("padding", 0),
        "dilation": arguments["dilation"],
        "groups": shape[-1],
    }
    kernel = torch.ones((shape[-1], 1, *window))
    conv = functional("conv", dimensions)

    def forward(_: Any, x: Any) -> Any:
        total = conv(x, kernel, **options)
        count = conv(torch.ones_like(x), kernel, **options)
        return total / (np.prod(window) if count_padding else count)

    layer = dl.AvgPool(**arguments, count_padding=count_padding)
    x = normal(0, shape)
    close(layer_figures(layer, {}, x), torch_figures(forward, {}, x), 1e-6)


ADAPTIVE = {
    "line": (LINE, 4),
    "line, larger": (LINE, 12),
    "image": (IMAGE, (3, 4)),
    "image, dividing": (IMAGE, (7, 3)),
    "image, one of them dividing": (IMAGE, (1, 4)),
    "volume": (VOLUME, 3),
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("shape", "size"), ADAPTIVE.values(), ids=ADAPTIVE.keys())
@pytest.mark.parametrize("ties", [False, True])
def test_adaptive_pools_are_those_of_pytorch(
    shape: tuple[int, ...], size: Any, ties: bool
) -> None:
    x = normal(0, shape)
    x = jnp.round(x) if ties else x
    pools = {
        dl.AdaptiveMaxPool(size): functional("adaptive_max_pool", len(shape) - 2),
        dl.AdaptiveAvgPool(size): functional("adaptive_avg_pool", len(shape) - 2),
    }
    for layer, pool in pools.items():
        theirs = torch_figures(lambda _, x, pool=pool: pool(x, size), {}, x)
        close(layer_figures(layer, {}, x), theirs, 1e-6)


@pytest.mark.sampled
@pytest.mark.parametrize("shape", [LINE, IMAGE, VOLUME])
def test_global_pools_are_those_of_pytorch(shape: tuple[int, ...]) -> None:
    x = normal(0, shape)
    space = tuple(range(2, len(shape)))
    close(
        layer_figures(dl.GlobalMaxPool(), {}, x),
        torch_figures(lambda _, x: x.amax(space), {}, x),
        1e-6,
    )
    close(
        layer_figures(dl.GlobalAvgPool(), {}, x),
        torch_figures(lambda _, x: x.mean(space), {}, x),
        1e-6,
    )


def test_nan_is_not_pooled_away() -> None:
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(jnp.nan)
    y, _ = dl.MaxPool(2).apply({}, {}, x)
    np.testing.assert_array_equal(jnp.isnan(y[0, ..., 0]), [[False, True], [False, False]])
    assert jnp.isnan(dl.GlobalMaxPool().apply({}, {}, x)[0]).all()


def test_padding_never_wins() -> None:
    y, _ = dl.MaxPool(3, 1, "SAME").apply({}, {}, jnp.full((1, 3, 3, 1), -5.0))
    assert (y == -5).all()


def test_bytes_stay_bytes_in_a_maximum_and_become_intensities_in_a_mean() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    scaled = images.astype(np.float32) / np.float32(255)
    for layer in (dl.MaxPool(2), dl.GlobalMaxPool(), dl.AdaptiveMaxPool(3)):
        y, _ = layer.apply({}, {}, images)
        assert y.dtype == jnp.uint8
        close(y.astype(jnp.float32) / 255, layer.apply({}, {}, scaled)[0], 1e-6)
    for layer in (dl.AvgPool(2), dl.GlobalAvgPool(), dl.AdaptiveAvgPool(3)):
        close(layer.apply({}, {}, images)[0], layer.apply({}, {}, scaled)[0], 1e-6)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: dl.MaxPool(0), "MaxPool: window is a whole number of at least 1, got 0."),
        (
            lambda: MaxPool([2, 2]),
            "MaxPool: window is a whole number or a tuple of such, got the list [2, 2].",
        ),
        (
            lambda: dl.AvgPool(2, (1, 0)),
            "AvgPool: stride is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.AvgPool(2, padding="FULL"),
            "AvgPool: padding is 'SAME', 'VALID', a whole number of at least 0 (on both sides of all dimensions, or a tuple "
            "with one for each) or a tuple of (low, high) pairs, got 'FULL'.",
        ),
        (
            lambda: dl.MaxPool(2, dilation=0),
            "MaxPool: dilation is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.AdaptiveMaxPool(0),
            "AdaptiveMaxPool: size is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.MaxPool(2, padding=((0, -1),)),
            "MaxPool: padding adds at least 0 on each side, got ((0, -1),) — crop the input itself.",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_arguments(build: Any, text: str) -> None:
    with pytest.raises(LayerError) as caught:
        build()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (
            dl.MaxPool(2),
            (2, 8),
            "MaxPool: expected [batch, *space, channels] with at least one spatial dimension, got shape (2, 8) — images without a "
            "channel axis need x[..., None], a single image x[None].",
        ),
        (
            dl.AvgPool((2, 2)),
            (2, 8, 1),
            "AvgPool: window (2, 2) has 2 entries, but an input of shape (2, 8, 1) has 1 spatial dimension — an int stands for "
            "all of them.",
        ),
        (
            dl.MaxPool(2, padding=((0, 0), (0, 0))),
            (2, 8, 1),
            "MaxPool: padding ((0, 0), (0, 0)) has 2 entries, but an input of shape (2, 8, 1) has 1 spatial dimension — an int "
            "stands for all of them.",
        ),
        (
            dl.MaxPool(2),
            (2, 8, 1, 3),
            "MaxPool: the window reaches over 2 elements of spatial dimension 1, but an input of shape (2, 8, 1, 3) has only 1 "
            "there, padding included — use padding='SAME', a smaller window or fewer poolings.",
        ),
        (
            dl.MaxPool(2, padding=((1, 1),), dilation=3),
            (2, 2, 1),
            "MaxPool: with padding, a dilation of 3 leaves windows over 2 elements with nothing inside — dilate by less.",
        ),
        (
            dl.AvgPool(3, dilation=4),
            (2, 8, 1),
            "AvgPool: the window reaches over 9 elements of spatial dimension 0, but an input of shape (2, 8, 1) has only 8 "
            "there, padding included — use padding='SAME', a smaller window or fewer poolings.",
        ),
        (
            dl.AdaptiveAvgPool((2, 2)),
            (2, 8, 1),
            "AdaptiveAvgPool: size (2, 2) has 2 entries, but an input of shape (2, 8, 1) has 1 spatial dimension — an int stands "
            "for all of them.",
        ),
        (
            dl.GlobalMaxPool(),
            (2, 8),
            "GlobalMaxPool: expected [batch, *space, channels] with at least one spatial dimension, got shape (2, 8) — images "
            "without a channel axis need x[..., None], a single image x[None].",
        ),
        (
            dl.GlobalAvgPool(),
            (2, 8),
            "GlobalAvgPool: expected [batch, *space, channels] with at least one spatial dimension, got shape (2, 8) — images "
            "without a channel axis need x[..., None], a single image x[None].",
        ),
    ],
)
def test_wrong_inputs(layer: Any, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(LayerError) as caught:
        layer.apply({}, {}, jnp.zeros(shape))
    assert str(caught.value) == text


@pytest.mark.parametrize("layer", [dl.AvgPool(2), dl.GlobalAvgPool()])
def test_whole_numbers_have_no_mean(layer: Any) -> None:
    with pytest.raises(
        LayerError,
        match=r"AvgPool: expected floating-point numbers, or images in uint8 .* got int32",
    ):
        layer.apply({}, {}, jnp.zeros((1, 4, 4, 1), jnp.int32))


def test_in_a_model_the_part_is_named() -> None:
    model = dl.Sequential(dl.MaxPool(4), dl.MaxPool(2))
    with pytest.raises(
        LayerError, match=r"^MaxPool at 'max_pool_1': the window reaches over 2 elements"
    ):
        model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
