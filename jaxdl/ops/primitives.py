"""The custom primitives of jaxdl, each registered because JAX's own operations were measured slower
on a CPU.

- `batch_last`: `jax.vmap` puts its axis first, and XLA on a CPU vectorizes the last one. The
  optimizer's update of 64 matrices of 10×10 takes 8 µs with the matrices along the last axis, and
  54 µs with them along the first.
- `product`, where a population is traced: the gradient by B of many products contracts the first
  axis of both operands, which XLA's CPU library does not support. 64 products of 10×32 with 32×10
  take 25 µs in place of 58. Any other product is plain `lax.dot_general`.
- `native_conv`: XLA writes both gradients of a convolution as convolutions that its CPU library
  does not support (a reversed window, other orders of the axes), corrected only outside of loops
  (jax-ml/jax#12868). Inside of a compiled loop they take 8 to 20 times as long.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from jaxdl.compiling.target import target
from jaxdl.ops.floating import widest
from jaxdl.ops.patches import extract_patches
from jaxdl.ops.sharding import product_sharding
from jaxdl.ops.window import Pads, Sizes, layout, pad_space

MAX_ELEMENTS = 4096
"""Up to this size an array has its mapped axis last."""
MAX_PADDING = 1.5
"""The maximum number of positions of the input per position of the output, up to which a
convolution computes the input's gradient.
"""

Axes = Sequence[int | None]
Compute = Callable[..., Array]
Shape = tuple[int, ...]
Batched = tuple[Array, int]


def _define(
    name: str,
    compute: Compute,
    shape: Callable[..., Shape],
    batch: Callable[..., Batched],
    static: tuple[str, ...] = (),
) -> Primitive:
    """A primitive of two arrays of one dtype.

    Args:
        name: of the primitive.
        compute: `compute(a, b, **parameters)`, of JAX's operations, which it is lowered to.
        shape: `shape(a, b, **parameters)`, that of the result.
        batch: the rule for `jax.vmap`.
        static: the names of the parameters.
    """
    primitive = Primitive(name)

    def abstract(a: Any, b: Any, **parameters: Any) -> ShapedArray:
        return a.update(shape=shape(a, b, **parameters), weak_type=False)

    primitive.def_impl(jax.jit(compute, static_argnames=static))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[primitive] = batch
    return primitive


# The axis of `jax.vmap`, last.


def batch_last(x: Array) -> Array:
    """x; under `jax.vmap`, a small x has the mapped axis last."""
    return _batch_last.bind(x) if math.prod(x.shape) <= MAX_ELEMENTS else x


def _move_batch_last(arrays: Sequence[Array], axes: tuple[int]) -> Batched:
    (x,) = arrays
    (axis,) = axes
    return _batch_last.bind(jnp.moveaxis(x, axis, -1)), x.ndim - 1


_batch_last = Primitive("batch_last")
_batch_last.def_impl(lambda x: x)
_batch_last.def_abstract_eval(lambda x: x)
mlir.register_lowering(_batch_last, lambda context, x: [x])
ad.deflinear2(_batch_last, lambda cotangent, x: [_batch_last.bind(cotangent)])
batching.primitive_batchers[_batch_last] = _move_batch_last


# The product of two matrices.


def product(
    a: Float[Array, "rows inner"], b: Float[Array, "inner columns"]
) -> Float[Array, "rows columns"]:
    """C = A B, by `lax.dot_general`, which every transformation, policy and sharding of JAX
    supports.

    Where a population is traced it is a primitive, whose gradients are products of the same kind,
    dA = dC Bᵀ and dB = Aᵀ dC, with the transposed matrix written out.

    Args:
        a, b: of one dtype.
    """
    return _product.bind(a, b) if target().population else dot(a, b)


def dot(x: Array, b: Array) -> Array:
    """x B over the last axis of x."""
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    return lax.dot_general(x, b, dimensions, out_sharding=product_sharding(x, b))


def _product_shape(a: Any, b: Any) -> Shape:
    return a.shape[0], b.shape[1]


def _batch_product(arrays: Sequence[Array], axes: Axes) -> Batched:
    a, b = arrays
    first, second = axes
    if second is None:
        # One product of all rows.
        a = jnp.moveaxis(a, first or 0, 0)
        y = _product.bind(a.reshape(-1, a.shape[-1]), b)
        return y.reshape(*a.shape[:-1], b.shape[1]), 0
    if first is None:
        # One product with all columns.
        b = jnp.moveaxis(b, second, 1)
        y = _product.bind(a, b.reshape(b.shape[0], -1))
        return y.reshape(a.shape[0], *b.shape[1:]), 1
    # The barrier keeps XLA from merging a transposition into the product.
    a, b = lax.optimization_barrier((jnp.moveaxis(a, first, 0), jnp.moveaxis(b, second, 0)))
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,)))), 0


_product = _define("product", dot, _product_shape, _batch_product)
ad.defbilinear(
    _product,
    lambda cotangent, a, b: _product.bind(cotangent, b.T),
    lambda cotangent, a, b: _product.bind(a.T, cotangent),
)


# The convolution of XLA's CPU library.


def native_conv(x: Array, kernel: Array, pads: Pads) -> Array:
    """y[n, p, o] = Σ_{k,c} x[n, p + k − low, c] W[k, c, o], by the convolution of XLA's CPU
    library.

    Its gradients x̄ and W̄ are convolutions of the same kind, in a loop, too, since the kernel is
    reversed and the axes are moved before the call; none needs an array of the patches' size. The
    three are one form, linear in each of its three arrays: Σ x[n, p + k − low, c] W[k, c, o]
    y[n, p, o].

    Args:
        x: [batch, *space, inputs].
        kernel: [*window, inputs, outputs].
        pads: (low, high) for each spatial dimension.
    """
    return _conv.bind(x, kernel, pads=pads)


def patch_conv(x: Array, kernel: Array, stride: Sizes, pads: Pads, dilation: Sizes) -> Array:
    """A convolution as one product of all patches, [batch · out, window · inputs], with a matrix.

    Args:
        x: [batch, *space, inputs].
        kernel: [*window, inputs, outputs].
        stride, dilation: one for each spatial dimension.
        pads: (low, high) for each spatial dimension.
    """
    *window, _, outputs = kernel.shape
    # The gradients of all overlapping patches are summed in the wide dtype.
    padded = pad_space(x.astype(widest(x.dtype)), pads, 0)
    patches = extract_patches(padded, tuple(window), stride, dilation).astype(x.dtype)
    # A product of two matrices is XLA's fastest.
    y = product(patches.reshape(-1, patches.shape[-1]), kernel.reshape(-1, outputs))
    return y.reshape(*patches.shape[:-1], outputs)


def conv_output_shape(x: Any, kernel: Any, pads: Pads) -> Shape:
    """The shape of `native_conv`."""
    sizes = zip(x.shape[1:-1], kernel.shape[:-2], pads, strict=True)
    space = [n + sum(both) - k + 1 for n, k, both in sizes]
    return x.shape[0], *space, kernel.shape[-1]


def _conv_input_shape(y: Any, kernel: Any, pads: Pads) -> Shape:
    sizes = zip(y.shape[1:-1], kernel.shape[:-2], pads, strict=True)
    space = [out + k - 1 - sum(both) for out, k, both in sizes]
    return y.shape[0], *space, kernel.shape[-2]


def _conv_kernel_shape(x: Any, y: Any, pads: Pads) -> Shape:
    sizes = zip(x.shape[1:-1], y.shape[1:-1], pads, strict=True)
    window = [n + sum(both) - out + 1 for n, out, both in sizes]
    return *window, x.shape[-1], y.shape[-1]


def _compute_output(x: Array, kernel: Array, *, pads: Pads) -> Array:
    ones = (1,) * (x.ndim - 2)
    return lax.conv_general_dilated(x, kernel, ones, pads, dimension_numbers=layout(x.ndim - 2))


def _compute_input(y: Array, kernel: Array, *, pads: Pads) -> Array:
    """A convolution of y, padded so that each input meets the whole window; or, if it would mostly
    compute padding, a product of patches.
    """
    window = kernel.shape[:-2]
    space = _conv_input_shape(y, kernel, pads)[1:-1]
    if math.prod(space) > MAX_PADDING * math.prod(y.shape[1:-1]):
        return _input_of_patches(y, kernel, pads=pads)
    reversed_kernel = jnp.flip(kernel, range(len(window))).swapaxes(-1, -2)
    pairs = zip(window, pads, strict=True)
    rest = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in pairs)
    return _compute_output(y, reversed_kernel, pads=rest)


def _compute_kernel(x: Array, y: Array, *, pads: Pads) -> Array:
    """A convolution with the channels as examples, and the outputs' gradient as the kernel."""
    moved = jnp.moveaxis(y, 0, -2)
    return jnp.moveaxis(_compute_output(x.swapaxes(0, -1), moved, pads=pads), 0, -2)


