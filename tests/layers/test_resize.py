"""Padding and interpolation against PyTorch and Keras, and what wrong arguments get."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, layer_figures, normal, torch_figures

pytestmark = pytest.mark.usefixtures("quickly_compiled")
LINE, IMAGE, VOLUME = (2, 9, 3), (2, 7, 6, 3), (2, 5, 4, 4, 2)
TORCH_MODES = {
    "nearest": ("nearest-exact",) * 3,
    "linear": ("linear", "bilinear", "trilinear"),
    "cubic-pytorch": ("", "bicubic", ""),
}
Pad: Any = dl.Pad  # for arguments that a type checker refuses
Resize: Any = dl.Resize

PADS = {
    "line, zeros": (LINE, dl.Pad(2)),
    "line, reflect": (LINE, dl.Pad(8, "reflect")),
    "line, replicate": (LINE, dl.Pad(((0, 12),), "replicate")),
    "line, circular": (LINE, dl.Pad(9, "circular")),
    "image, cropped": (IMAGE, dl.Pad(((-1, 2), (0, -3)))),
    "image, reflect": (IMAGE, dl.Pad((3, 1), "reflect")),
    "image, replicate": (IMAGE, dl.Pad(((1, 2), (3, 0)), "replicate")),
    "image, circular": (IMAGE, dl.Pad(((1, 2), (3, 0)), "circular")),
    "volume, reflect": (VOLUME, dl.Pad(1, "reflect")),
    "volume, replicate": (VOLUME, dl.Pad(((1, 2), (3, 0), (0, 1)), "replicate")),
    "volume, circular": (VOLUME, dl.Pad(2, "circular")),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("shape", "layer"), PADS.values(), ids=PADS.keys())
def test_padding_is_that_of_pytorch(shape: tuple[int, ...], layer: dl.Pad) -> None:
    pad = pytest.importorskip("torch").nn.functional.pad
    entries: Any = layer.padding
    if not isinstance(entries, tuple):
        entries = (entries,) * (len(shape) - 2)
    pairs = [entry if isinstance(entry, tuple) else (entry, entry) for entry in entries]
    sides = [side for pair in reversed(pairs) for side in pair]
    mode = "constant" if layer.fill == "zeros" else layer.fill
    theirs = torch_figures(lambda _, x: pad(x, sides, mode=mode), {}, normal(0, shape))
    close(layer_figures(layer, {}, normal(0, shape)), theirs, 1e-6)


@pytest.mark.parametrize("fill", ["zeros", "reflect", "replicate", "circular"])
def test_padding_keeps_bytes_and_indices(fill: Any) -> None:
    x = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)
    y, _ = dl.Pad(1, fill).apply({}, {}, x)
    assert y.dtype == jnp.uint8
    ends = {"zeros": (0, 0), "reflect": (1, 2), "replicate": (0, 3), "circular": (3, 0)}[fill]
    np.testing.assert_array_equal(y.ravel(), [ends[0], 0, 1, 2, 3, ends[1]])


def test_gradients_of_repeated_narrow_numbers_are_summed_before_they_are_rounded() -> None:
    """300 ones in bfloat16 would stop at 256."""
    x = jnp.ones((1, 2, 1), jnp.bfloat16)
    layers = (dl.Pad(((299, 0),), "replicate"), dl.Upsample(300), dl.Resize(600, "linear"))
    for layer in layers:
        slope = jax.grad(lambda x, layer=layer: layer.apply({}, {}, x)[0].sum())(x)
        np.testing.assert_allclose(slope[0, 0, 0], 300, rtol=2**-7)


SIZES = {
    "line up": (LINE, 18),
    "line up by a part": (LINE, 13),
    "line down": (LINE, 3),
    "image up": (IMAGE, (21, 12)),
    "image up and down": (IMAGE, (11, 4)),
    "image down": (IMAGE, (1, 2)),
    "volume": (VOLUME, (10, 2, 7)),
}
sizes = pytest.mark.parametrize(("shape", "size"), SIZES.values(), ids=SIZES.keys())


def interpolated(size: Any, mode: str, antialias: bool = False) -> Any:
    """PyTorch's, without aligned corners."""
    functional = pytest.importorskip("torch").nn.functional
    options = {} if "nearest" in mode else {"align_corners": False, "antialias": antialias}
    return lambda _, x: functional.interpolate(x, size, mode=mode, **options)


