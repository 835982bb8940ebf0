"""Layers one after another, and the names of parts."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import overload

from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.function import Function, as_layer
from jaxdl.core.layer import Cache, Layer, Params, Span, State, Stateless
from jaxdl.core.number import is_hashable
from jaxdl.core.representation import call_repr
from jaxdl.core.values import Value
from jaxdl.layers.wiring import Composite, Part, Wiring


@dataclasses.dataclass(frozen=True)
class Tied(Value):
    """A part of a `Sequential` that shares the parameters of an earlier part.

    Args:
        to: the name of the earlier part.
        use: `use(params, x) -> y`, a function of that part's parameters, or a layer that runs on
            them; None runs the part itself once more.

    >>> import jaxdl as dl
    >>> model = dl.Sequential(
    ...     embed=dl.Embedding(100, 16),
    ...     body=dl.Dense(16),
    ...     logits=dl.Tied("embed", lambda params, x: x @ params["embedding"].T),
    ... )
    """

    to: str
    use: Callable[[Params, Array], PyTree] | Layer | None = None

    def __repr__(self) -> str:
        return call_repr(self)


@dataclasses.dataclass(frozen=True)
class _Shared(Stateless):
    """A function of the parameters of another part."""

    use: Callable[[Params, Array], PyTree]

    def weights(self, key: Array, x: PyTree) -> Params:
        del key, x
        return {}

    def forward(self, params: Params, x: PyTree) -> PyTree:
        return self.use(params, x)

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        del state, span
        return self.use(params, x), cache


@dataclasses.dataclass(frozen=True, init=False)
class Sequential(Composite):
    """y = fₙ(… f₂(f₁(x))): the composition of parts.

    Positional parts are named by their kind and count, `conv_0`, `conv_1`, `dense_0`, others by
    keyword. `model["conv_0"]` is a part, and `model[:-1]` the model of all parts but the last, with
    the same names.

    Args:
        parts: layers, plain functions of one array, or `Tied`.
        named: more of them, by name, after the positional ones.

    Raises:
        TypeError: a part is none of these.
        LayerError: two parts have the same name, or a part is tied to one that is not before it.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = dl.Sequential(dl.Dense(16), jax.nn.relu, logits=dl.Dense(10))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> sorted(params)
    ['dense_0', 'logits']
    """

    parts: tuple[tuple[str, Layer | Tied], ...]

    def __init__(self, *parts: Part | Tied, **named: Part | Tied) -> None:
        pairs = name_parts(parts) + [(name, _as_part(part)) for name, part in named.items()]
        check_names("Sequential", [name for name, _ in pairs])
        object.__setattr__(self, "parts", tuple(pairs))
        layers: set[str] = set()
        for name, part in pairs:
            if isinstance(part, Layer):
                layers.add(name)
            elif part.to not in layers:
                raise LayerError(
                    "Sequential",
                    f"'{name}' is tied to '{part.to}', and no layer of that name stands before it.",
                )

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        for name, part in self.parts:
            if isinstance(part, Tied):
                x = wiring.part(name, self._resolve(part), x, shares=part.to)
            else:
                x = wiring.part(name, part, x)
        return x

    def _resolve(self, tied: Tied) -> Layer:
        """The layer that runs on the parameters of another part."""
        layer = dict(self.parts)[tied.to] if tied.use is None else tied.use
        assert not isinstance(layer, Tied)
        return layer if isinstance(layer, Layer) else _Shared(layer)

    def _groups(self) -> dict[str, int]:
        keys = {
            name: _trace_key(part) for name, part in self.parts if isinstance(part, Composite)
        }
        counts = Counter(keys.values())
        groups = {key: index for index, key in enumerate(counts)}
        return {name: groups[key] for name, key in keys.items() if counts[key] > 1}

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Layer | Tied]:
        return (part for _, part in self.parts)

    @overload
    def __getitem__(self, index: slice) -> "Sequential": ...
    @overload
    def __getitem__(self, index: int | str) -> Layer | Tied: ...
    def __getitem__(self, index: int | str | slice) -> "Sequential | Layer | Tied":
        if isinstance(index, slice):
            return Sequential(**dict(self.parts[index]))
        if isinstance(index, str):
            return dict(self.parts)[index]
        return self.parts[index][1]

    def __repr__(self) -> str:
        return f"Sequential({parts_repr(self.parts)})"


def _trace_key(part: Layer) -> Hashable:
    """A key that is equal for layers that have the same trace; a layer that holds a tracer, as in a
    sweep, equals only itself.
    """
    if not is_hashable(part):
        return id(part)
    # 2 == 2.0, and a layer may distinguish them.
    return part, repr(part)


@overload
def _as_part(part: Tied) -> Tied: ...


@overload
def _as_part(part: Part) -> Layer: ...


def _as_part(part: Part | Tied) -> Layer | Tied:
    return part if isinstance(part, Tied) else as_layer(part)


def name_parts(parts: Sequence[Part | Tied]) -> list[tuple[str, Layer | Tied]]:
    """Names parts by kind and count: `conv_0`, `relu_0`, `conv_1`."""
    counts: dict[str, int] = {}
    named: list[tuple[str, Layer | Tied]] = []
    for part in parts:
        layer = _as_part(part)
        kind = _kind(layer)
        counts[kind] = counts.get(kind, -1) + 1
        named.append((f"{kind}_{counts[kind]}", layer))
    return named


def _kind(layer: Layer | Tied) -> str:
    """The name of a layer's type or function, in snake case."""
    name = layer.name if isinstance(layer, Function) else type(layer).__name__
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return re.sub(r"\W+", "", name)


def check_names(layer: str, names: list[str]) -> None:
    """Checks that the names of parts are different."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise LayerError(
            layer, f"two parts are named '{repeated[0]}' — give one of them another keyword."
        )


def parts_repr(parts: Sequence[tuple[str, Layer | Tied]]) -> str:
    """By position while the names are the default ones, and by keyword from the first that is
    not.
    """
    split = len(parts)
    while split and name_parts([part for _, part in parts[:split]]) != list(parts[:split]):
        split -= 1
    positional = [repr(part) for _, part in parts[:split]]
    named = [f"{name}={part!r}" for name, part in parts[split:]]
    return ", ".join(positional + named)
