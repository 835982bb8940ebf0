"""The activation with a parameter of its own."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxdl.core.layer import Params, Stateless
from jaxdl.layers import arguments
from jaxdl.ops.floating import DType, widest
from jaxdl.ops.sharding import gathered


@dataclasses.dataclass(frozen=True)
class PReLU(Stateless):
    """y = x where x ≥ 0, else a · x, with one learned slope a a channel (He et al., 2015, equation
    1).

    Parameters: `negative_slope` [channels], or [] where `shared`.

    Args:
        negative_slope: the first a.
        shared: whether one slope serves all channels.
        param_dtype: of the stored parameter.
    """

    negative_slope: float = 0.25
    shared: bool = False
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        arguments.declared(self)

    def weights(self, key: Array, x: Any) -> Params:
        del key
        arguments.init_floating("PReLU", x)
        arguments.available("PReLU", "param_dtype", self.param_dtype)
        shape = () if self.shared else (arguments.features("PReLU", x),)
        return {"negative_slope": jnp.full(shape, self.negative_slope, self.param_dtype)}

    def forward(self, params: Params, x: Array) -> Array:
        x = arguments.floating("PReLU", x)
        arguments.parameters("PReLU", params, negative_slope=() if self.shared else (None,))
        wide = widest(x.dtype)  # in which the gradient of the slope is summed
        slope = gathered(jnp.asarray(params["negative_slope"], wide))
        if not self.shared:
            arguments.same_features("PReLU", x, slope.shape[0], "channels")
            slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x >= 0, x, (slope * x.astype(wide)).astype(x.dtype))
