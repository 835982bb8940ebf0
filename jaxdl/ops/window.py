"""Where a window that moves over the spatial dimensions of [batch, *space, channels] meets its
input.
"""

import itertools
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

Pads = tuple[tuple[int, int], ...]
Sizes = tuple[int, ...]


def resolve_padding(
    space: Sizes, window: Sizes, stride: Sizes, padding: str | Pads, dilation: Sizes
) -> Pads:
    """The (low, high) padding of each spatial dimension."""
    if isinstance(padding, str):
        return tuple(lax.padtype_to_pads(space, extents(window, dilation), stride, padding))
    return padding


def shifted_slices(x: Array, window: Sizes, stride: Sizes, dilation: Sizes) -> list[Array]:
    """For each place of the window, row by row, the elements of (padded) x that it meets: [batch,
    *out, channels].
    """
    out = [
        (n - e) // s + 1
        for n, e, s in zip(x.shape[1:-1], extents(window, dilation), stride, strict=True)
    ]
    slices = []
    for place in itertools.product(*map(range, window)):
        start = [k * d for k, d in zip(place, dilation, strict=True)]
        stop = [i + (n - 1) * s + 1 for i, n, s in zip(start, out, stride, strict=True)]
        slices.append(
            lax.slice(x, (0, *start, 0), (x.shape[0], *stop, x.shape[-1]), (1, *stride, 1))
        )
    return slices


def pad_space(x: Array, pads: Pads, value: Any) -> Array:
    """x with its spatial dimensions padded (or, where negative, cropped)."""
    if all(low == high == 0 for low, high in pads):
        return x
    return lax.pad(
        x,
        jnp.asarray(value, x.dtype),
        [(0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)],
    )


def extents(window: Sizes, dilation: Sizes) -> Sizes:
    """How many places of each dimension the window reaches over, (k − 1) · d + 1."""
    return tuple((k - 1) * d + 1 for k, d in zip(window, dilation, strict=True))


def layout(dimensions: int) -> tuple[str, str, str]:
    """The axes of input, kernel and output of a convolution over one to three spatial dimensions,
    as `lax` names them.
    """
    space = "DHW"[-dimensions:]
    return f"N{space}C", f"{space}IO", f"N{space}C"
