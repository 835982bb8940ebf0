"""First states, made with one program that draws, in which equal parameters are drawn together, and
no other.

A function that draws parameters, hands its arguments on and makes arrays of one number needs
nothing else compiled: keys are folded and constants made on the host. On a CPU a program for
constants alone took 0.06 to 0.1 s, and this takes 0.003 to 0.02 s. In seconds of processor time, to
derive the keys of 40 convolutions in a program took 4.8 to compile; ten of their draws one by one
took 1.2, and all forty together 0.6.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, Literal, Primitive

from jaxdl.compiling import threefry
from jaxdl.compiling.jitted import jit_once
from jaxdl.compiling.target import default_platform

Initializer = Callable[[Array, tuple[int, ...], Any], Any]

CONSTANT = frozenset({jax.nn.initializers.zeros, jax.nn.initializers.ones})
"""Initializers of JAX that draw nothing; those of jaxdl say `draws = False`."""

_deferred: ContextVar[bool] = ContextVar("deferred", default=False)
_draw = Primitive("draw")
_draw.def_abstract_eval(lambda key, *, draw: ShapedArray(draw.shape, draw.dtype))


class Draw(NamedTuple):
    """What is drawn of a key: `initializer(key, shape, dtype)`."""

    initializer: Hashable
    shape: tuple[int, ...]
    dtype: Any

    def __call__(self, key: Array) -> Array:
        initializer: Any = self.initializer
        values = initializer(key, self.shape, self.dtype)
        if getattr(values, "shape", None) != self.shape or values.dtype != self.dtype:
            raise Computes  # it is no initializer, as drawing it by itself will say
        return jax.numpy.asarray(values)


@contextlib.contextmanager
def deferred_draws() -> Iterator[None]:
    """Parameters of what is traced within are not drawn: each draw is one operation, which is half
    of an `init`'s trace.

    What is traced so can be asked for shapes and dtypes, or made by `values_of`; it cannot be
    lowered.
    """
    token = _deferred.set(True)
    try:
        yield
    finally:
        _deferred.reset(token)


def deferred(initializer: Any, key: Array, shape: tuple[int, ...], dtype: Any) -> Array | None:
    """The operation that stands for a draw, within `deferred_draws`; None where it is to be drawn
    at once.
    """
    if not _deferred.get() or initializer in CONSTANT or not getattr(initializer, "draws", True):
        return None
    return _draw.bind(key, draw=Draw(initializer, shape, np.dtype(dtype)))


class Computes(Exception):
    """A function does more than to draw parameters, hand its arguments on and make arrays of one
    number.
    """


class Constant(NamedTuple):
    """An array of one number."""

    shape: tuple[int, ...]
    dtype: Any
    value: Any

    def array(self) -> np.ndarray:
        zero = not any(
            np.asarray(self.value, self.dtype).tobytes()
        )  # whose memory the system gives without writing it
        return (
            np.zeros(self.shape, self.dtype)
            if zero
            else np.full(self.shape, self.value, self.dtype)
        )


class Argument(NamedTuple):
    """A leaf of the arguments, by its place."""

    place: int


class Filled(NamedTuple):
    """An array of one number, which is the leaf of the arguments at that place: a number of
    Python's.
    """

    shape: tuple[int, ...]
    dtype: Any
    place: int


class Key(NamedTuple):
    """A key, or an array of keys, of an argument that is one.

    Args:
        place: of the argument's leaf.
        paths: an array of tuples: the numbers that are folded in, one after another.
    """

    place: int
    paths: np.ndarray


class Drawn(NamedTuple):
    """A parameter: the draw, and the numbers that are folded into the key of the argument at that
    place.
    """

    draw: Draw
    place: int
    path: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Made:
    """What `made_of` found: the result's structure, and where each of its leaves comes from."""

    structure: Any
    leaves: tuple[Constant | Argument | Filled | Key | Drawn, ...]

    @functools.cached_property
    def groups(self) -> dict[Draw, list[Drawn]]:
        """The different parameters by what is drawn; those of one draw can be drawn together."""
        groups: dict[Draw, dict[Drawn, None]] = {}
        for leaf in self.leaves:
            if isinstance(leaf, Drawn):
                groups.setdefault(leaf.draw, {})[leaf] = None
        return {draw: list(members) for draw, members in groups.items()}


