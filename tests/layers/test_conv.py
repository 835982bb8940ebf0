"""Convolutions against Flax and PyTorch on the same weights, and what wrong arguments get."""

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
    flax_figures,
    layer_figures,
    normal,
    perturbed,
    torch_figures,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LINE, IMAGE, VOLUME = (2, 9, 4), (2, 7, 6, 4), (2, 4, 5, 3, 2)
CONVS = {
    "line": (LINE, dl.Conv(3, 3)),
    "line, stride": (LINE, dl.Conv(3, 4, stride=3)),
    "line, valid": (LINE, dl.Conv(3, 3, padding="VALID", dilation=2, use_bias=False)),
    "image": (IMAGE, dl.Conv(3, 3)),
    "valid": (IMAGE, dl.Conv(3, 3, padding="VALID")),
    "one by one": (IMAGE, dl.Conv(5, 1)),
    "even window": (IMAGE, dl.Conv(3, 2, use_bias=False)),
    "rectangle": (IMAGE, dl.Conv(3, (1, 4), stride=(2, 1))),
    "stride": (IMAGE, dl.Conv(3, 3, stride=2)),
    "stride past the window": (IMAGE, dl.Conv(3, 2, stride=3, padding="VALID")),
    "window past the image": (IMAGE, dl.Conv(3, 9)),
    "dilation": (IMAGE, dl.Conv(3, 3, dilation=(2, 1))),
    "dilation and stride": (IMAGE, dl.Conv(3, 2, stride=2, dilation=3)),
    "padded": (IMAGE, dl.Conv(3, 3, padding=((1, 2), (3, 0)))),
    "groups": (IMAGE, dl.Conv(6, 3, groups=2)),
    "groups, stride": (IMAGE, dl.Conv(2, (3, 2), stride=2, padding="VALID", groups=2)),
    "depthwise": (IMAGE, dl.Conv(4, 3, groups=4)),
    "depthwise, twice the channels": (
        IMAGE,
        dl.Conv(8, 3, stride=2, dilation=2, groups=4, use_bias=False),
    ),
    "volume": (VOLUME, dl.Conv(3, (3, 2, 1))),
    "volume, stride": (VOLUME, dl.Conv(4, 2, stride=(1, 2, 1), padding="VALID", groups=2)),
}
TRANSPOSES = {
    "line": (LINE, dl.ConvTranspose(3, 3, stride=2)),
    "line, valid": (LINE, dl.ConvTranspose(3, 4, stride=2, padding="VALID", use_bias=False)),
    "image": (IMAGE, dl.ConvTranspose(3, 3)),
    "stride": (IMAGE, dl.ConvTranspose(3, 4, stride=(2, 3))),
    "even window": (IMAGE, dl.ConvTranspose(3, 2, stride=2)),
    "stride past the window": (IMAGE, dl.ConvTranspose(3, 2, stride=3)),
    "stride past the window, valid": (IMAGE, dl.ConvTranspose(3, 2, stride=3, padding="VALID")),
    "dilation": (IMAGE, dl.ConvTranspose(3, 3, stride=2, dilation=2)),
    "padded": (IMAGE, dl.ConvTranspose(3, 3, stride=2, padding=((1, 2), (0, 4)))),
    "volume": (VOLUME, dl.ConvTranspose(3, (2, 3, 2), stride=(2, 1, 2), padding="VALID")),
}
CROPPED = {
    "cropped": (IMAGE, dl.Conv(3, 3, stride=2, padding=((-1, 2), (0, -1))))
}  # XLA:CPU 0.10 reads past the array's end
SOME = [
    "line",
    "image",
    "stride",
    "dilation",
    "padded",
    "groups",
    "depthwise",
    "volume",
]  # the rest differs in numbers alone
convs = pytest.mark.parametrize(
    ("shape", "layer"), (CONVS | CROPPED).values(), ids=(CONVS | CROPPED).keys()
)
transposes = pytest.mark.parametrize(
    ("shape", "layer"), TRANSPOSES.values(), ids=TRANSPOSES.keys()
)

