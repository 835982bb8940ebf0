"""Combinators: layers that put other layers together."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal, overload

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.error import LayerError, located
from jaxdl.core.function import Function, as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, Stateless, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.representation import call_repr
from jaxdl.core.values import Value
from jaxdl.layers import arguments
from jaxdl.layers.wiring import Composite, Part, Wiring
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import alike


@dataclasses.dataclass(frozen=True)
class Tied(Value):
    """A part of a `Sequential` without parameters of its own: it uses those of an earlier part.

    Args:
        to: the name of the earlier part.
        use: `use(params, x) -> y`, what is computed with that part's parameters, or a layer that
            runs on them; None runs the part itself once more.

    >>> import jaxdl as dl
    >>> model = dl.Sequential(
    ...     embed=dl.Embedding(100, 16),
    ...     body=dl.Dense(16),
    ...     logits=dl.Tied("embed", lambda params, x: x @ params["embedding"].T),
    ... )
    """

    to: str
    use: Callable[[Params, Array], Any] | Layer | None = None

    def __repr__(self) -> str:
        return call_repr(self)


@dataclasses.dataclass(frozen=True)
class _Using(Stateless):
    use: Callable[[Params, Array], Any]

    def weights(self, key: Array, x: Any) -> Params:
        del key, x
        return {}

    def forward(self, params: Params, x: Any) -> Any:
        return self.use(params, x)

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        del state, span
        return self.use(params, x), cache


@dataclasses.dataclass(frozen=True, init=False)
class Sequential(Composite):
    """y = fₙ(… f₂(f₁(x))): parts one after another.

    Parts by position are named by their kind and count, `conv_0`, `conv_1`, `dense_0`, parts by
    keyword as the caller says. `model["conv_0"]` is a part and `model[:-1]` the model of all parts
    but the last, under the same names.

    Args:
        parts: layers, plain functions of one array, or `Tied`.
        named: more of them, by name; they follow those by position.

    Raises:
        TypeError: a part is none of these.
        LayerError: two parts have one name, or a part is tied to one that is not before it.
    """

    parts: tuple[tuple[str, Layer | Tied], ...]

    def __init__(self, *parts: Part | Tied, **named: Part | Tied) -> None:
        positional = name_parts(parts)
        pairs = positional + [
            (name, part if isinstance(part, Tied) else as_layer(part))
            for name, part in named.items()
        ]
        _check_names("Sequential", [name for name, _ in pairs])
        object.__setattr__(self, "parts", tuple(pairs))
        for index, (name, part) in enumerate(pairs):
            if isinstance(part, Tied) and part.to not in [
                other for other, layer in pairs[:index] if isinstance(layer, Layer)
            ]:
                raise LayerError(
                    "Sequential",
                    f"'{name}' is tied to '{part.to}', and no layer of that name stands before it.",
                )

    def wire(self, wiring: Wiring, x: Any) -> Any:
        layers = dict(self.parts)
        for name, part in self.parts:
            if isinstance(part, Tied):
                layer = layers[part.to] if part.use is None else part.use
                assert not isinstance(layer, Tied)
                layer = layer if isinstance(layer, Layer) else _Using(layer)
                x = wiring.part(name, layer, x, shares=part.to)
            else:
                x = wiring.part(name, part, x)
        return x

    def _groups(self) -> dict[str, int]:
        alike = {name: _identity(part) for name, part in self.parts if isinstance(part, Composite)}
        numbers = {value: number for number, value in enumerate(dict.fromkeys(alike.values()))}
        counts = Counter(alike.values())
        return {name: numbers[value] for name, value in alike.items() if counts[value] > 1}

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Layer | Tied]:
        return (part for _, part in self.parts)

    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    @overload
    def __getitem__(self, index: int | str) -> Layer | Tied: ...
    def __getitem__(self, index: int | str | slice) -> Any:
        if isinstance(index, slice):
            return Sequential(**dict(self.parts[index]))
        return dict(self.parts)[index] if isinstance(index, str) else self.parts[index][1]

    def __repr__(self) -> str:
        return f"Sequential({_parts_repr(self.parts)})"


@dataclasses.dataclass(frozen=True, init=False)
class Residual(Composite):
    """y = f(x) + s(x) (He et al., 2015, equations 1 and 2); parameters under `body` and `shortcut`.

    Args:
        body: f.
        shortcut: s; None is the identity.
    """

    body: Layer
    shortcut: Layer | None = None

    def __init__(self, body: Part, shortcut: Part | None = None) -> None:
        object.__setattr__(self, "body", as_layer(body))
        object.__setattr__(self, "shortcut", None if shortcut is None else as_layer(shortcut))

    def wire(self, wiring: Wiring, x: Any) -> Any:
        y = wiring.part("body", self.body, x)
        s = x if self.shortcut is None else wiring.part("shortcut", self.shortcut, x)
        for term in (y, s):
            arguments.array("Residual", term)
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
    """Several parts on the same input, their outputs put together; parameters by part, named as in
    `Sequential`.

    Args:
        parts, named: layers or plain functions of one array.
        combine: "concatenate" along `axis`, or "add".
        axis: the axis of concatenation; the last unless said otherwise.
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
        _check_names("Parallel", [name for name, _ in pairs])
        arguments.word("Parallel", "combine", combine, ("concatenate", "add"))
        arguments.axis("Parallel", axis)
        if not pairs:
            raise LayerError("Parallel", "expected at least one part.")
        object.__setattr__(self, "parts", tuple(pairs))
        object.__setattr__(self, "combine", combine)
        object.__setattr__(self, "axis", axis)

    def wire(self, wiring: Wiring, x: Any) -> Any:
        ys = [wiring.part(name, part, x) for name, part in self.parts]
        for y in ys:
            arguments.array("Parallel", y)
        shapes = [tuple(y.shape) for y in ys]
        if self.combine == "add":
            if len(set(shapes)) > 1:
                raise LayerError("Parallel", f"parts give shapes {shapes}, which cannot be added.")
            return wiring.math(_sum, *ys)
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
        return wiring.math(lambda *terms: jnp.concatenate(alike(terms), axis), *ys)

    def __repr__(self) -> str:
        options = "" if self.combine == "concatenate" else f", combine={self.combine!r}"
        axis = "" if self.axis == -1 else f", axis={self.axis}"
        return f"Parallel({_parts_repr(self.parts)}{options}{axis})"


