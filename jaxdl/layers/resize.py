"""Layers that change the size of the spatial dimensions without parameters: padding and
interpolation.
"""

import dataclasses
from typing import ClassVar, Literal

from jax import Array

from jaxdl import ops
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Parameterless
from jaxdl.layers import arguments, inputs
from jaxdl.layers.arguments import Sizes
from jaxdl.ops.resize import METHODS

Fill = Literal["zeros", "reflect", "replicate", "circular"]
Method = Literal["nearest", "linear", "cubic", "cubic-pytorch"]


@dataclasses.dataclass(frozen=True)
class Pad(Parameterless):
    """x with elements added on both sides of each spatial dimension: [batch, *space, channels] to
    [batch, *space + low + high, channels].

    Args:
        padding: how many: an int on both sides of all dimensions, a tuple with one for each
            dimension, or (low, high) pairs, of which negative ones crop the input, with zeros.
        fill: what is added: "zeros"; "reflect", the input mirrored at its first and last element,
            which is not repeated; "replicate", the first and last element; "circular", the input
            from its other end. PyTorch has the same names; `jnp.pad` says "edge" and "wrap" for
            the last two.

    Raises:
        LayerError: an argument is invalid, or an input is too small: "reflect" adds at most
            space − 1 elements on a side, and "circular" at most space.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> x = jnp.arange(1, 4)[None, :, None]
    >>> dl.Pad(2, "reflect").apply({}, {}, x)[0].ravel()
    Array([3, 2, 1, 2, 3, 2, 1], dtype=int32)
    """

    padding: Sizes | tuple[tuple[int, int], ...]
    fill: Fill = "zeros"
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.check_choice("Pad", "fill", self.fill, ops.pad.FILLS)
        if isinstance(self.padding, str):
            raise LayerError(
                "Pad",
                f"padding is a whole number of at least 0, a tuple of such or a tuple of (low, "
                f"high) pairs, got {self.padding!r}.",
            )
        arguments.check_padding("Pad", self.padding)

    def compute(self, x: Array) -> Array:
        pads = inputs.resolve_padding("Pad", x, self.padding)
        assert not isinstance(pads, str)
        for length, pair in zip(x.shape[1:-1], pads, strict=True):
            self._check_pair(x, length, pair)
        return ops.pad.pad(x, pads=pads, fill=self.fill)

    def _check_pair(self, x: Array, length: int, pair: tuple[int, int]) -> None:
        if self.fill == "zeros":
            if length + sum(pair) < 1:
                raise LayerError(
                    "Pad", f"padding {pair} leaves nothing of an input of shape {x.shape}."
                )
            return
        if min(pair) < 0:
            raise LayerError(
                "Pad",
                f"with {self.fill!r} padding adds at least 0 on each side, got {pair} — crop the "
                f"input with dl.Pad(…, 'zeros') before.",
            )
        limit = {"reflect": length - 1, "circular": length}.get(self.fill)
        if limit is not None and max(pair) > limit:
            raise LayerError(
                "Pad",
                f"with {self.fill!r} a side of an input of shape {x.shape} gets at most {limit} "
                f"elements, got {pair} — use 'zeros' or 'replicate', or pad by less.",
            )


@dataclasses.dataclass(frozen=True)
class Upsample(Parameterless):
    """x, interpolated to a multiple of its size: [batch, *space, channels] to [batch, *space ·
    scale, channels].

    Args:
        scale: the factor; an int is that of all spatial dimensions.
        method: as in `Resize`; "nearest" repeats each element.

    Raises:
        LayerError: an argument is invalid, or an input has no spatial dimension.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> x = jnp.array([1.0, 2.0])[None, :, None]
    >>> dl.Upsample(2).apply({}, {}, x)[0].ravel()
    Array([1., 1., 2., 2.], dtype=float32)
    """

    scale: Sizes
    method: Method = "nearest"

    def __post_init__(self) -> None:
        arguments.check_sizes("Upsample", scale=self.scale)
        arguments.check_choice("Upsample", "method", self.method, METHODS)

    def compute(self, x: Array) -> Array:
        (scale,) = inputs.per_dimension("Upsample", x, scale=self.scale)
        size = tuple(n * factor for n, factor in zip(x.shape[1:-1], scale, strict=True))
        arguments.check_sizes("Upsample", **{"the size of an output": size})
        x = inputs.as_computed("Upsample", x)
        return ops.resize.resize(x, size=size, method=self.method)


@dataclasses.dataclass(frozen=True)
class Resize(Parameterless):
    """x, interpolated to another size: [batch, *space, channels] to [batch, *size, channels].

        y[p] = Σ_k w(q − k) x[k],  with q = (p + ½) · space / size − ½

    Elements have a width of 1, with their centres at ½, 3/2, …, so that the edges of the input are
    the edges of the output: PyTorch's align_corners=False, and the convention of TensorFlow, Keras
    and Pillow. At the edges, the weights of the elements inside are scaled to a sum of 1.

    Args:
        size: of the output; an int is the size in all spatial dimensions.
        method: w, along each spatial dimension. "nearest" is PyTorch's "nearest-exact"; "linear"
            (bilinear and trilinear in two and three dimensions); "cubic" is the kernel of Keys,
            1981, with a = −1/2, as in Keras, TensorFlow and Pillow; "cubic-pytorch" has a = −3/4
            and repeats the first and last element, as PyTorch's "bicubic".
        antialias: whether w is widened by space / size where that is above 1, so that every
            element counts in a smaller output; "nearest" ignores it. "cubic-pytorch" is then
            "cubic", as in PyTorch.

    Raises:
        LayerError: an argument is invalid, or an input has no spatial dimension.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> images = jnp.ones((1, 28, 28, 3))
    >>> dl.Resize((14, 32)).apply({}, {}, images)[0].shape
    (1, 14, 32, 3)
    """

    size: Sizes
    method: Method = "linear"
    antialias: bool = False

    def __post_init__(self) -> None:
        arguments.check_sizes("Resize", size=self.size)
        arguments.check_choice("Resize", "method", self.method, METHODS)
        arguments.check_fields(self)

    def compute(self, x: Array) -> Array:
        (size,) = inputs.per_dimension("Resize", x, size=self.size)
        x = inputs.as_computed("Resize", x)
        return ops.resize.resize(x, size=size, method=self.method, antialias=self.antialias)
