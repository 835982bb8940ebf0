"""Layers made of layers: a composite defines its data flow once, and init, apply, decode and the
summary follow from it.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeGuard, final

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from jaxdl.compiling.pytree import PyTree
from jaxdl.compiling.target import target
from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.inputs import scale_images
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, Stateless
from jaxdl.core.mode import Eval, Mode
from jaxdl.core.padded import map_values
from jaxdl.core.tree import frozen_shapes, shapes

Part = Layer | Callable[[Any], Any]
"""A layer, or a plain function of one array."""


class Wiring(abc.ABC):
    """The argument of a composite's `wire`, which runs parts and plain functions; in init, on
    shapes.
    """

    @final
    def part(self, name: str, layer: Part, x: PyTree, shares: str | None = None) -> PyTree:
        """Runs a part.

        Args:
            name: of the part, by which its parameters and state are stored.
            layer: a layer or a plain function.
            x: its input.
            shares: the name of an earlier part, whose parameters and state it uses instead of its
                own.

        Returns:
            Its output; in init, the `jax.ShapeDtypeStruct` of it.

        Raises:
            LayerError: another part has this name, or `shares` names none.
        """
        return self.run_part(name, as_layer(layer), x, shares)

    @final
    def math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        """Runs a plain function of arrays, such as the sum of a residual block; of `Padded`, of
        their values.

        Args:
            function: of arrays; uint8 images are scaled to x / 255, in the dtype of the first
                floating array.
            xs: its arguments.

        Returns:
            Its output; in init, the `jax.ShapeDtypeStruct` of it.
        """
        return self.run_math(functools.partial(_apply_to_values, function), *xs)

    @abc.abstractmethod
    def run_part(self, name: str, layer: Layer, x: PyTree, shares: str | None) -> PyTree:
        """`part`, of a layer."""

    @abc.abstractmethod
    def run_math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        """`math`, of a function that takes xs unchanged."""


def _apply_to_values(function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(xs) if hasattr(leaf, "dtype")]
    floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    dtype = floating[0] if floating else None
    return map_values(function, *scale_images(xs, dtype))


class Composite(Layer):
    """A layer made of other layers: a subclass is a frozen dataclass that implements `wire`.

    Parameters and state are dicts by part, without the parts that have none. Random keys are folded
    with the names of parts.

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
    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        """The data flow.

        Args:
            wiring: runs parts (`wiring.part`) and plain functions (`wiring.math`).
            x: the input, or in init its `jax.ShapeDtypeStruct`.

        Returns:
            The output.
        """

    def _groups(self) -> dict[str, int]:
        """The group of each part that is equal to another one, by name: a program traces the parts
        of a group once.
        """
        return {}

    @final
    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        initial = self._init(key, x)
        return initial.params, initial.state

    @final
    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        groups = self._groups() if target().program else {}
        wiring = _Apply(params, dict(state), mode, groups)
        return self.wire(wiring, x), wiring.state

    def _init(self, key: Array, x: PyTree) -> "_Initial":
        """The initial parameters and state, and the shapes of the output."""
        wiring = _Init(key, self._groups() if isinstance(key, Tracer) else {})
        try:
            y = self.wire(wiring, shapes(x))
        except (AttributeError, TypeError) as error:
            if "ShapeDtypeStruct" not in str(error):
                raise
            raise LayerError(
                type(self).__name__,
                f"wire computes with arrays itself, and init runs it on their shapes "
                f"({error}) — put mathematics into "
                "wiring.math(function, *arrays).",
            ) from error
        if y is None:
            raise LayerError(
                type(self).__name__, "wire returns None — it has to return the output."
            )
        return _Initial(wiring.params, wiring.state, y)

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        """Runs the parts on these steps; the cache is a dict by part.

        Raises:
            LayerError: a part cannot read a sequence step by step.
        """
        wiring = _Decode(params, state, dict(cache), span)
        return self.wire(wiring, x), wiring.cache


class _Initial(NamedTuple):
    """The initial parameters and state of a part, and the shapes of its output, or None if they are
    not known yet.
    """

    params: Params
    state: State
    out: PyTree


def _initial(layer: Layer, key: Array, x: PyTree) -> _Initial:
    if _inherits_init(layer):
        return layer._init(key, x)
    params, state = layer.init(key, x)
    return _Initial(params, state, None)