Conv: Any = dl.Conv  # for arguments that a type checker refuses


def drawn(layer: Any, shape: tuple[int, ...]) -> tuple[Any, jax.Array]:
    x = normal(0, shape)
    return perturbed(layer.init(jax.random.key(0), x)[0]), x


def spread(value: Any, dimensions: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * dimensions


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", SOME)
def test_conv_is_that_of_flax(name: str) -> None:
    shape, layer = CONVS[name]
    params, x = drawn(layer, shape)
    dimensions = len(shape) - 2
    module = nn.Conv(
        layer.features,
        spread(layer.kernel_size, dimensions),
        strides=layer.stride,
        padding=layer.padding,
        kernel_dilation=layer.dilation,
        feature_group_count=layer.groups,
        use_bias=layer.use_bias,
    )
    close(layer_figures(layer, params, x), flax_figures(module, params, x))


@pytest.mark.sampled(3)
@convs
def test_conv_is_that_of_pytorch(shape: tuple[int, ...], layer: dl.Conv) -> None:
    functional = pytest.importorskip("torch").nn.functional
    params, x = drawn(layer, shape)
    dimensions = len(shape) - 2
    window, stride, dilation = (
        spread(v, dimensions) for v in (layer.kernel_size, layer.stride, layer.dilation)
    )
    pads = (
        same_pads(shape[1:-1], window, stride, dilation)
        if layer.padding == "SAME"
        else layer.padding
    )
    pads = ((0, 0),) * dimensions if pads == "VALID" else pads
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[dimensions - 1]

    def forward(params: Any, x: Any) -> Any:
        padded = functional.pad(x, [n for pair in reversed(pads) for n in pair])
        kernel = params["kernel"].movedim((-1, -2), (0, 1))
        return conv(padded, kernel, params.get("bias"), stride, 0, dilation, layer.groups)

    close(layer_figures(layer, params, x), torch_figures(forward, params, x))


SYMMETRIC = [
    (shape, window, stride, dilation, padding)
    for shape, window in (((2, 11, 4), 3), ((2, 9, 8, 4), (3, 4)), ((1, 6, 5, 7, 2), (3, 2, 3)))
    for stride in (1, 2, 3)
    for dilation, padding in ((2, 1), (1, (1, 0, 1)[: len(shape) - 2]))
]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("shape", "window", "stride", "dilation", "padding"), SYMMETRIC)
def test_whole_numbers_pad_as_in_pytorch(
    shape: Any, window: Any, stride: int, dilation: int, padding: Any
) -> None:
    torch = pytest.importorskip("torch")
    dimensions = len(shape) - 2
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    for layer in (dl.Conv(3, window, **options), dl.ConvTranspose(3, window, **options)):
        params, x = drawn(layer, shape)
        transposed = isinstance(layer, dl.ConvTranspose)
        kernel = np.moveaxis(
            np.asarray(params["kernel"]), (-2, -1), (0, 1) if transposed else (1, 0)
        )
        if (
            transposed
        ):  # PyTorch's is the gradient of a convolution, and so has the window reversed
            kernel = np.flip(kernel, tuple(range(2, dimensions + 2)))
        name = f"conv{'_transpose' if transposed else ''}{dimensions}d"
        theirs = getattr(torch.nn.functional, name)(
            torch.from_numpy(np.moveaxis(np.array(x), -1, 1)),
            torch.from_numpy(kernel.copy()),
            torch.from_numpy(np.array(params["bias"])),
            **options,
        )
        y, _ = layer.apply(params, {}, x)
        np.testing.assert_allclose(
            np.moveaxis(np.asarray(y), -1, 1), theirs.numpy(), rtol=1e-5, atol=1e-5
        )


