"""Activation functions: those of `jax.nn`, and the step. Each is a layer where one is expected.

A function with arguments is bound by `functools.partial`: `partial(leaky_relu,
negative_slope=0.2)`.
"""

from jax import Array
from jax.nn import celu as celu
from jax.nn import elu as elu
from jax.nn import gelu as gelu
from jax.nn import glu as glu
from jax.nn import hard_sigmoid as hard_sigmoid
from jax.nn import hard_swish as hard_swish
from jax.nn import leaky_relu as leaky_relu
from jax.nn import log_sigmoid as log_sigmoid
from jax.nn import log_softmax as log_softmax
from jax.nn import mish as mish
from jax.nn import relu as relu
from jax.nn import relu6 as relu6
from jax.nn import selu as selu
from jax.nn import sigmoid as sigmoid
from jax.nn import silu as silu
from jax.nn import soft_sign as soft_sign
from jax.nn import softmax as softmax
from jax.nn import softplus as softplus
from jax.nn import tanh as tanh
from jaxtyping import Float


def step(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """y = 1 where x ≥ 0, else 0: the threshold of Rosenblatt, 1958.

    Its gradient is zero everywhere, so that no layer before it learns.

    Args:
        x: of any shape.
    """
    return (x >= 0).astype(x.dtype)


POINTWISE = (
    celu,
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_sign,
    softmax,
    softplus,
    tanh,
    step,
)
"""The functions that compute each element, or each row of the last axis, alone: all of them."""
