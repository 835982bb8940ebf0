"""Image augmentation: pure functions of a key and a batch, to be called inside the training step.

Each draws a few random numbers an image, and each image its own. Pixels are moved by gathering, in
one pass; on CPU, inside a scanned step, that costs half of selecting between two versions and a
fifth of slicing image by image.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from jaxdl.data import arguments

_Images = Shaped[Array | np.ndarray, "batch height width channels"]
_Indices = Int[Array, "batch positions"]


def flip(key: Key[Array, ""], images: _Images) -> Shaped[Array, "batch height width channels"]:
    """Mirrors each image left to right with probability 1/2.

    `y[b, i, j] = x[b, i, width - 1 - j]` where a fair coin for image b says so, else `x[b, i, j]`.

    Args:
        key: a key from `jax.random.key`.
        images: [batch, height, width, channels] of any dtype.

    Returns:
        Images of the same shape and dtype.

    >>> image = jnp.arange(3, dtype=jnp.uint8).reshape(1, 1, 3, 1)
    >>> sorted({str(flip(jax.random.key(seed), image).ravel()) for seed in range(9)})
    ['[0 1 2]', '[2 1 0]']
    """
    _require_images("flip", images)
    batch, _, width, _ = images.shape
    mirrored = jax.random.bernoulli(key, shape=(batch, 1))
    columns = jnp.arange(width)[None]
    return _columns(images, jnp.where(mirrored, width - 1 - columns, columns))


def crop(
    key: Key[Array, ""],
    images: _Images,
    padding: int = 4,
    mode: Literal["reflect", "constant"] = "reflect",
) -> Shaped[Array, "batch height width channels"]:
    """Shifts each image by up to `padding` pixels along both axes, each shift as likely.

    `y[b, i, j] = x[b, i + s_b, j + t_b]`, with s and t uniform from -padding to padding. This is
    the same as padding each image on all four sides and cutting a window of the old size out of it
    at random.

    Args:
        key: a key from `jax.random.key`.
        images: [batch, height, width, channels] of any dtype.
        padding: pixels on each side; with `reflect`, less than height and width.
        mode: what comes in over the edge, named as in `numpy.pad`: `reflect` mirrors the image
            without repeating its border, `constant` is zero.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if images are not four-dimensional, or if the padding or mode is none.

    Source: He et al., *Deep residual learning for image recognition* (2016), section 4.2.

    >>> crop(jax.random.key(0), jnp.ones((2, 32, 32, 3), jnp.uint8)).shape
    (2, 32, 32, 3)
    """
    _require_images("crop", images)
    batch, height, width, _ = images.shape
    _require_padding(padding, mode, min(height, width))
    shift = jax.random.randint(key, (batch, 2), -padding, padding + 1)
    rows = shift[:, :1] + jnp.arange(height)[None]
    columns = shift[:, 1:] + jnp.arange(width)[None]
    if mode == "reflect":
        rows = _reflected(rows, height)
        columns = _reflected(columns, width)
        return _columns(_rows(images, rows), columns)
    moved = _rows(images, rows.clip(0, height - 1))
    moved = _columns(moved, columns.clip(0, width - 1))
    inside = _rectangle(_within(rows, 0, height), _within(columns, 0, width))
    return jnp.where(inside, moved, jnp.zeros((), images.dtype))


def cutout(
    key: Key[Array, ""], images: _Images, size: int = 8
) -> Shaped[Array, "batch height width channels"]:
    """Sets a square in each image to zero.

    Its centre is any pixel, so that it may reach over the edge: `y[b, i, j] = 0` where i and j lie
    within size / 2 of the centre, else `x[b, i, j]`.

    Args:
        key: a key from `jax.random.key`.
        images: [batch, height, width, channels] of any dtype.
        size: the square's side in pixels.

    Returns:
        Images of the same shape and dtype.

    Raises:
        ValueError: if images are not four-dimensional.

    Source: DeVries, Taylor, *Improved regularization of convolutional neural networks with cutout*
    (2017).
    """
    _require_images("cutout", images)
    arguments.whole("cutout", "size", size, 0)
    batch, height, width, _ = images.shape
    centre = jax.random.randint(key, (batch, 2), 0, jnp.array([[height, width]]))
    first = centre - size // 2
    rows = jnp.arange(height)[None] - first[:, :1]
    columns = jnp.arange(width)[None] - first[:, 1:]
    inside = _rectangle(_within(rows, 0, size), _within(columns, 0, size))
    return jnp.where(inside, jnp.zeros((), images.dtype), images)


def mixup(
    key: Key[Array, ""],
    images: Float[Array | np.ndarray, "batch height width channels"],
    targets: Float[Array | np.ndarray, "batch *target"],
    alpha: float = 0.2,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch *target"]]:
    """Mixes each example with another of the batch, its target likewise.

    `x' = λ x_i + (1 - λ) x_j`, `y' = λ y_i + (1 - λ) y_j`, with λ drawn from Beta(α, α) for each i,
    and j from a random permutation of the batch. All rows take part, also such as only fill up a
    smaller batch.

    Args:
        key: a key from `jax.random.key`.
        images: [batch, height, width, channels], floating.
        targets: [batch, classes], floating: labels of `jax.nn.one_hot`, or targets of a regression.
        alpha: α > 0; the smaller, the closer most mixtures are to one of the two.

    Returns:
        The mixed images and targets, of the same shapes and dtypes.

    Raises:
        ValueError: if images or targets are not floating, or if α is not above 0.

    Source: Zhang, Cissé, Dauphin, Lopez-Paz, *mixup: beyond empirical risk minimization* (2018),
    equation 1.
    """
    _require_images("mixup", images)
    _require_floating(images, targets)
    arguments.positive("mixup", "alpha", alpha)
    weight_key, partner_key = jax.random.split(key)
    batch = images.shape[0]
    weight = jax.random.beta(weight_key, alpha, alpha, (batch,))
    partner = jax.random.permutation(partner_key, batch)
    return _mixed(images, partner, weight), _mixed(targets, partner, weight)


def _rows(images: _Images, rows: _Indices) -> Shaped[Array, "batch height width channels"]:
    return jnp.take_along_axis(images, rows[:, :, None, None], axis=1, mode="promise_in_bounds")


def _columns(
    images: _Images, columns: _Indices
) -> Shaped[Array, "batch height width channels"]:
    return jnp.take_along_axis(
        images, columns[:, None, :, None], axis=2, mode="promise_in_bounds"
    )


def _reflected(positions: _Indices, size: int) -> _Indices:
    last = size - 1
    return last - abs(last - abs(positions))


def _within(positions: _Indices, start: int, stop: int) -> Bool[Array, "batch positions"]:
    return (positions >= start) & (positions < stop)


def _rectangle(
    rows: Bool[Array, "batch height"], columns: Bool[Array, "batch width"]
) -> Bool[Array, "batch height width 1"]:
    return rows[:, :, None, None] & columns[:, None, :, None]


def _mixed(
    values: Float[Array | np.ndarray, "batch *shape"],
    partner: Int[Array, " batch"],
    weight: Float[Array, " batch"],
) -> Float[Array, "batch *shape"]:
    weight = weight.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return weight * values + (1 - weight) * jnp.asarray(values)[partner]


def _require_images(name: str, images: Array | np.ndarray) -> None:
    if images.ndim != 4:
        raise ValueError(
            f"{name}: expected images [batch, height, width, channels], got shape {images.shape} — "
            "give one image a batch axis with images[None], and grey ones a channel axis with "
            "images[..., None]."
        )


def _require_padding(padding: int, mode: str, smallest: int) -> None:
    if not isinstance(mode, str) or mode not in ("reflect", "constant"):
        raise ValueError(f"crop: mode is {mode!r}, and must be 'reflect' or 'constant'.")
    if (
        isinstance(padding, bool)
        or not isinstance(padding, (int, np.integer))
        or padding >= 2**30
    ):
        raise ValueError(f"crop: padding is {padding!r}, and must be a whole number of pixels.")
    if padding < 0 or (mode == "reflect" and padding >= smallest):
        raise ValueError(
            f"crop: padding is {padding}, and must be from 0 to {smallest - 1} for these images — "
            "a mirror image has no more pixels; mode='constant' takes more."
        )


def _require_floating(
    images: _Images, targets: Shaped[Array | np.ndarray, "batch *target"]
) -> None:
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"mixup: images are {images.dtype}, and must be floating to be mixed — scale them "
            f"first."
        )
    if not jnp.issubdtype(targets.dtype, jnp.floating):
        raise ValueError(
            f"mixup: targets are {targets.dtype}, and must be floating to be mixed — "
            "turn labels into jax.nn.one_hot(labels, classes)."
        )
