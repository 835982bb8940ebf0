"""Windows that move over the spatial dimensions of [batch, *space, channels]."""

import itertools

import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], ...]
Sizes = tuple[int, ...]


def resolve_padding(
    space: Sizes, window: Sizes, stride: Sizes, padding: str | Pads, dilation: Sizes
) -> Pads:
    """The (low, high) padding of each spatial dimension, of "SAME", "VALID" or itself."""
    if isinstance(padding, str):
        return tuple(lax.padtype_to_pads(space, extents(window, dilation), stride, padding))
    return padding


def shifted_slices(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Array]:
    """For each position of the window, in row-major order, the elements of (padded) x that it
    meets: [batch, *out, channels].
    """
    reach = extents(window, dilation)
    out = [(n - e) // s + 1 for n, e, s in zip(x.shape[1:-1], reach, stride, strict=True)]
    slices = []
    for position in itertools.product(*map(range, window)):
        start = [k * d for k, d in zip(position, dilation, strict=True)]
        stop = [i + (n - 1) * s + 1 for i, n, s in zip(start, out, stride, strict=True)]
        limits = (x.shape[0], *stop, x.shape[-1])
        slices.append(lax.slice(x, (0, *start, 0), limits, (1, *stride, 1)))
    return slices


def pad_space(x: Array, pads: Pads, value: float) -> Array:
    """x with its spatial dimensions padded, or cropped where the padding is negative."""
    if all(low == high == 0 for low, high in pads):
        return x
    space = [(low, high, 0) for low, high in pads]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *space, (0, 0, 0)])


def extents(window: Sizes, dilation: Sizes) -> Sizes:
    """The size of a dilated window along each dimension, (k − 1) · d + 1."""
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def layout(dimensions: int) -> tuple[str, str, str]:
    """The dimension numbers of input, kernel and output of a convolution over one to three spatial
    dimensions, as `lax` names them.
    """
    space = "DHW"[-dimensions:]
    return f"N{space}C", f"{space}IO", f"N{space}C"