GROUPED = {
    "line": (LINE, 3, {"stride": 2, "groups": 2}),
    "line, output padding": (LINE, 3, {"stride": 3, "padding": 1, "output_padding": 2}),
    "image": (IMAGE, (3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 2}),
    "image, output padding": (
        IMAGE,
        3,
        {"stride": (2, 3), "padding": 1, "output_padding": (1, 2), "groups": 4},
    ),
    "image, dilation": (
        IMAGE,
        3,
        {"padding": 2, "dilation": 2, "output_padding": 1, "groups": 2},
    ),
    "volume": (VOLUME, 2, {"stride": 2, "groups": 2, "output_padding": (0, 1, 1)}),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("shape", "window", "options"), GROUPED.values(), ids=GROUPED.keys())
def test_groups_and_output_padding_of_a_transpose_are_those_of_pytorch(
    shape: Any, window: Any, options: dict[str, Any]
) -> None:
    """Its kernel is [channels, features / groups, *window], with the window reversed."""
    functional = pytest.importorskip("torch").nn.functional
    dimensions = len(shape) - 2
    groups = options.get("groups", 1)
    layer = dl.ConvTranspose(2 * groups, window, **{"padding": 0, **options})
    params, x = drawn(layer, shape)
    transpose = getattr(functional, f"conv_transpose{dimensions}d")

    def forward(params: Any, x: Any) -> Any:
        space = tuple(range(2, dimensions + 2))
        blocks = params["kernel"].chunk(groups, -1)
        blocks = [block.movedim((-2, -1), (0, 1)).flip(space) for block in blocks]
        kernel = pytest.importorskip("torch").cat(blocks)
        return transpose(x, kernel, params["bias"], **options)

    close(layer_figures(layer, params, x), torch_figures(forward, params, x))


