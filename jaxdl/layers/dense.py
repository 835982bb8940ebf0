"""The fully connected layer, and the lookup of vectors by index."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.error import LayerError
from jaxdl.core.layer import OnPadded, Params, Stateless
from jaxdl.layers import arguments
from jaxdl.layers.initializers import Initializer, LecunNormal, Uniform, Zeros
from jaxdl.ops.floating import DType, widest
from jaxdl.ops.linear import linear
from jaxdl.ops.sharding import of_product

lecun_normal: Initializer = LecunNormal()
zeros: Initializer = Zeros()
embedding_uniform: Initializer = Uniform(0.05)


@dataclasses.dataclass(frozen=True)
class Dense(Stateless):
    """y = x W + b over the last axis: [batch, ..., inputs] to [batch, ..., features].

    Parameters: `kernel` [inputs, features], `bias` [features].

    Args:
        features: the number of outputs.
        use_bias: whether b is added.
        kernel_init, bias_init: from `dl.initializers`.
        dtype: of the computation; None computes in the input's own (uint8 is read as x / 255, in
            float32).
        param_dtype: of the stored parameters.
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "each step"

    def __post_init__(self) -> None:
        arguments.positive("Dense", features=self.features)
        arguments.declared(self)

    def weights(self, key: Array, x: Any) -> Params:
        inputs = arguments.features("Dense", x)
        arguments.init_floating("Dense", x, self.dtype)
        kernel_key, bias_key = jax.random.split(key)
        shape = (inputs, self.features)
        params = {
            "kernel": arguments.drawn(
                "Dense", "kernel_init", self.kernel_init, kernel_key, shape, self.param_dtype
            )
        }
        if self.use_bias:
            params["bias"] = arguments.drawn(
                "Dense", "bias_init", self.bias_init, bias_key, shape[1:], self.param_dtype
            )
        return params

    def forward(self, params: Params, x: Array) -> Array:
        arguments.parameters(
            "Dense",
            params,
            kernel=(None, self.features),
            bias=(self.features,) if self.use_bias else None,
        )
        arguments.same_features("Dense", x, params["kernel"].shape[0])
        bias = params["bias"] if self.use_bias else None
        return linear(arguments.floating("Dense", x, self.dtype), params["kernel"], bias)


@dataclasses.dataclass(frozen=True)
class Embedding(Stateless):
    """y[...] = E[x[...]]: a row of a matrix for each index, [batch, ...] to [batch, ..., features].

    Parameters: `embedding` [count, features]. An index that is not in 0 … count − 1 gives a row of
    NaN, which no loss overlooks.

    Args:
        count: the number of indices.
        features: the length of a row.
        embedding_init: from `dl.initializers`.
        dtype: of the output; None means that of the parameters.
        param_dtype: of the stored parameters.
    """

    count: int
    features: int
    embedding_init: Initializer = embedding_uniform
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "each step"
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.positive("Embedding", count=self.count, features=self.features)
        arguments.declared(self)

    def weights(self, key: Array, x: Any) -> Params:
        self._check(x)
        arguments.available("Embedding", "dtype", self.dtype)
        shape = (self.count, self.features)
        return {
            "embedding": arguments.drawn(
                "Embedding", "embedding_init", self.embedding_init, key, shape, self.param_dtype
            )
        }

    def forward(self, params: Params, x: Array) -> Array:
        self._check(x)
        arguments.parameters("Embedding", params, embedding=(self.count, self.features))
        rows = jnp.asarray(params["embedding"])
        rows = rows.astype(
            widest(rows.dtype)
        )  # in which the gradient adds up all that read one row
        x = (
            x if x.dtype.itemsize >= 4 else x.astype(jnp.int32)
        )  # the count itself may not fit a smaller dtype
        outside = x < 0  # a negative index would count from the end
        if x.dtype != jnp.int32:
            outside |= x >= self.count  # the lookup would wrap it to int32
        inside = jnp.where(outside, self.count, x).astype(jnp.int32)
        return (
            rows.at[inside]
            .get(mode="fill", fill_value=jnp.nan, out_sharding=of_product(inside[..., None], rows))
            .astype(params["embedding"].dtype if self.dtype is None else self.dtype)
        )

    def _check(self, x: Any) -> None:
        arguments.array("Embedding", x)
        if len(x.shape) < 1:
            raise LayerError("Embedding", "expected indices [batch, ...], got a scalar.")
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise LayerError("Embedding", f"expected indices of an integer dtype, got {x.dtype}.")
