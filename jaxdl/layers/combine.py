"""Combinators: layers that combine other layers."""

import dataclasses
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.layers import arguments, inputs
from jaxdl.layers.sequential import check_names, name_parts, parts_repr
from jaxdl.layers.wiring import Composite, Part, Wiring
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import match_shardings


@dataclasses.dataclass(frozen=True, init=False)
class Residual(Composite):
    """y = f(x) + s(x) (He et al., 2015, equations 1 and 2).

    Parameters: `body` and `shortcut`.

    Args:
        body: f.
        shortcut: s; None is the identity.

    Raises:
        TypeError: a part is neither a layer nor a plain function.
        LayerError: f(x) and s(x) have different shapes.
    """

    body: Layer
    shortcut: Layer | None = None

    def __init__(self, body: Part, shortcut: Part | None = None) -> None:
        object.__setattr__(self, "body", as_layer(body))
        object.__setattr__(self, "shortcut", None if shortcut is None else as_layer(shortcut))

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        y = wiring.part("body", self.body, x)
        s = x if self.shortcut is None else wiring.part("shortcut", self.shortcut, x)
        inputs.check_array("Residual", y)
        inputs.check_array("Residual", s)
        if y.shape != s.shape:
            raise LayerError(
                "Residual",
                f"the body gives shape {tuple(y.shape)} and the shortcut {tuple(s.shape)}, which "
                f"cannot be added — give a "
                "shortcut that maps one to the other, such as Conv(features, 1, stride).",
            )
        return wiring.math(_sum, y, s)


@dataclasses.dataclass(frozen=True, init=False)
class Parallel(Composite):
    """y = [f₁(x), f₂(x), …]: parts of the same input, whose outputs are concatenated or added.

    Parameters are by part, named as in `Sequential`.

    Args:
        parts, named: layers or plain functions of one array.
        combine: "concatenate" along `axis`, or "add".
        axis: the axis of concatenation, by default the last.

    Raises:
        TypeError: a part is neither a layer nor a plain function.
        LayerError: an argument is invalid, or the outputs cannot be combined.
    """

    parts: tuple[tuple[str, Layer], ...]
    combine: Literal["concatenate", "add"] = "concatenate"
    axis: int = -1

    def __init__(
        self,
        *parts: Part,
        combine: Literal["concatenate", "add"] = "concatenate",
        axis: int = -1,
        **named: Part,
    ) -> None:
        pairs = name_parts(parts) + [(name, as_layer(part)) for name, part in named.items()]
        check_names("Parallel", [name for name, _ in pairs])
        arguments.check_choice("Parallel", "combine", combine, ("concatenate", "add"))
        arguments.check_axis("Parallel", axis)
        if not pairs:
            raise LayerError("Parallel", "expected at least one part.")
        object.__setattr__(self, "parts", tuple(pairs))
        object.__setattr__(self, "combine", combine)
        object.__setattr__(self, "axis", axis)

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        ys = [wiring.part(name, part, x) for name, part in self.parts]
        for y in ys:
            inputs.check_array("Parallel", y)
        shapes = [tuple(y.shape) for y in ys]
        if self.combine == "concatenate":
            axis = self._resolve_axis(shapes)
            return wiring.math(
                lambda *terms: jnp.concatenate(match_shardings(terms), axis), *ys
            )
        if len(set(shapes)) > 1:
            raise LayerError("Parallel", f"parts give shapes {shapes}, which cannot be added.")
        return wiring.math(_sum, *ys)

    def _resolve_axis(self, shapes: list[tuple[int, ...]]) -> int:
        """The axis of concatenation, counted from the first."""
        rank = len(shapes[0])
        axis = self.axis + rank if self.axis < 0 else self.axis
        if not 0 < axis < rank:
            raise LayerError(
                "Parallel",
                f"parts give shapes {shapes}, which have no axis {self.axis} after the batch.",
            )
        if len({shape[:axis] + shape[axis + 1 :] for shape in shapes}) > 1:
            raise LayerError(
                "Parallel",
                f"parts give shapes {shapes}, which cannot be concatenated along axis {self.axis}.",
            )
        return axis

    def __repr__(self) -> str:
        options = "" if self.combine == "concatenate" else f", combine={self.combine!r}"
        axis = "" if self.axis == -1 else f", axis={self.axis}"
        return f"Parallel({parts_repr(self.parts)}{options}{axis})"


