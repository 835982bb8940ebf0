"""Sequences of which a mask leaves out steps anywhere."""

import dataclasses

import jax.numpy as jnp
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.core.padded import Padded, is_padded
from jaxdl.layers import inputs
from jaxdl.layers.wiring import Composite, Part, Wiring


@dataclasses.dataclass(frozen=True, init=False)
class Masked(Composite):
    """y = f(x without the steps that a mask leaves out): (sequences [batch, time, ...], mask
    [batch, time]) to [batch, time, ...], or what f makes of whole sequences.

    The steps that count are moved together, and f reads them as `Padded`: a recurrent layer keeps
    its state over the steps between them, as Keras's do, and attention does not see those. Outputs
    of steps that are left out are zeros. The layers of a model that need the mask all go into one
    `Masked`, as one `Sequential`. Where steps are missing only at the ends, `Padded` says the same
    and costs less. Positions (`SinusoidalPositions`, rotary ones) are those after the steps have
    been moved together.

    Parameters: `body`.

    Args:
        body: f, a layer that reads `Padded` sequences.

    Raises:
        TypeError: the body is neither a layer nor a plain function.
        LayerError: the input is neither a pair (sequences, mask), whose mask is bool [batch, time],
            nor sequences, of which all steps count.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.Masked(dl.GRU(4, sequence=False))
    >>> x = jnp.ones((1, 3, 2))
    >>> mask = jnp.array([[True, False, True]])
    >>> params, state = layer.init(jax.random.key(0), (x, mask))
    >>> y, _ = layer.apply(params, state, (x, mask))
    >>> bool(jnp.allclose(y, layer.apply(params, state, x[:, :2])[0]))
    True
    """

    body: Layer

    def __init__(self, body: Part) -> None:
        object.__setattr__(self, "body", as_layer(body))

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        if not isinstance(x, tuple):
            return wiring.part("body", self.body, x)
        values, mask = _parts(x)
        y = wiring.part("body", self.body, wiring.run_math(_compact, values, mask))
        if not is_padded(y):
            return y
        if y.shape[1] != mask.shape[1]:
            raise LayerError(
                "Masked",
                f"the body makes sequences of {y.shape[1]} steps of those of {mask.shape[1]}, "
                f"which have no place in the mask.",
            )
        return wiring.run_math(lambda y, mask: ops.recurrent.spread(y.values, mask), y, mask)


def _parts(x: tuple[PyTree, ...]) -> tuple[PyTree, PyTree]:
    """The sequences and the mask."""
    is_pair = len(x) == 2 and all(hasattr(part, "shape") for part in x)
    if not is_pair or is_padded(x[0]):
        raise LayerError(
            "Masked",
            f"the input is a pair (sequences, mask) of arrays, or sequences alone, got "
            f"{', '.join(map(inputs.describe_shape, x))}.",
        )
    values, mask = x
    if mask.dtype != jnp.bool_ or tuple(mask.shape) != tuple(values.shape[:2]):
        raise LayerError(
            "Masked",
            f"the mask is bool [batch, time], one entry for each step of sequences of shape "
            f"{tuple(values.shape)}, got {mask.dtype}{list(mask.shape)}.",
        )
    return values, mask


def _compact(values: Array, mask: Array) -> Padded:
    lengths = mask.sum(1, dtype=jnp.int32)
    return Padded(ops.recurrent.compact(values, mask), lengths).with_zero_padding()
