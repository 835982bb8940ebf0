"""Convolution by the routine that XLA's CPU library has for it, with gradients that are such
convolutions, too.

XLA writes both gradients of a convolution as convolutions which that routine does not take: of a
reversed window, and of other orders of the axes, put right only outside of loops
(jax-ml/jax#12868). Here the kernel is reversed and the axes are moved in front of the call, so that
the output and both gradients are the same kind of call, in a loop, too, and need no array of the
patches' size.
"""

import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxdl.compiling.jitted import in_program
from jaxdl.ops.patches import conv_by_patches
from jaxdl.ops.sharding import spec
from jaxdl.ops.window import Pads, Sizes, layout

FEWEST_EXAMPLES = 8
"""Of fewer the kernel's gradient is slow, which takes the examples as channels."""
FEWEST_CHANNELS = 8
"""Of fewer inputs patches are small, and soon formed."""
MOST_PADDING = 1.5
"""How many places of the input for each of the output a convolution may compute for the input's
gradient.
"""

_YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
_WITHOUT_CONVOLUTIONS = {_YNNPACK: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
_SLOW = (0, 10, 2) <= jaxlib.version.__version_info__ < (0, 11)
"""This XLA hands convolutions to YNNPACK, where they take twice as long as in the routine; those
after it are faster there.
"""

CPU_OPTIONS: dict[str, str] = (
    _WITHOUT_CONVOLUTIONS if _SLOW and _YNNPACK not in os.environ.get("XLA_FLAGS", "") else {}
)
"""What programs for a CPU have to be compiled with, as `compiler_options`, to be spared that."""


def is_fast() -> bool:
    """Whether XLA's convolutions are fast on a CPU in what is being traced, if its program is
    compiled with `CPU_OPTIONS`.
    """
    return not _SLOW or (bool(CPU_OPTIONS) and in_program())


def suits(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int
) -> bool:
    """Whether the routine is faster with a convolution and its gradients than a product of patches
    is.

    It is not for few channels or examples, for strides and dilation (whose gradients are others),
    and windows of one place; three dimensions, other numbers than float32, sizes that are not known
    yet, explicit sharding and outputs without a place are no matter of it.
    """
    window = kernel.shape[:-2]
    return (
        x.dtype == jnp.float32
        and spec(x) is None
        and spec(kernel) is None
        and all(isinstance(size, int) for size in x.shape)
        and all(size > 0 for size in _outputs_shape(x, kernel, pads))
        and len(window) <= 2
        and groups == 1
        and x.shape[0] >= FEWEST_EXAMPLES
        and x.shape[-1] >= FEWEST_CHANNELS
        and all(size == 1 for size in (*stride, *dilation))
        and any(size > 1 for size in window)
        and all(0 <= pad < size for both, size in zip(pads, window, strict=True) for pad in both)
    )


def conv_directly(x: Array, kernel: Array, pads: Pads) -> Array:
    """y[n, p, o] = Σ_{k,c} x[n, p + k − low, c] W[k, c, o].

    With its gradients x̄ and W̄ it is one form, linear in each of three: Σ x[n, p + k − low, c]
    W[k, c, o] y[n, p, o].
    """
    return _outputs.bind(x, kernel, pads=pads)


def _convolved(x: Array, kernel: Array, *, pads: Any) -> Array:
    ones = (1,) * (x.ndim - 2)
    return lax.conv_general_dilated(x, kernel, ones, pads, dimension_numbers=layout(x.ndim - 2))


def _of_inputs(y: Array, kernel: Array, *, pads: Pads) -> Array:
    """By a convolution that pads y so far that each input meets the whole window, if it does not
    mostly meet padding.
    """
    window, shape = kernel.shape[:-2], _inputs_shape(y, kernel, pads)
    if math.prod(shape[1:-1]) > MOST_PADDING * math.prod(y.shape[1:-1]):
        return _inputs_of_patches(y, kernel, pads=pads)
    turned = jnp.flip(kernel, range(len(window))).swapaxes(-1, -2)
    return _convolved(
        y,
        turned,
        pads=[(k - 1 - low, k - 1 - high) for k, (low, high) in zip(window, pads, strict=True)],
    )


def _of_kernel(x: Array, y: Array, *, pads: Pads) -> Array:
    """Channels take the place of the examples, which are summed over, and the outputs' gradient
    that of the kernel.
    """
    return jnp.moveaxis(_convolved(x.swapaxes(0, -1), jnp.moveaxis(y, 0, -2), pads=pads), 0, -2)


def _inputs_shape(y: Any, kernel: Any, pads: Pads) -> tuple[int, ...]:
    places = zip(y.shape[1:-1], kernel.shape[:-2], pads, strict=True)
    return y.shape[0], *(out + k - 1 - sum(both) for out, k, both in places), kernel.shape[-2]


def _kernel_shape(x: Any, y: Any, pads: Pads) -> tuple[int, ...]:
    places = zip(x.shape[1:-1], y.shape[1:-1], pads, strict=True)
    return *(n + sum(both) - out + 1 for n, out, both in places), x.shape[-1], y.shape[-1]


def _outputs_shape(x: Any, kernel: Any, pads: Pads) -> tuple[int, ...]:
    places = zip(x.shape[1:-1], kernel.shape[:-2], pads, strict=True)
    return x.shape[0], *(n + sum(both) - k + 1 for n, k, both in places), kernel.shape[-1]


def _of_patches(x: Array, kernel: Array, *, pads: Pads) -> Array:
    ones = (1,) * len(pads)
    return conv_by_patches(x, kernel, stride=ones, pads=pads, dilation=ones, groups=1)


def _inputs_of_patches(y: Array, kernel: Array, *, pads: Pads) -> Array:
    shape = jax.ShapeDtypeStruct(_inputs_shape(y, kernel, pads), y.dtype)
    return jax.linear_transpose(lambda x: _of_patches(x, kernel, pads=pads), shape)(y)[0]


def _kernel_of_patches(x: Array, y: Array, *, pads: Pads) -> Array:
    shape = jax.ShapeDtypeStruct(_kernel_shape(x, y, pads), y.dtype)
    return jax.linear_transpose(lambda kernel: _of_patches(x, kernel, pads=pads), shape)(y)[0]


def _primitive(
    name: str, computed: Any, shape: Any, of_patches: Any, examples_first: bool
) -> Primitive:
    """One of the three, for one model.

    Of many kernels under `jax.vmap` it is a product of their patches: XLA's routine has one.
    """
    primitive = Primitive(name)

    def batched(arguments: Any, axes: Any, *, pads: Pads) -> tuple[Array, int]:
        (a, b), (first, second) = arguments, axes
        if second is None and examples_first:  # more examples
            a = jnp.moveaxis(a, first, 0)
            out = primitive.bind(a.reshape(-1, *a.shape[2:]), b, pads=pads)
            return out.reshape(*a.shape[:2], *out.shape[1:]), 0
        return jax.vmap(lambda a, b: of_patches(a, b, pads=pads), axes)(a, b), 0

    primitive.def_impl(jax.jit(computed, static_argnames="pads"))
    primitive.def_abstract_eval(
        lambda a, b, *, pads: a.update(shape=shape(a, b, pads), weak_type=False)
    )
    mlir.register_lowering(primitive, mlir.lower_fun(computed, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    return primitive


_outputs = _primitive("convolution", _convolved, _outputs_shape, _of_patches, True)
_inputs = _primitive("convolution_inputs", _of_inputs, _inputs_shape, _inputs_of_patches, True)
_kernel = _primitive("convolution_kernel", _of_kernel, _kernel_shape, _kernel_of_patches, False)
ad.defbilinear(
    _outputs,
    lambda y, x, kernel, *, pads: _inputs.bind(y, kernel, pads=pads),
    lambda y, x, kernel, *, pads: _kernel.bind(x, y, pads=pads),
)
ad.defbilinear(
    _inputs,
    lambda x, y, kernel, *, pads: _outputs.bind(x, kernel, pads=pads),
    lambda x, y, kernel, *, pads: _kernel.bind(x, y, pads=pads),
)
ad.defbilinear(
    _kernel,
    lambda kernel, x, y, *, pads: _inputs.bind(y, kernel, pads=pads),
    lambda kernel, x, y, *, pads: _outputs.bind(x, kernel, pads=pads),
)