def _inherits_init(layer: Layer) -> TypeGuard[Composite]:
    kind = type(layer)
    if not isinstance(layer, Composite):
        return False
    return kind.init is Composite.init and kind.apply is Composite.apply


class _SharedInit:
    """The initialization of the parts of a group, traced once for inputs of the same shapes."""

    def __init__(self, layer: Layer, x: PyTree) -> None:
        self.shapes = frozen_shapes(x)
        self.out: PyTree = None

        def draw(key: Array) -> tuple[Params, State]:
            params, state, self.out = _initial(layer, key, x)
            return params, state

        self.draw = jax.jit(draw)

    def __call__(self, key: Array) -> _Initial:
        params, state = self.draw(key)
        return _Initial(params, state, self.out)


class _Init(Wiring):
    """Draws the parameters of parts, and runs them on shapes."""

    def __init__(self, key: Array, groups: dict[str, int]) -> None:
        self.key = key
        self.params: Params = {}
        self.state: State = {}
        self.names: set[str] = set()
        self.owners: set[str] = set()
        self.groups = groups
        self.shared: dict[int, _SharedInit] = {}

    def run_part(self, name: str, layer: Layer, x: PyTree, shares: str | None) -> PyTree:
        with located(name):
            self._check(name, type(layer).__name__, shares)
            out = self._draw(name, layer, x) if shares is None else None
            if out is not None:
                return out
            owner = shares or name
            params = self.params.get(owner, {})
            state = self.state.get(owner, {})
            return jax.eval_shape(
                lambda p, s, v: layer.apply(p, s, v, Eval())[0], params, state, x
            )

    def _draw(self, name: str, layer: Layer, x: PyTree) -> PyTree:
        """Draws the parameters of a part, and returns the shapes of its output if they are
        known.
        """
        initial = self._initial(name, layer, fold_in_name(self.key, name), x)
        if initial.params:
            self.params[name] = initial.params
        if initial.state:
            self.state[name] = initial.state
        return initial.out

    def _initial(self, name: str, layer: Layer, key: Array, x: PyTree) -> _Initial:
        if name not in self.groups:
            return _initial(layer, key, x)
        group = self.groups[name]
        if group not in self.shared:
            self.shared[group] = _SharedInit(layer, x)
        shared = self.shared[group]
        return shared(key) if shared.shapes == frozen_shapes(x) else _initial(layer, key, x)

    def run_math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
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
    """Applies parts."""

    params: Params
    state: State
    mode: Mode
    groups: dict[str, int]
    traced: dict[int, Callable[..., tuple[PyTree, State]]] = dataclasses.field(
        default_factory=dict
    )

    def run_part(self, name: str, layer: Layer, x: PyTree, shares: str | None) -> PyTree:
        owner = shares or name
        params = self.params.get(owner, {})
        state = self.state.get(owner, {})
        mode = self.mode if isinstance(layer, Stateless) else self.mode.for_part(name)
        with located(name):
            y, state = self._function(name, layer)(params, state, x, mode)
        if state:
            self.state[owner] = state
        return y

    def _function(self, name: str, layer: Layer) -> Callable[..., tuple[PyTree, State]]:
        """The part's `apply`; for a group, one that JAX traces for the first of its parts."""
        if name not in self.groups:
            return layer.apply
        group = self.groups[name]
        if group not in self.traced:
            self.traced[group] = jax.jit(lambda *arguments: layer.apply(*arguments))
        return self.traced[group]

    def run_math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        return function(*xs)


@dataclasses.dataclass
class _Decode(Wiring):
    """Runs parts on the next steps of sequences."""

    params: Params
    state: State
    cache: Cache
    span: Span

    def run_part(self, name: str, layer: Layer, x: PyTree, shares: str | None) -> PyTree:
        owner = shares or name
        params = self.params.get(owner, {})
        state = self.state.get(owner, {})
        # Parts that share parameters have their own caches.
        cache = self.cache.get(name, {})
        with located(name):
            y, cache = layer.decode(params, state, cache, x, self.span)
        if cache:
            self.cache[name] = cache
        return y

    def run_math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        return function(*xs)