def _output_of_patches(x: Array, kernel: Array, *, pads: Pads) -> Array:
    ones = (1,) * len(pads)
    return patch_conv(x, kernel, ones, pads, ones)


def _input_of_patches(y: Array, kernel: Array, *, pads: Pads) -> Array:
    shape = jax.ShapeDtypeStruct(_conv_input_shape(y, kernel, pads), y.dtype)
    transposed = jax.linear_transpose(lambda x: _output_of_patches(x, kernel, pads=pads), shape)
    return transposed(y)[0]


def _kernel_of_patches(x: Array, y: Array, *, pads: Pads) -> Array:
    shape = jax.ShapeDtypeStruct(_conv_kernel_shape(x, y, pads), y.dtype)
    transposed = jax.linear_transpose(
        lambda kernel: _output_of_patches(x, kernel, pads=pads), shape
    )
    return transposed(y)[0]


def _batch_examples(primitive: Primitive, a: Array, axis: int, b: Array, pads: Pads) -> Batched:
    """Many batches of examples with one kernel: one larger batch."""
    a = jnp.moveaxis(a, axis, 0)
    y = primitive.bind(a.reshape(-1, *a.shape[2:]), b, pads=pads)
    return y.reshape(*a.shape[:2], *y.shape[1:]), 0


