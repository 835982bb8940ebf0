"""Layers made of layers: a composite says once how data flows, and init, apply and summary follow
from it.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, TypeGuard, final

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxdl.compiling.jitted import in_program
from jaxdl.core.entry import as_intensities
from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, Stateless
from jaxdl.core.mode import Eval, Mode
from jaxdl.core.padded import over_values
from jaxdl.core.tree import frozen_shapes, shapes

Part = Layer | Callable[[Any], Any]


class Wiring(abc.ABC):
    """What a composite's `wire` is given: it runs parts and plain functions, in init on shapes
    alone.
    """

    @final
    def part(self, name: str, layer: Part, x: Any, shares: str | None = None) -> Any:
        """Runs the part of that name, a layer or a plain function, on its own parameters or on
        those of the part `shares`.
        """
        return self.run_part(name, as_layer(layer), x, shares)

    @final
    def math(self, function: Callable[..., Any], *xs: Any) -> Any:
        """Runs a plain function of arrays, such as the sum that ends a residual block; of `Padded`,
        on their values.

        Images in uint8 come as x / 255, in the dtype of the first array in floats.
        """
        return self.run_math(functools.partial(_of_values, function), *xs)

    @abc.abstractmethod
    def run_part(self, name: str, layer: Layer, x: Any, shares: str | None) -> Any:
        """What `part` does with a layer."""

    @abc.abstractmethod
    def run_math(self, function: Callable[..., Any], *xs: Any) -> Any:
        """What `math` does with a function that takes xs as they are."""


def _of_values(function: Callable[..., Any], *xs: Any) -> Any:
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(xs) if hasattr(leaf, "dtype")]
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return over_values(function, *as_intensities(xs, floating[0] if floating else None))


class Composite(Layer):
    """A layer made of other layers. A subclass is a frozen dataclass that writes `wire` alone.

    Parameters and state are dicts by part; a part that has none leaves no key. Keys are folded in
    by the part's name.

    >>> import dataclasses, jax, jax.numpy as jnp, jaxdl as dl
    >>> @dataclasses.dataclass(frozen=True)
    ... class Gated(dl.Composite):
    ...     features: int
    ...     def wire(self, wiring, x):
    ...         gate = wiring.part("gate", dl.Dense(self.features), x)
    ...         value = wiring.part("value", dl.Dense(self.features), x)
    ...         return wiring.math(lambda g, v: jax.nn.sigmoid(g) * v, gate, value)
    >>> params, state = Gated(4).init(jax.random.key(0), jnp.ones((1, 3)))
    >>> sorted(params)
    ['gate', 'value']
    """

    takes_bytes: ClassVar[bool] = True

    @abc.abstractmethod
    def wire(self, wiring: Wiring, x: Any) -> Any:
        """The data flow: calls `wiring.part` and `wiring.math`, and returns what comes out."""

    def _groups(self) -> dict[str, int]:
        """A number for equal layers that stand in several places, by their names: a program traces
        them once.
        """
        return {}

    @final
    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        return self._init(key, x)[:2]

    @final
    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        wiring = _Apply(params, dict(state), mode, self._groups() if in_program() else {})
        return self.wire(wiring, x), wiring.state

    def _init(self, key: Array, x: Any) -> tuple[Params, State, Any]:
        """The first parameters and state, and the shapes of what comes out."""
        wiring = _Init(key, self._groups() if isinstance(key, Tracer) else {})
        try:
            y = self.wire(wiring, shapes(x))
        except (AttributeError, TypeError) as error:
            if "ShapeDtypeStruct" not in str(error):
                raise
            raise LayerError(
                type(self).__name__,
                f"wire computes with arrays itself, and init runs it on their shapes alone "
                f"({error}) — put mathematics into "
                "wiring.math(function, *arrays).",
            ) from error
        if y is None:
            raise LayerError(
                type(self).__name__, "wire gives None — it returns what comes out of the last part."
            )
        return wiring.params, wiring.state, y

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        wiring = _Extend(params, state, dict(cache), span)
        return self.wire(wiring, x), wiring.cache


def _is_its_wiring(layer: Layer) -> TypeGuard[Composite]:
    kind = type(layer)
    return isinstance(layer, Composite) and (kind.init, kind.apply) == (
        Composite.init,
        Composite.apply,
    )


class _Drawn:
    """The first parameters of a layer that stands in several places, traced once for all with
    inputs of these shapes.
    """

    def __init__(self, layer: Layer, x: Any) -> None:
        self.shapes, self.out = frozen_shapes(x), []

        def draw(key: Array) -> tuple[Params, State]:
            params, state, *self.out = _first(layer, key, x)
            return params, state

        self.draw = jax.jit(draw)

    def __call__(self, key: Array) -> tuple[Any, ...]:
        return *self.draw(key), *self.out


def _first(layer: Layer, key: Array, x: Any) -> tuple[Any, ...]:
    """A part's parameters and state, and of a composite the shapes of what comes out, which it
    knows by then.
    """
    return layer._init(key, x) if _is_its_wiring(layer) else layer.init(key, x)


class _Init(Wiring):
    def __init__(self, key: Array, groups: dict[str, int]) -> None:
        self.key, self.params, self.state = key, {}, {}
        self.names, self.owners = set[str](), set[str]()
        self.groups, self.drawn = groups, dict[int, _Drawn]()

    def run_part(self, name: str, layer: Layer, x: Any, shares: str | None) -> Any:
        owner = shares or name
        with located(name):
            self._check(name, type(layer).__name__, shares)
            if shares is None:
                key = fold_in_name(self.key, name)
                params, state, *out = self._first(name, layer, key, x)
                self.params.update({name: params} if params else {})
                self.state.update({name: state} if state else {})
                if out:
                    return out[0]
            params, state = self.params.get(owner, {}), self.state.get(owner, {})
            return jax.eval_shape(lambda p, s, v: layer.apply(p, s, v, Eval())[0], params, state, x)

    def _first(self, name: str, layer: Layer, key: Array, x: Any) -> tuple[Any, ...]:
        if name not in self.groups:
            return _first(layer, key, x)
        number = self.groups[name]
        if number not in self.drawn:
            self.drawn[number] = _Drawn(layer, x)
        drawn = self.drawn[number]
        return drawn(key) if drawn.shapes == frozen_shapes(x) else _first(layer, key, x)

    def run_math(self, function: Callable[..., Any], *xs: Any) -> Any:
        return jax.eval_shape(function, *xs)

    def _check(self, name: str, kind: str, shares: str | None) -> None:
        if name in self.names:
            raise LayerError(
                kind,
                f"another part has this name — choose one, or say shares='{name}' to use its "
                f"parameters again.",
            )
        if shares is not None and shares not in self.owners:
            raise LayerError(
                kind,
                f"it uses the parameters of '{shares}', and no part of that name with its own has "
                f"run before.",
            )
        self.names.add(name)
        if shares is None:
            self.owners.add(name)


@dataclasses.dataclass
class _Apply(Wiring):
    params: Params
    state: State
    mode: Mode
    groups: dict[str, int]
    traced: dict[int, Callable[..., Any]] = dataclasses.field(default_factory=dict)

    def run_part(self, name: str, layer: Layer, x: Any, shares: str | None) -> Any:
        owner = shares or name
        mode = self.mode if isinstance(layer, Stateless) else self.mode.within(name)
        with located(name):
            y, state = self._applied(name, layer)(
                self.params.get(owner, {}), self.state.get(owner, {}), x, mode
            )
        if state:
            self.state[owner] = state
        return y

    def _applied(self, name: str, layer: Layer) -> Callable[..., Any]:
        """Its `apply`; of a group, one that JAX traces at the first part and knows at the
        others.
        """
        if name not in self.groups:
            return layer.apply
        return self.traced.setdefault(
            self.groups[name], jax.jit(lambda *arguments: layer.apply(*arguments))
        )

    def run_math(self, function: Callable[..., Any], *xs: Any) -> Any:
        return function(*xs)


@dataclasses.dataclass
class _Extend(Wiring):
    params: Params
    state: State
    cache: Cache
    span: Span

    def run_part(self, name: str, layer: Layer, x: Any, shares: str | None) -> Any:
        owner = shares or name
        params, state = self.params.get(owner, {}), self.state.get(owner, {})
        with located(name):
            y, cache = layer.extend(
                params, state, self.cache.get(name, {}), x, self.span
            )  # shared weights, its own memory
        if cache:
            self.cache[name] = cache
        return y

    def run_math(self, function: Callable[..., Any], *xs: Any) -> Any:
        return function(*xs)