@pytest.mark.sampled(3)
@sizes
@pytest.mark.parametrize("method", TORCH_MODES)
def test_interpolation_is_that_of_pytorch(
    shape: tuple[int, ...], size: Any, method: Any
) -> None:
    mode = TORCH_MODES[method][len(shape) - 3]
    if not mode:
        pytest.skip("PyTorch has a cubic interpolation of images alone")
    theirs = torch_figures(interpolated(size, mode), {}, normal(0, shape))
    close(layer_figures(dl.Resize(size, method), {}, normal(0, shape)), theirs, 1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("size", [(21, 12), (11, 4), (3, 2)], ids=str)
@pytest.mark.parametrize("method", ["linear", "cubic", "cubic-pytorch"])
def test_antialiased_interpolation_is_that_of_pytorch(
    size: tuple[int, int], method: Any
) -> None:
    """Its cubic kernel is then that of a = −1/2, which a larger output leaves as it is."""
    mode = "bilinear" if method == "linear" else "bicubic"
    theirs = torch_figures(interpolated(size, mode, True), {}, normal(0, IMAGE))
    layer = dl.Resize(size, method, antialias=True)
    close(layer_figures(layer, {}, normal(0, IMAGE)), theirs, 1e-5)
    if min(size) > 7 and method == "cubic":
        close(layer_figures(dl.Resize(size, "cubic"), {}, normal(0, IMAGE)), theirs, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, (3, 2)], ids=str)
@pytest.mark.parametrize(
    ("method", "interpolation"),
    [("nearest", "nearest"), ("linear", "bilinear"), ("cubic", "bicubic")],
)
def test_upsampling_is_that_of_keras(
    scale: Any, method: Any, interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    x = normal(0, IMAGE)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        layer = keras.layers.UpSampling2D(scale, interpolation=interpolation)
        theirs = np.asarray(layer(np.asarray(x)))
    close(dl.Upsample(scale, method).apply({}, {}, x)[0], theirs, 1e-5)


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic"])
def test_upsampling_is_resizing_to_a_multiple(method: Any) -> None:
    x = normal(0, IMAGE)
    up, _ = dl.Upsample((2, 3), method).apply({}, {}, x)
    to, _ = dl.Resize((14, 18), method).apply({}, {}, x)
    np.testing.assert_array_equal(up, to)


def test_bytes_become_intensities() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    scaled = images.astype(np.float32) / np.float32(255)
    for layer in (dl.Upsample(2), dl.Resize(3)):
        close(layer.apply({}, {}, images)[0], layer.apply({}, {}, scaled)[0], 1e-6)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: Pad("SAME"),
            "Pad: padding is a whole number of at least 0, a tuple of such or a tuple of (low, high) pairs, got 'SAME'.",
        ),
        (
            lambda: Pad(1, "edge"),
            "Pad: fill is 'zeros' or 'reflect' or 'replicate' or 'circular', got 'edge'.",
        ),
        (
            lambda: Resize(0),
            "Resize: size is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.Upsample(2.5),  # type: ignore[arg-type]
            "Upsample: scale is a whole number of at least 1, got 2.5.",
        ),
        (
            lambda: Resize(2, "bilinear"),
            "Resize: method is 'nearest' or 'linear' or 'cubic' or 'cubic-pytorch', got 'bilinear'.",
        ),
        (
            lambda: Resize(2, antialias=1),
            "Resize: antialias is True or False, got 1.",
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
            dl.Pad(3, "reflect"),
            (1, 3, 5, 1),
            "Pad: with 'reflect' a side of an input of shape (1, 3, 5, 1) gets at most 2 elements, got (3, 3) — use 'zeros' or "
            "'replicate', or pad by less.",
        ),
        (
            dl.Pad(((-1, 0),), "replicate"),
            (1, 3, 1),
            "Pad: with 'replicate' padding adds at least 0 on each side, got (-1, 0) — crop the input with dl.Pad(…, 'zeros') "
            "before.",
        ),
        (
            dl.Pad(((-2, -1),)),
            (1, 3, 1),
            "Pad: padding (-2, -1) leaves nothing of an input of shape (1, 3, 1).",
        ),
        (
            dl.Resize((2, 2)),
            (1, 3, 1),
            "Resize: size (2, 2) has 2 entries, but an input of shape (1, 3, 1) has 1 spatial dimension — an int stands for all "
            "of them.",
        ),
        (
            dl.Upsample(2),
            (3, 4),
            "Upsample: expected [batch, *space, channels] with at least one spatial dimension, got shape (3, 4) — images without "
            "a channel axis need x[..., None], a single image x[None].",
        ),
    ],
)
def test_wrong_inputs(layer: Any, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(LayerError) as caught:
        layer.apply({}, {}, jnp.zeros(shape))
    assert str(caught.value) == text
