"""The product of two matrices, laid out for XLA's fast products in populations."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from jaxdl.compiling.jitted import in_mapped, in_program
from jaxdl.ops.sharding import of_product


def product(
    a: Float[Array, "rows inner"], b: Float[Array, "inner columns"]
) -> Float[Array, "rows columns"]:
    """C = A B, by `lax.dot_general`, which every transformation, policy and sharding of JAX knows.

    What a population's step maps is a primitive of our own, whose gradients are products of the
    same kind, dA = dC Bᵀ and dB = Aᵀ dC, with the transposed matrix written out. The gradient of
    many pairs by B is then a product that XLA's CPU library has, where that of `dot_general`
    contracts the first axis of both and is left to a plain loop (64 products of 10×32 with 32×10:
    25 µs in place of 58); the barrier keeps XLA from undoing it.

    Args:
        a, b: of one dtype.
    """
    return _product.bind(a, b) if in_mapped() else _dot(a, b)


def along_last(
    x: Float[Array, "*batch inner"], b: Float[Array, "inner columns"]
) -> Float[Array, "*batch columns"]:
    """x B over the last axis of x.

    In jaxdl's own programs its rows lie in one axis, of which XLA on a CPU makes the gradient by B
    a tenth to a fifth faster. Elsewhere the other axes stay apart, since the second may lie over
    devices that would have to gather it.
    """
    if x.ndim == 2 or not in_program():
        return _dot(x, b)
    return product(x.reshape(-1, x.shape[-1]), b).reshape(*x.shape[:-1], b.shape[1])


def _dot(x: Array, b: Array) -> Array:
    return lax.dot_general(x, b, (((x.ndim - 1,), (0,)), ((), ())), out_sharding=of_product(x, b))


def _shape(a: Any, b: Any) -> Any:
    return a.update(shape=(a.shape[0], b.shape[1]), weak_type=False)


def _batched(arguments: Any, axes: tuple[int | None, int | None]) -> tuple[Array, int]:
    (a, b), (first, second) = arguments, axes
    if second is None:  # one product of all rows
        a = jnp.moveaxis(a, first or 0, 0)
        return _product.bind(a.reshape(-1, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[1]), 0
    if first is None:
        b = jnp.moveaxis(b, second, 1)
        return _product.bind(a, b.reshape(b.shape[0], -1)).reshape(a.shape[0], *b.shape[1:]), 1
    a, b = lax.optimization_barrier((jnp.moveaxis(a, first, 0), jnp.moveaxis(b, second, 0)))
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,)))), 0


_product = Primitive("product")
_product.def_impl(jax.jit(_dot))
_product.def_abstract_eval(_shape)
mlir.register_lowering(_product, mlir.lower_fun(_dot, multiple_results=False))
ad.defbilinear(
    _product,
    lambda cotangent, a, b: _product.bind(cotangent, b.T),
    lambda cotangent, a, b: _product.bind(a.T, cotangent),
)
batching.primitive_batchers[_product] = _batched