@dataclasses.dataclass(frozen=True, init=False)
class Map(Layer):
    """One layer at every place along an axis, with one set of parameters: [batch, …, n, …] to
    [batch, …, n, …].

    The axis joins the batch while the layer runs, so that statistics over the batch are over all
    places, and each place draws a dropout mask of its own. Parameters and state are the layer's,
    under `body`.

    Args:
        body: the layer.
        axis: the axis it is mapped over, after the batch.
    """

    body: Layer
    axis: int = 1
    takes_bytes: ClassVar[bool] = True

    def __init__(self, body: Part, axis: int = 1) -> None:
        arguments.axis("Map", axis)
        if axis == 0:
            raise LayerError(
                "Map", "axis 0 is the batch, which every layer is mapped over already."
            )
        object.__setattr__(self, "body", as_layer(body))
        object.__setattr__(self, "axis", axis)

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        refuse_padded("Map", x)
        arguments.array("Map", x)
        merged = jax.eval_shape(self._merge, x)
        with located("body"):
            params, state = self.body.init(fold_in_name(key, "body"), merged)
        return {"body": params} if params else {}, {"body": state} if state else {}

    def apply(
        self, params: Params, state: State, x: Any, mode: Mode = Eval()
    ) -> tuple[Array, State]:
        refuse_padded("Map", x)
        arguments.array("Map", x)
        merged = self._merge(x)
        if isinstance(mode, Train) and mode.mask is not None:
            mode = mode.masked(jnp.repeat(mode.mask, merged.shape[0] // x.shape[0]))
        with located("body"):
            y, new = self.body.apply(
                params.get("body", {}), state.get("body", {}), merged, mode.within("body")
            )
        y = y.reshape(x.shape[0], x.shape[self.axis], *y.shape[1:])
        if not -y.ndim < self.axis < y.ndim:
            raise LayerError(
                "Map",
                f"the body gives shape {y.shape[2:]} at each place, which leaves no axis "
                f"{self.axis}.",
            )
        return jnp.moveaxis(y, 1, self.axis), {**state, "body": new} if new else state

    def _merge(self, x: Array) -> Array:
        if not -x.ndim < self.axis < x.ndim or self.axis == 0 or x.ndim < 2:
            raise LayerError(
                "Map", f"an input of shape {x.shape} has no axis {self.axis} after the batch."
            )
        moved = jnp.moveaxis(x, self.axis, 1)
        return moved.reshape(-1, *moved.shape[2:])


@dataclasses.dataclass(frozen=True, init=False)
class Frozen(Layer):
    """A layer that training leaves as it is: no gradient, no weight decay, no moving statistics, no
    dropout.

    Its parameters lie in `state`, under `params`, where no optimizer sees them; its own state under
    `state`. It runs as in evaluation. A mask of optax, such as `optax.partition` with
    `optax.set_to_zero`, leaves parameters as they are and nothing
    else: the part runs as in training, and the statistics of a `BatchNorm` move.

    Args:
        body: the layer.
    """

    body: Layer
    takes_bytes: ClassVar[bool] = True

    def __init__(self, body: Part) -> None:
        object.__setattr__(self, "body", as_layer(body))

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        params, state = self.body.init(key, x)
        return {}, {name: tree for name, tree in (("params", params), ("state", state)) if tree}

    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        del params, mode
        y, _ = self.body.apply(state.get("params", {}), state.get("state", {}), x, Eval().inside())
        return y, state

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        del params
        return self.body.extend(state.get("params", {}), state.get("state", {}), cache, x, span)


def _identity(part: Layer) -> Any:
    """Equal for layers that are traced alike; one that holds an array, as within a sweep, is like
    itself alone.
    """
    try:
        hash(part)
    except TypeError:
        return id(part)
    return part, repr(part)  # 2 == 2.0, and a layer may tell them apart


def _sum(*terms: Array) -> Array:
    """The sum, in the first term's dtype; of floating terms it is taken in at least float32."""
    first, *others = terms
    wide = widest(first.dtype) if jnp.issubdtype(first.dtype, jnp.floating) else first.dtype
    return sum((other.astype(wide) for other in others), first.astype(wide)).astype(first.dtype)


def name_parts(parts: Sequence[Part | Tied]) -> list[tuple[str, Any]]:
    """Names parts by kind and count: `conv_0`, `relu_0`, `conv_1`."""
    counts: dict[str, int] = {}
    named = []
    for part in parts:
        layer = part if isinstance(part, Tied) else as_layer(part)
        kind = layer.name if isinstance(layer, Function) else type(layer).__name__
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
        kind = re.sub(r"\W+", "", kind)
        counts[kind] = counts.get(kind, -1) + 1
        named.append((f"{kind}_{counts[kind]}", layer))
    return named


def _check_names(layer: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LayerError(
            layer, f"two parts are named '{twice[0]}' — give one of them another keyword."
        )


def _parts_repr(parts: Sequence[tuple[str, Any]]) -> str:
    """By position while the names are those that positions give, by keyword from the first that is
    not.
    """
    split = len(parts)
    while split and name_parts([part for _, part in parts[:split]]) != list(parts[:split]):
        split -= 1
    shown = [repr(part) for _, part in parts[:split]]
    return ", ".join(shown + [f"{name}={part!r}" for name, part in parts[split:]])