@dataclasses.dataclass(frozen=True, init=False)
class Map(Layer):
    """y[:, i] = f(x[:, i]): one layer mapped over an axis, with one set of parameters: [batch, …,
    n, …] to [batch, …, n, …].

    The axis is merged into the batch while the layer runs, so that statistics over the batch
    include it, and each element draws its own dropout mask. Parameters and state: `body`.

    Args:
        body: f.
        axis: the axis it is mapped over, after the batch.

    Raises:
        TypeError: the body is neither a layer nor a plain function.
        LayerError: the input or the output does not have the axis, or the input is `Padded`.
    """

    body: Layer
    axis: int = 1
    takes_bytes: ClassVar[bool] = True

    def __init__(self, body: Part, axis: int = 1) -> None:
        arguments.check_axis("Map", axis)
        if axis == 0:
            raise LayerError(
                "Map", "axis 0 is the batch, which every layer is mapped over already."
            )
        object.__setattr__(self, "body", as_layer(body))
        object.__setattr__(self, "axis", axis)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        _check_mapped(x)
        merged = jax.eval_shape(self._merge, x)
        with located("body"):
            params, state = self.body.init(fold_in_name(key, "body"), merged)
        return {"body": params} if params else {}, {"body": state} if state else {}

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[Array, State]:
        _check_mapped(x)
        merged = self._merge(x)
        if isinstance(mode, Train) and mode.mask is not None:
            mode = mode.with_mask(jnp.repeat(mode.mask, merged.shape[0] // x.shape[0]))
        with located("body"):
            y, new = self.body.apply(
                params.get("body", {}), state.get("body", {}), merged, mode.for_part("body")
            )
        y = y.reshape(x.shape[0], x.shape[self.axis], *y.shape[1:])
        if not -y.ndim < self.axis < y.ndim:
            raise LayerError(
                "Map",
                f"the body gives shape {y.shape[2:]} at each place, which leaves no axis "
                f"{self.axis}.",
            )
        if new:
            state = {**state, "body": new}
        return jnp.moveaxis(y, 1, self.axis), state

    def _merge(self, x: Array) -> Array:
        if not -x.ndim < self.axis < x.ndim or self.axis == 0 or x.ndim < 2:
            raise LayerError(
                "Map", f"an input of shape {x.shape} has no axis {self.axis} after the batch."
            )
        moved = jnp.moveaxis(x, self.axis, 1)
        return moved.reshape(-1, *moved.shape[2:])


def _check_mapped(x: PyTree) -> None:
    refuse_padded("Map", x)
    inputs.check_array("Map", x)


@dataclasses.dataclass(frozen=True, init=False)
class Frozen(Layer):
    """y = f(x) with a layer f that training does not change: no gradient, no weight decay, no
    running statistics, no dropout.

    It runs as in evaluation. State: `params`, its parameters, which no optimizer updates there, and
    `state`, its own state. With a mask of optax, such as `optax.partition` with
    `optax.set_to_zero`, only the parameters stay: the part runs as in training, and the statistics
    of a `BatchNorm` are updated.

    Args:
        body: f.

    Raises:
        TypeError: the body is neither a layer nor a plain function.
    """

    body: Layer
    takes_bytes: ClassVar[bool] = True

    def __init__(self, body: Part) -> None:
        object.__setattr__(self, "body", as_layer(body))

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        params, state = self.body.init(key, x)
        trees = {"params": params, "state": state}
        return {}, {name: tree for name, tree in trees.items() if tree}

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        del params, mode
        params = state.get("params", {})
        y, _ = self.body.apply(params, state.get("state", {}), x, Eval().nested())
        return y, state

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        del params
        return self.body.decode(state.get("params", {}), state.get("state", {}), cache, x, span)


def _sum(*terms: Array) -> Array:
    """The sum, in the first term's dtype; that of floating terms is taken in at least float32."""
    first, *others = terms
    is_floating = jnp.issubdtype(first.dtype, jnp.floating)
    wide = widest(first.dtype) if is_floating else first.dtype
    total = sum((other.astype(wide) for other in others), first.astype(wide))
    return total.astype(first.dtype)
