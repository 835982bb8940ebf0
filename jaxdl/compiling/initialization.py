"""Initial states with one program, which draws, and in which equal parameters are drawn together.

A function that draws parameters, returns its arguments and makes constant arrays needs nothing else
compiled: its jaxpr is read, keys are folded and constants made on the host. In seconds of processor
time on a CPU, to derive the keys of 40 convolutions in a program took 4.8 to compile; ten of their
draws one by one took 1.2, and all forty together 0.6. Of the
first `fit` it buys 0.3 of the 2.4 of the 10-10-10-1 network, and 2.9 of the 8.1 of a GPT of four
blocks, 0.6 of which by drawing together. Compiling `init` as it is, by `jit_once`, would replace
it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from jaxdl.compiling import threefry
from jaxdl.compiling.draws import Computes, Draw, deferred_draws, draw_together
from jaxdl.compiling.jitted import jit_once
from jaxdl.compiling.pytree import PyTree
from jaxdl.compiling.target import default_platform

FILLING = ("broadcast_in_dim", "convert_element_type")
"""Operations that make a constant array of a constant."""


class Constant(NamedTuple):
    """An array of one number."""

    shape: tuple[int, ...]
    dtype: np.dtype
    value: Any

    def array(self) -> np.ndarray:
        value = np.asarray(self.value, self.dtype)
        if not any(value.tobytes()):
            return np.zeros(self.shape, self.dtype)  # memory that the system gives unwritten
        return np.full(self.shape, value, self.dtype)


class Held(NamedTuple):
    """An array that the function had closed over, such as the parameters of a teacher; the result
    has a copy of it. In a program it would be a constant.
    """

    array: Any


class Argument(NamedTuple):
    """A leaf of the arguments, by its position."""

    position: int


class Filled(NamedTuple):
    """An array of one number: the Python number at that position of the arguments."""

    shape: tuple[int, ...]
    dtype: np.dtype
    position: int

    def constant(self, value: object) -> Constant:
        return Constant(self.shape, self.dtype, value)


class Key(NamedTuple):
    """A key, or an array of keys, derived from an argument that is one.

    Args:
        position: of the argument's leaf.
        paths: an array of tuples: the numbers that are folded in, one after another.
    """

    position: int
    paths: np.ndarray


class Drawn(NamedTuple):
    """A parameter: the draw, and the numbers that are folded into the key of the argument at that
    position.
    """

    draw: Draw
    position: int
    path: tuple[int, ...]


EquationParams = Mapping[str, Any]
"""The parameters of a jaxpr's equation, such as the shape of a reshape."""

Origin = Constant | Held | Argument | Filled | Key | Drawn
"""Where a value comes from."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What `made_of` found: the result's structure, and where each of its leaves comes from."""

    structure: Any
    leaves: tuple[Origin, ...]

    @functools.cached_property
    def groups(self) -> dict[Draw, list[Drawn]]:
        """The different parameters by what is drawn; those of one draw can be drawn together."""
        groups: dict[Draw, dict[Drawn, None]] = {}
        for leaf in self.leaves:
            if isinstance(leaf, Drawn):
                groups.setdefault(leaf.draw, {})[leaf] = None
        return {draw: list(members) for draw, members in groups.items()}


def made_of(function: Callable[..., PyTree], *shapes: PyTree) -> Made:
    """How the result of a pure function is made without computing.

    Args:
        function: pure.
        shapes: trees of `jax.ShapeDtypeStruct`, one an argument; a key, or a Python number, is
            given as it is.

    Raises:
        Computes: if there is anything to compute, or a draw that is mapped over.
    """
    with deferred_draws():
        try:
            closed, given = jax.make_jaxpr(function, return_shape=True)(*shapes)
        except NotImplementedError as error:  # no rule for a draw under vmap, say
            raise Computes from error
    if any(aval.weak_type for aval in closed.out_avals):
        raise Computes
    variables = closed.jaxpr.invars
    leaves = jax.tree.leaves(shapes)
    known: dict[Var, Origin] = {}
    for position, (variable, leaf) in enumerate(zip(variables, leaves, strict=True)):
        known[variable] = _origin_of_argument(position, variable.aval, leaf)
    held = zip(closed.jaxpr.constvars, closed.consts, strict=True)
    known |= {variable: Held(array) for variable, array in held}
    origins = _origins(closed.jaxpr, known)
    return Made(jax.tree.structure(given), tuple(map(_final, origins)))


def values_of(made: Made, *arguments: PyTree) -> PyTree:
    """The result of the function, for arguments of those shapes.

    Raises:
        Computes: a key is not of JAX's default generator, or is being traced.
    """
    leaves = jax.tree.leaves(arguments)
    drawn = _draw_all(made, leaves)
    constants = iter(_constants(made, leaves))

    def value(leaf: Origin) -> object:
        match leaf:
            case Argument(position):
                return leaves[position]
            case Key(position, paths):
                return threefry.key_of(_folded(_words(leaves[position]), paths.item()))
            case Drawn():
                return drawn[leaf]
            case Held(array):
                return jax.numpy.copy(array)
            case _:
                return next(constants)

    return jax.tree.unflatten(made.structure, list(map(value, made.leaves)))


def _constants(made: Made, leaves: Sequence[object]) -> list[Array]:
    """The constant arrays in their order: on a CPU without a program, elsewhere without moving them
    to the device.
    """
    filled = [leaf for leaf in made.leaves if isinstance(leaf, Filled)]
    numbers = {leaf.position: leaves[leaf.position] for leaf in filled}
    constant = tuple(leaf for leaf in made.leaves if isinstance(leaf, (Constant, Filled)))
    if default_platform() == "cpu":
        return jax.device_put([_constant(leaf, numbers).array() for leaf in constant])
    return _fill_together(constant, numbers)