def same_pads(space: Any, window: Any, stride: Any, dilation: Any) -> Any:
    """⌈space / stride⌉ outputs, the odd zero at the end."""
    pads = []
    for n, k, s, d in zip(space, window, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads


@pytest.mark.sampled(2)
@transposes
def test_conv_transpose_is_that_of_flax(
    shape: tuple[int, ...], layer: dl.ConvTranspose
) -> None:
    params, x = drawn(layer, shape)
    dimensions = len(shape) - 2
    module = nn.ConvTranspose(
        layer.features,
        spread(layer.kernel_size, dimensions),
        strides=spread(layer.stride, dimensions),
        padding=layer.padding,
        kernel_dilation=spread(layer.dilation, dimensions),
        use_bias=layer.use_bias,
    )
    close(layer_figures(layer, params, x), flax_figures(module, params, x))


@pytest.mark.sampled(2)
@transposes
def test_conv_transpose_is_that_of_pytorch(
    shape: tuple[int, ...], layer: dl.ConvTranspose
) -> None:
    """PyTorch gives every output that touches the input, and of these the padding keeps some."""
    functional = pytest.importorskip("torch").nn.functional
    params, x = drawn(layer, shape)
    dimensions = len(shape) - 2
    window, stride, dilation = (
        spread(v, dimensions) for v in (layer.kernel_size, layer.stride, layer.dilation)
    )
    kept = []
    for axis, (k, s, d) in enumerate(zip(window, stride, dilation, strict=True)):
        extent = (k - 1) * d + 1
        if layer.padding == "SAME":
            low = max(extent - s, 0) // 2
            kept.append((-low, s - extent + low))
        elif layer.padding == "VALID":
            kept.append((0, max(s - extent, 0)))
        else:
            low, high = layer.padding[axis]
            kept.append((low - extent + 1, high - extent + 1))
    transpose = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )[dimensions - 1]

    def forward(params: Any, x: Any) -> Any:
        kernel = (
            params["kernel"].movedim((-2, -1), (0, 1)).flip(tuple(range(2, dimensions + 2)))
        )
        full = transpose(x, kernel, None, stride, dilation=dilation)
        y = functional.pad(full, [n for pair in reversed(kept) for n in pair])
        return y + params["bias"].reshape(-1, *(1,) * dimensions) if "bias" in params else y

    close(layer_figures(layer, params, x), torch_figures(forward, params, x))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "layer", [dl.Conv(4, 3), dl.ConvTranspose(4, 3), dl.Conv(4, 3, dtype=jnp.bfloat16)]
)
def test_bytes_are_read_as_intensities(layer: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    params, state = layer.init(jax.random.key(0), images)
    y, _ = layer.apply(params, state, images)
    assert y.dtype == (layer.dtype or jnp.float32)
    expected, _ = layer.apply(params, state, images.astype(np.float32) / np.float32(255))
    close(
        y.astype(jnp.float32),
        expected.astype(jnp.float32),
        1e-6 if layer.dtype is None else 0.05,
    )


def test_initial_kernels_are_those_of_flax() -> None:
    key, shape = jax.random.key(3), (3, 3, 4, 8)
    for ours, theirs in (
        (dl.Conv(8, 3), nn.Conv(8, (3, 3))),
        (dl.ConvTranspose(8, 3), nn.ConvTranspose(8, (3, 3))),
    ):
        np.testing.assert_array_equal(
            ours.kernel_init(key, shape, jnp.float32),
            theirs.kernel_init(key, shape, jnp.float32),
        )
        np.testing.assert_array_equal(
            ours.bias_init(key, (8,), jnp.float32), theirs.bias_init(key, (8,), jnp.float32)
        )


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: dl.Conv(0, 3), "Conv: features is a whole number of at least 1, got 0."),
        (lambda: dl.Conv(True, 3), "Conv: features is a whole number of at least 1, got True."),
        (
            lambda: dl.Conv(3, (3, 0)),
            "Conv: kernel_size is a whole number of at least 1, got 0.",
        ),
        (
            lambda: Conv(3, [3, 3]),
            "Conv: kernel_size is a whole number or a tuple of such, got the list [3, 3].",
        ),
        (
            lambda: Conv(3, 3, stride=0.5),
            "Conv: stride is a whole number of at least 1, got 0.5.",
        ),
        (
            lambda: dl.Conv(3, 3, padding="same"),
            "Conv: padding is 'SAME', 'VALID', a whole number of at least 0 (on both sides of all dimensions, or a tuple with "
            "one for each) or a tuple of (low, high) pairs, got 'same'.",
        ),
        (
            lambda: Conv(3, 3, padding=(1, True)),
            "Conv: padding is 'SAME', 'VALID', a whole number of at least 0 (on both sides of all dimensions, or a tuple with "
            "one for each) or a tuple of (low, high) pairs, got (1, True).",
        ),
        (
            lambda: dl.Conv(3, 3, dtype=jnp.int8),
            "Conv: dtype is a floating-point dtype, got int8.",
        ),
        (
            lambda: dl.Conv(3, 3, groups=2),
            "Conv: 3 features cannot be split into 2 groups of one size.",
        ),
        (
            lambda: dl.ConvTranspose(3, 3, stride=-1),
            "ConvTranspose: stride is a whole number of at least 1, got -1.",
        ),
        (
            lambda: dl.ConvTranspose(3, 3, groups=2),
            "ConvTranspose: 3 features cannot be split into 2 groups of one size.",
        ),
        (
            lambda: dl.ConvTranspose(3, 3, padding=1, output_padding=-1),
            "ConvTranspose: output_padding is a whole number of at least 0, or a tuple of such, got -1.",
        ),
        (
            lambda: dl.ConvTranspose(3, 3, output_padding=1),
            "ConvTranspose: output_padding belongs to PyTorch's padding, whole numbers, got padding 'SAME' — write (low, high) "
            "pairs with a larger high.",
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
            dl.Conv(3, 3),
            (8, 8),
            "Conv: expected [batch, *space, channels] with at least one spatial dimension, got shape (8, 8) — images without a "
            "channel axis need x[..., None], a single image x[None].",
        ),
        (
            dl.Conv(3, (3, 3)),
            (1, 8, 8, 8, 1),
            "Conv: kernel_size (3, 3) has 2 entries, but an input of shape (1, 8, 8, 8, 1) has 3 spatial dimensions — an int "
            "stands for all of them.",
        ),
        (
            dl.Conv(3, 3, stride=(1, 2)),
            (1, 8, 1),
            "Conv: stride (1, 2) has 2 entries, but an input of shape (1, 8, 1) has 1 spatial dimension — an int stands for all "
            "of them.",
        ),
        (
            dl.Conv(4, 3, groups=2),
            (1, 8, 8, 3),
            "Conv: 3 input channels cannot be split into 2 groups of one size.",
        ),
        (
            dl.ConvTranspose(4, 3, groups=2),
            (1, 8, 8, 3),
            "ConvTranspose: 3 input channels cannot be split into 2 groups of one size.",
        ),
        (
            dl.ConvTranspose(4, 3, stride=2, padding=1, output_padding=2),
            (1, 8, 3),
            "ConvTranspose: output_padding is below the stride or the dilation, got 2 with stride 2 and dilation 1 — those "
            "outputs would meet no input.",
        ),
        (
            dl.Conv(3, 3, padding="VALID", dilation=4),
            (1, 9, 8, 1),
            "Conv: the window reaches over 9 elements of spatial dimension 1, but an input of shape (1, 9, 8, 1) has only 8 "
            "there, padding included — use padding='SAME', a smaller window or fewer poolings.",
        ),
        (
            dl.ConvTranspose(3, 9, stride=2, padding=((1, 1),)),
            (1, 3, 1),
            "ConvTranspose: the window reaches over 9 elements of spatial dimension 0, but an input of shape (1, 3, 1) has only "
            "7 there, padding included — use padding='SAME', a smaller window or fewer poolings.",
        ),
    ],
)
def test_wrong_inputs_at_init(layer: Any, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(LayerError) as caught:
        layer.init(jax.random.key(0), jnp.zeros(shape))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("layer", "shape", "text"),
    [
        (
            dl.Conv(3, 3),
            (1, 8, 8, 2),
            "Conv: expected 4 channels, as at init, got 2 (input of shape (1, 8, 8, 2)) — was the input's size changed after init?",
        ),
        (
            dl.ConvTranspose(3, 3),
            (1, 8, 8, 2),
            "ConvTranspose: expected 4 channels, as at init, got 2 (input of shape (1, 8, 8, 2)) — was the input's size changed "
            "after init?",
        ),
        (
            dl.Conv(3, 3),
            (1, 8, 4),
            "Conv: expected an input of rank 4, as at init, got shape (1, 8, 4).",
        ),
        (
            dl.ConvTranspose(3, 3),
            (1, 8, 4),
            "ConvTranspose: expected an input of rank 4, as at init, got shape (1, 8, 4).",
        ),
        (
            dl.Conv(3, 3, padding="VALID"),
            (1, 8, 2, 4),
            "Conv: the window reaches over 3 elements of spatial dimension 1, but an input of shape (1, 8, 2, 4) has only 2 "
            "there, padding included — use padding='SAME', a smaller window or fewer poolings.",
        ),
    ],
)
def test_inputs_unlike_those_of_init(layer: Any, shape: tuple[int, ...], text: str) -> None:
    params, state = layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
    with pytest.raises(LayerError) as caught:
        layer.apply(params, state, jnp.zeros(shape))
    assert str(caught.value) == text


@pytest.mark.parametrize("kind", [dl.Conv, dl.ConvTranspose])
def test_whole_numbers_are_no_images(kind: Any) -> None:
    text = (
        f"{kind.__name__}: expected floating-point numbers, or images in uint8 (read as x / 255), got int32 — convert them with "
        "x.astype('float32'), or put Embedding in front if they are indices."
    )
    with pytest.raises(LayerError) as caught:
        kind(3, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 1), jnp.int32))
    assert str(caught.value) == text
