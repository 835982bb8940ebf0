"""Penalties of activations and of parameters, which training adds to the loss."""

import dataclasses
import fnmatch
from typing import ClassVar

import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import LOSSES, Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded
from jaxdl.core.tree import named_leaves
from jaxdl.layers import arguments
from jaxdl.layers.wiring import Part
from jaxdl.ops.floating import widest


@dataclasses.dataclass(frozen=True)
class ActivityPenalty(Layer):
    """y = x, of any shape; in training the loss of an example grows by l1 Σ|x| + l2 Σx² over its
    elements.

    The sums are taken in at least float32; of `Padded` sequences, over the steps before the end.

    Args:
        l1, l2: the weights of the sums.
        name: what the history calls the penalty; those of several layers are added up.

    Raises:
        LayerError: a weight is negative, or both are 0.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> x = jnp.array([[1.0, -2.0]])
    >>> _, state = dl.ActivityPenalty(l2=0.1).apply({}, {}, x, dl.Train(jax.random.key(0)))
    >>> state
    {'losses': {'activity': Array([0.5], dtype=float32)}}
    """

    l1: float | Array = 0.0
    l2: float | Array = 0.0
    name: str = "activity"

    def __post_init__(self) -> None:
        _check_weights("ActivityPenalty", self.l1, self.l2)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        del key, x
        return {}, {}

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        del params
        if not isinstance(mode, Train):
            return x, state
        values = x.values if isinstance(x, Padded) else x
        rows = values.reshape(values.shape[0], -1)
        return x, {LOSSES: {self.name: _penalty(rows, self.l1, self.l2, 1)}}

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        del params, state, span
        return x, cache


@dataclasses.dataclass(frozen=True, init=False)
class WeightPenalty(Layer):
    """y = f(x); in training the loss grows by l1 Σ|w| + l2 Σw² over the parameters w of f whose
    paths match a pattern.

    Decoupled decay (AdamW) shrinks parameters by the optimizer; this one is a part of the loss, as
    in Keras. Parameters and state: `body`.

    Args:
        body: f.
        l1, l2: the weights of the sums.
        pattern: of paths in f's parameters, such as "*kernel" or "dense_0.*"; `*` matches any
            letters, dots too.
        name: what the history calls the penalty; those of several layers are added up.

    Raises:
        LayerError: a weight is negative, both are 0, or no parameter matches.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.WeightPenalty(dl.Dense(2), l2=0.5)
    >>> params = {"body": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}
    >>> _, state = layer.apply(params, {}, jnp.ones((1, 3)), dl.Train(jax.random.key(0)))
    >>> state
    {'losses': {'weights': Array(3., dtype=float32)}}
    """

    body: Layer
    l1: float | Array = 0.0
    l2: float | Array = 0.0
    pattern: str = "*kernel"
    name: str = "weights"
    takes_bytes: ClassVar[bool] = True

    def __init__(
        self,
        body: Part,
        l1: float | Array = 0.0,
        l2: float | Array = 0.0,
        pattern: str = "*kernel",
        name: str = "weights",
    ) -> None:
        _check_weights("WeightPenalty", l1, l2)
        object.__setattr__(self, "body", as_layer(body))
        object.__setattr__(self, "l1", l1)
        object.__setattr__(self, "l2", l2)
        object.__setattr__(self, "pattern", pattern)
        object.__setattr__(self, "name", name)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        with located("body"):
            params, state = self.body.init(fold_in_name(key, "body"), x)
        self._matching(params)
        return _under_body(params), _under_body(state)

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        own = params.get("body", {})
        with located("body"):
            y, inner = self.body.apply(own, state.get("body", {}), x, mode.for_part("body"))
        if not isinstance(mode, Train):
            return y, state
        terms = [_penalty(leaf, self.l1, self.l2, 0) for leaf in self._matching(own)]
        return y, {**_under_body(inner), LOSSES: {self.name: jnp.stack(terms).sum()}}

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        return self.body.decode(params.get("body", {}), state.get("body", {}), cache, x, span)

    def _matching(self, params: Params) -> list[Array]:
        leaves = named_leaves(params)
        found = [leaf for path, leaf in leaves.items() if fnmatch.fnmatch(path, self.pattern)]
        if not found:
            known = ", ".join(leaves) or "none"
            raise LayerError(
                "WeightPenalty",
                f"no parameter matches {self.pattern!r}; those of its body are {known}.",
            )
        return found


def _check_weights(layer: str, l1: float | Array, l2: float | Array) -> None:
    arguments.check_non_negative(layer, l1=l1, l2=l2)
    if arguments.is_zero(l1) and arguments.is_zero(l2):
        raise LayerError(layer, "l1 and l2 are 0, so that it adds nothing — give one.")


def _penalty(x: Array, l1: float | Array, l2: float | Array, first: int) -> Array:
    """l1 Σ|x| + l2 Σx² over the axes from the first on, in at least float32."""
    x = x.astype(widest(x.dtype))
    axes = tuple(range(first, x.ndim))
    return l1 * jnp.abs(x).sum(axes) + l2 * jnp.square(x).sum(axes)


def _under_body(tree: Params) -> Params:
    return {"body": tree} if tree else {}
