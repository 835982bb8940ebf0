"""The rectifier with a learned slope."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.layer import Params, Stateless
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.ops.floating import DType, widest
from jaxdl.ops.sharding import gathered


@dataclasses.dataclass(frozen=True)
class PReLU(Stateless):
    """y = x where x ≥ 0, else a · x, with a learned slope a for each channel: [batch, ...,
    channels] to the same (He et al., 2015, equation 1).

    Parameters: `negative_slope` a [channels], or [] if `shared`.

    Args:
        negative_slope: the initial a.
        shared: whether all channels have one slope.
        param_dtype: of the stored parameter.

    Raises:
        LayerError: an argument is invalid, or an input has another number of channels than at init.
    """

    negative_slope: float = 0.25
    shared: bool = False
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        arguments.check_fields(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        del key
        inputs.check_floating("PReLU", x)
        arguments.check_enabled("PReLU", "param_dtype", self.param_dtype)
        shape = () if self.shared else (inputs.features("PReLU", x),)
        return {"negative_slope": jnp.full(shape, self.negative_slope, self.param_dtype)}

    def forward(self, params: Params, x: Array) -> Array:
        x = inputs.as_computed("PReLU", x)
        shape = () if self.shared else (None,)
        parameters.check_shapes("PReLU", params, negative_slope=shape)
        # The gradient of the slope is summed in the wide dtype.
        wide = widest(x.dtype)
        slope = gathered(jnp.asarray(params["negative_slope"], wide))
        if not self.shared:
            inputs.check_features("PReLU", x, slope.shape[0], "channels")
            slope = slope.reshape((1,) * (x.ndim - 1) + (-1,))
        return jnp.where(x >= 0, x, (slope * x.astype(wide)).astype(x.dtype))