def made_of(function: Callable[..., Any], *shapes: Any) -> Made:
    """How what a pure function gives is made without computing.

    Args:
        function: pure.
        shapes: trees of `jax.ShapeDtypeStruct`, one an argument; a key, or a number of Python's, is
            given as it is.

    Raises:
        Computes: if there is anything to compute, or a draw that is mapped over.
    """
    with deferred_draws():
        try:
            closed, given = jax.make_jaxpr(function, return_shape=True)(*shapes)
        except NotImplementedError as error:  # no rule for a draw under vmap, say
            raise Computes from error
    if any(shape.weak_type for shape in closed.out_avals):
        raise Computes
    variables = closed.jaxpr.invars
    pairs = enumerate(zip(variables, jax.tree.leaves(shapes), strict=True))
    known = {variable: _argument(place, variable.aval, leaf) for place, (variable, leaf) in pairs}
    return Made(jax.tree.structure(given), tuple(map(_final, _origins(closed.jaxpr, known))))


def values_of(made: Made, *arguments: Any) -> Any:
    """The result itself.

    Raises:
        Computes: a key is not of JAX's default generator, or is being traced.
    """
    leaves = jax.tree.leaves(arguments)
    drawn = _drawn_of(made, {place: _words(leaves[place]) for place in _places_of_keys(made)})
    filled = tuple(leaf for leaf in made.leaves if isinstance(leaf, (Constant, Filled)))
    constants = iter(
        _arrays(
            filled, {leaf.place: leaves[leaf.place] for leaf in filled if isinstance(leaf, Filled)}
        )
    )

    def value(leaf: Constant | Argument | Filled | Key | Drawn) -> Any:
        if isinstance(leaf, (Constant, Filled)):
            return next(constants)
        if isinstance(leaf, Argument):
            return leaves[leaf.place]
        if isinstance(leaf, Key):
            return threefry.key_of(_folded(_words(leaves[leaf.place]), leaf.paths.item()))
        return drawn[leaf]

    return jax.tree.unflatten(made.structure, list(map(value, made.leaves)))


def _arrays(filled: tuple[Constant | Filled, ...], numbers: dict[int, Any]) -> list[Array]:
    """On a CPU without a program, elsewhere without moving them to the device."""
    if default_platform() == "cpu":
        return jax.device_put([_constant(leaf, numbers).array() for leaf in filled])
    return _filled_together(filled, numbers)


@functools.partial(jit_once, static_argnums=(0,))
def _filled_together(filled: tuple[Constant | Filled, ...], numbers: dict[int, Any]) -> list[Array]:
    return [
        jax.numpy.full(shape, value, dtype)
        for shape, dtype, value in (_constant(leaf, numbers) for leaf in filled)
    ]


def _constant(leaf: Constant | Filled, numbers: dict[int, Any]) -> Constant:
    return (
        leaf
        if isinstance(leaf, Constant)
        else Constant(leaf.shape, leaf.dtype, numbers[leaf.place])
    )


def _drawn_of(made: Made, words: dict[int, np.ndarray]) -> dict[Drawn, Array]:
    """All parameters, drawn by one program."""
    if not made.groups:
        return {}
    keys = [
        np.stack([_folded(words[each.place], each.path) for each in group])
        for group in made.groups.values()
    ]
    drawn: dict[Drawn, Array] = {}
    for group, values in zip(
        made.groups.values(), _draw_together(tuple(made.groups), keys), strict=True
    ):
        drawn.update(zip(group, _unstacked(values, len(group)), strict=True))
    return drawn


@functools.partial(jit_once, static_argnums=(0,))
def _draw_together(draws: tuple[Draw, ...], words: list[Array]) -> list[Array]:
    """Of each draw and its keys' words [count, 2]: the parameters [count, ...], or the one."""
    keys = [threefry.key_of(each) for each in words]
    return [
        draw(of[0]) if len(of) == 1 else jax.vmap(draw)(of)
        for draw, of in zip(draws, keys, strict=True)
    ]


def _unstacked(values: Array, count: int) -> list[Array]:
    """In a CPU's memory without a program: slices in a program are kernels, which take longer to
    compile than the draws.
    """
    if count == 1:
        return [values]
    if all(device.platform == "cpu" for device in values.devices()):
        return jax.device_put(
            list(np.asarray(values)), may_alias=False
        )  # committed nowhere, as all of a first state
    return [values[index] for index in range(count)]