@functools.partial(jit_once, static_argnums=0)
def _fill_together(
    filled: tuple[Constant | Filled, ...], numbers: Mapping[int, object]
) -> list[Array]:
    constants = [_constant(leaf, numbers) for leaf in filled]
    return [jax.numpy.full(each.shape, each.value, each.dtype) for each in constants]


def _constant(leaf: Constant | Filled, numbers: Mapping[int, object]) -> Constant:
    return leaf.constant(numbers[leaf.position]) if isinstance(leaf, Filled) else leaf


def _draw_all(made: Made, leaves: Sequence[object]) -> dict[Drawn, Array]:
    """All parameters, drawn by one program."""
    keyed = [leaf for leaf in made.leaves if isinstance(leaf, (Key, Drawn))]
    words = {leaf.position: _words(leaves[leaf.position]) for leaf in keyed}
    if not made.groups:
        return {}
    keys = [
        np.stack([_folded(words[each.position], each.path) for each in group])
        for group in made.groups.values()
    ]
    drawn: dict[Drawn, Array] = {}
    values = draw_together(tuple(made.groups), keys)
    for group, parameters in zip(made.groups.values(), values, strict=True):
        drawn.update(zip(group, parameters, strict=True))
    return drawn


def _folded(words: np.ndarray, path: tuple[int, ...]) -> np.ndarray:
    return functools.reduce(threefry.folded, path, words)


def _words(key: object) -> np.ndarray:
    words = threefry.words_of(key)
    if words is None:
        raise Computes
    return words


def _origin_of_argument(position: int, aval: ShapedArray, given: object) -> Origin:
    if isinstance(given, (int, float, np.generic)):
        return Filled((), aval.dtype, position)
    if aval.shape == () and jax.numpy.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return Key(position, _array_of([()], ()))
    return Argument(position)


def _array_of(paths: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(paths), object)
    array[:] = paths
    return array.reshape(shape)


def _final(leaf: Origin) -> Origin:
    if not isinstance(leaf, Key):
        return leaf
    if leaf.paths.shape:
        raise Computes
    return leaf if leaf.paths.item() else Argument(leaf.position)


def _origins(jaxpr: Jaxpr, known: dict[Var, Origin]) -> list[Origin]:
    """Where each output comes from; only what outputs need is read."""
    equations = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}

    def origin(variable: Var | Literal) -> Origin:
        if isinstance(variable, Literal):
            return _literal(variable)
        if variable not in known:
            if variable not in equations:
                raise Computes
            equation = equations[variable]
            results = _results(equation, [origin(each) for each in equation.invars])
            known.update(zip(equation.outvars, results, strict=True))
        return known[variable]

    return [origin(variable) for variable in jaxpr.outvars]


def _literal(literal: Literal) -> Constant | Held:
    aval = literal.aval
    assert isinstance(aval, ShapedArray)
    if aval.shape:
        return Held(literal.val)
    return Constant((), aval.dtype, np.asarray(literal.val, aval.dtype)[()])


def _results(equation: JaxprEqn, operands: list[Origin]) -> list[Origin]:
    """Where an equation's outputs come from."""
    name = equation.primitive.name
    params = equation.params
    if name in ("jit", "pjit"):
        inner = params["jaxpr"]
        if inner.consts:
            raise Computes
        return _origins(inner.jaxpr, dict(zip(inner.jaxpr.invars, operands, strict=True)))
    if name == "copy":
        return operands
    match operands:
        case [Key() as key] if name == "unstack":  # from JAX 0.11 on, iterating over keys
            return list(_unstacked_keys(key, params["axis"]))
        case [Key() as key, *others]:
            return [_of_key(name, params, key, others)]
        case [(Constant() | Filled()) as constant, *_] if name in FILLING:
            aval = equation.outvars[0].aval
            assert isinstance(aval, ShapedArray)
            return [_reshaped(constant, aval)]
        case _:
            raise Computes


def _reshaped(constant: Constant | Filled, aval: ShapedArray) -> Constant | Filled:
    if isinstance(constant, Filled):
        return Filled(aval.shape, aval.dtype, constant.position)
    value = np.asarray(constant.value).astype(aval.dtype)
    return Constant(aval.shape, aval.dtype, value[()])


def _unstacked_keys(key: Key, axis: int) -> list[Key]:
    along = (slice(None),) * axis
    count = key.paths.shape[axis]
    return [Key(key.position, key.paths[(*along, index, ...)]) for index in range(count)]


def _of_key(
    name: str, params: EquationParams, key: Key, others: Sequence[Origin]
) -> Key | Drawn:
    """Where the result of an operation on a key, or on an array of keys, comes from."""
    if name == "draw":
        return Drawn(params["draw"], key.position, key.paths.item())
    return Key(key.position, _paths_after(name, params, key.paths, others))


def _paths_after(
    name: str, params: EquationParams, paths: np.ndarray, others: Sequence[Origin]
) -> np.ndarray:
    """The paths of the keys that an operation makes: `split(key)[i]` is `fold_in(key, i)`."""
    single = paths.shape == ()
    match name, others:
        case "random_fold_in", [Constant() as constant] if single:
            return _array_of([(*paths.item(), int(np.asarray(constant.value)))], ())
        case "random_split", _ if single:
            shape = tuple(params["shape"])
            return _array_of(
                [(*paths.item(), index) for index in range(math.prod(shape))], shape
            )
        case "slice", _:
            return paths[_slices(params)]
        case "squeeze", _:
            return paths.reshape(np.squeeze(paths, params["dimensions"]).shape)
        case _:
            raise Computes


def _slices(params: EquationParams) -> tuple[slice, ...]:
    starts = params["start_indices"]
    limits = params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    return tuple(map(slice, starts, limits, strides))
