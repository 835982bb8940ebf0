"""The fully connected layer, and the lookup of vectors by index."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import OnPadded, Params, Stateless
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.initializers import Initializer, LecunNormal, Uniform, Zeros
from jaxdl.ops.floating import DType, widest
from jaxdl.ops.linear import linear
from jaxdl.ops.sharding import product_sharding

lecun_normal: Initializer = LecunNormal()
zeros: Initializer = Zeros()
embedding_uniform: Initializer = Uniform(0.05)


@dataclasses.dataclass(frozen=True)
class Dense(Stateless):
    """y = x W + b over the last axis: [batch, ..., inputs] to [batch, ..., features].

    Parameters: `kernel` W [inputs, features], `bias` b [features].

    Args:
        features: the number of outputs.
        use_bias: whether b is added.
        kernel_init, bias_init: from `dl.initializers`.
        dtype: of the computation; None is the input's own (uint8 is scaled to x / 255, in
            float32).
        param_dtype: of the stored parameters.

    Raises:
        LayerError: an argument is invalid, or an input has another number of features than at init.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.Dense(3)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> layer.apply(params, state, jnp.ones((2, 4)))[0].shape
    (2, 3)
    """

    features: int
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "pointwise"

    def __post_init__(self) -> None:
        arguments.check_positive("Dense", features=self.features)
        arguments.check_fields(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        in_features = inputs.features("Dense", x)
        inputs.check_floating("Dense", x, self.dtype)
        return parameters.draw_affine(self, key, (in_features, self.features))

    def forward(self, params: Params, x: Array) -> Array:
        bias_shape = (self.features,) if self.use_bias else None
        parameters.check_shapes("Dense", params, kernel=(None, self.features), bias=bias_shape)
        inputs.check_features("Dense", x, params["kernel"].shape[0])
        bias = params["bias"] if self.use_bias else None
        return linear(inputs.as_computed("Dense", x, self.dtype), params["kernel"], bias)


@dataclasses.dataclass(frozen=True)
class Embedding(Stateless):
    """y[...] = E[x[...]]: a row of a matrix for each index, [batch, ...] to [batch, ..., features].

    Parameters: `embedding` E [count, features]. An index outside of 0 … count − 1 gives a row of
    NaN, so that the loss is NaN, too.

    Args:
        count: the number of indices.
        features: the size of a row.
        embedding_init: from `dl.initializers`.
        dtype: of the output; None is that of the parameters.
        param_dtype: of the stored parameters.

    Raises:
        LayerError: an argument is invalid, or the input is not of an integer dtype.
    """

    count: int
    features: int
    embedding_init: Initializer = embedding_uniform
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "pointwise"
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.check_positive("Embedding", count=self.count, features=self.features)
        arguments.check_fields(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        self._check(x)
        arguments.check_enabled("Embedding", "dtype", self.dtype)
        shape = (self.count, self.features)
        embedding = parameters.draw(
            "Embedding", "embedding_init", self.embedding_init, key, shape, self.param_dtype
        )
        return {"embedding": embedding}

    def forward(self, params: Params, x: Array) -> Array:
        self._check(x)
        parameters.check_shapes("Embedding", params, embedding=(self.count, self.features))
        rows = jnp.asarray(params["embedding"])
        dtype = rows.dtype if self.dtype is None else self.dtype
        # The gradients of all lookups of one row are summed in the wide dtype.
        rows = rows.astype(widest(rows.dtype))
        index = self._index(x)
        sharding = product_sharding(index[..., None], rows)
        y = rows.at[index].get(mode="fill", fill_value=jnp.nan, out_sharding=sharding)
        return y.astype(dtype)

    def _index(self, x: Array) -> Array:
        """The indices in int32; those outside are count, which is filled with NaN."""
        # The count itself may not fit a smaller dtype.
        if x.dtype.itemsize < 4:
            x = x.astype(jnp.int32)
        # A negative index would count from the end.
        is_outside = x < 0
        # The lookup would wrap larger integers to int32.
        if x.dtype != jnp.int32:
            is_outside |= x >= self.count
        return jnp.where(is_outside, self.count, x).astype(jnp.int32)

    def _check(self, x: PyTree) -> None:
        inputs.check_array("Embedding", x)
        if len(x.shape) < 1:
            raise LayerError("Embedding", "expected indices [batch, ...], got a scalar.")
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise LayerError(
                "Embedding", f"expected indices of an integer dtype, got {x.dtype}."
            )