def _folded(words: np.ndarray, path: tuple[int, ...]) -> np.ndarray:
    return functools.reduce(threefry.folded, path, words)


def _words(key: Any) -> np.ndarray:
    words = threefry.words_of(key)
    if words is None:
        raise Computes
    return words


def _places_of_keys(made: Made) -> set[int]:
    return {leaf.place for leaf in made.leaves if isinstance(leaf, (Key, Drawn))}


def _argument(place: int, aval: Any, given: Any) -> Argument | Filled | Key:
    if isinstance(given, (int, float, np.generic)):
        return Filled((), aval.dtype, place)
    if aval.shape == () and jax.numpy.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return Key(place, _paths([()], ()))
    return Argument(place)


def _paths(paths: list[tuple[int, ...]], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(paths), object)
    array[:] = paths
    return array.reshape(shape)


def _final(leaf: Any) -> Any:
    if not isinstance(leaf, Key):
        return leaf
    if leaf.paths.shape:
        raise Computes
    return Argument(leaf.place) if leaf.paths.item() == () else leaf


def _origins(jaxpr: Jaxpr, known: dict[Any, Any]) -> list[Any]:
    """Where each output comes from; only what outputs need is looked at."""
    made_by = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}

    def of(variable: Any) -> Any:
        if isinstance(variable, Literal):
            dtype = getattr(variable.aval, "dtype")  # noqa: B009
            return Constant((), dtype, np.asarray(variable.val, dtype)[()])
        if variable not in known:
            if variable not in made_by:
                raise Computes
            equation = made_by[variable]
            results = _results(equation, [of(each) for each in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return known[variable]

    return [of(variable) for variable in jaxpr.outvars]


def _results(equation: Any, operands: list[Any]) -> list[Any]:
    """Where an equation's outputs come from."""
    name, params = equation.primitive.name, equation.params
    if name in ("jit", "pjit"):
        inner = params["jaxpr"]
        if inner.consts:
            raise Computes
        return _origins(inner.jaxpr, dict(zip(inner.jaxpr.invars, operands, strict=True)))
    if name == "copy":
        return operands
    match operands:
        case [Key() as key] if (
            name == "unstack"
        ):  # how an array of keys is gone through, from JAX 0.11 on
            return _unstacked_keys(key, params["axis"])
        case [Key() as key, *others]:
            return [_of_key(name, params, key, others)]
        case [Constant() as constant, *_] if name in ("broadcast_in_dim", "convert_element_type"):
            shape = equation.outvars[0].aval
            return [
                Constant(
                    shape.shape, shape.dtype, np.asarray(constant.value).astype(shape.dtype)[()]
                )
            ]
        case [Filled() as filled, *_] if name in ("broadcast_in_dim", "convert_element_type"):
            shape = equation.outvars[0].aval
            return [Filled(shape.shape, shape.dtype, filled.place)]
        case _:
            raise Computes


def _unstacked_keys(key: Key, axis: int) -> list[Key]:
    along = (slice(None),) * axis
    return [
        Key(key.place, key.paths[(*along, index, ...)]) for index in range(key.paths.shape[axis])
    ]


def _of_key(name: str, params: dict[str, Any], key: Key, others: list[Any]) -> Key | Drawn:
    """What an operation on a key, or on an array of keys, gives: `split(key)[i]` is `fold_in(key,
    i)`.
    """
    place, paths = key
    if name == "draw":
        return Drawn(params["draw"], place, paths.item())
    if name == "random_fold_in" and paths.shape == () and isinstance(others[0], Constant):
        return Key(place, _paths([(*paths.item(), int(others[0].value))], ()))
    if name == "random_split" and paths.shape == ():
        shape = tuple(params["shape"])
        return Key(
            place, _paths([(*paths.item(), index) for index in range(math.prod(shape))], shape)
        )
    if name == "slice":
        limits = zip(params["start_indices"], params["limit_indices"], strict=True)
        taken = paths[tuple(slice(start, end) for start, end in limits)]
        strides = params["strides"] or (1,) * taken.ndim
        return Key(place, taken[tuple(slice(None, None, stride) for stride in strides)])
    if name == "squeeze":
        return Key(place, paths.reshape(np.squeeze(paths, params["dimensions"]).shape))
    raise Computes