def _batch_kernels(
    of_patches: Compute, arrays: Sequence[Array], axes: Axes, pads: Pads
) -> Batched:
    """Many kernels: a product of their patches, since XLA's library has one kernel."""
    return jax.vmap(lambda a, b: of_patches(a, b, pads=pads), tuple(axes))(*arrays), 0


def _batch_output(arrays: Sequence[Array], axes: Axes, *, pads: Pads) -> Batched:
    if axes[0] is not None and axes[1] is None:
        return _batch_examples(_conv, arrays[0], axes[0], arrays[1], pads)
    return _batch_kernels(_output_of_patches, arrays, axes, pads)


def _batch_input(arrays: Sequence[Array], axes: Axes, *, pads: Pads) -> Batched:
    if axes[0] is not None and axes[1] is None:
        return _batch_examples(_conv_input, arrays[0], axes[0], arrays[1], pads)
    return _batch_kernels(_input_of_patches, arrays, axes, pads)


def _batch_kernel(arrays: Sequence[Array], axes: Axes, *, pads: Pads) -> Batched:
    return _batch_kernels(_kernel_of_patches, arrays, axes, pads)


_conv = _define("convolution", _compute_output, conv_output_shape, _batch_output, ("pads",))
_conv_input = _define(
    "convolution_inputs", _compute_input, _conv_input_shape, _batch_input, ("pads",)
)
_conv_kernel = _define(
    "convolution_kernel", _compute_kernel, _conv_kernel_shape, _batch_kernel, ("pads",)
)
ad.defbilinear(
    _conv,
    lambda y, x, kernel, *, pads: _conv_input.bind(y, kernel, pads=pads),
    lambda y, x, kernel, *, pads: _conv_kernel.bind(x, y, pads=pads),
)
ad.defbilinear(
    _conv_input,
    lambda x, y, kernel, *, pads: _conv.bind(x, kernel, pads=pads),
    lambda x, y, kernel, *, pads: _conv_kernel.bind(x, y, pads=pads),
)
ad.defbilinear(
    _conv_kernel,
    lambda kernel, x, y, *, pads: _conv_input.bind(y, kernel, pads=pads),
    lambda kernel, x, y, *, pads: _conv.bind(x, kernel, pads=pads),
)
