"""The contract every model keeps, and the lift that turns mathematics into a layer."""

import abc
import contextlib
import dataclasses
import functools
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal, final

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from jaxdl.compiling import threefry
from jaxdl.core.entry import as_arrays, as_intensities, zero_behind
from jaxdl.core.padded import Padded, over_values
from jaxdl.core.values import Value
from jaxdl.ops import activations

Params = dict[str, Any]
"""A nested dict of arrays: what the optimizer changes."""
State = dict[str, Any]
"""A nested dict of arrays: what training updates without a gradient, such as running statistics."""
Cache = dict[str, Any]
"""A nested dict of arrays by part: what a model remembers of the steps of a sequence that it has
read.
"""
OnPadded = Literal["refused", "each step", "whole"]
"""What a stateless layer does with `Padded` sequences."""


def call_repr(layer: Any) -> str:
    """`Conv(32, 3, stride=2)`: required fields by position, the others by name where they differ
    from the default.

    Of what is no dataclass, its attributes.
    """
    shown = []
    if not dataclasses.is_dataclass(layer):
        attributes = (f"{name}={_value_repr(value)}" for name, value in vars(layer).items())
        return f"{type(layer).__name__}({', '.join(attributes)})"
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            shown.append(_value_repr(value))
        elif value != field.default:
            shown.append(f"{field.name}={_value_repr(value)}")
    return f"{type(layer).__name__}({', '.join(shown)})"


def _value_repr(value: Any) -> str:
    if isinstance(value, type):
        return value.__name__
    return getattr(value, "__name__", None) or repr(value)


def _described(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    told = ", ".join(map(_describe, leaves[:3]))
    return (
        told
        if len(leaves) == 1 and leaves[0] is tree
        else f"{type(tree).__name__} of {told or 'nothing'}"
    )


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{value!r} of type {type(value).__name__}"


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Train:
    """The mode of a training pass; it carries the randomness that training needs.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        mask: [batch] bool, the examples that count, or None where all do. Rows that only fill up a
            last, smaller batch are False, so that statistics over the batch leave them out.
        across: the name of the mapped axis along which the batch is split over devices, each pass
            seeing one part of it, so that statistics over the batch add up along it; None where the
            pass sees all of the batch.

    Raises:
        TypeError: the key is not a typed key.
    """

    mask: Any
    across: str | None
    _root: Any
    _folds: tuple[Any, ...]
    is_inside: bool = dataclasses.field(compare=False)

    def __init__(self, key: Any, mask: Any = None, across: str | None = None) -> None:
        if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
            raise TypeError(
                f"Train(key): expected a typed key, jax.random.key(seed), got {_describe(key)}."
            )
        self._set(key, (), mask, across, False)

    @property
    def key(self) -> Array:
        """The key of this pass or part: derived when it is asked for, so that programs in which
        nothing draws derive none.
        """
        return functools.reduce(fold_in, self._folds, self._root)

    def within(self, name: str) -> "Train":
        """The mode for the part of that name: its key is folded with the name, so that each part
        draws its own.
        """
        return self.folded(_number(name))

    def folded(self, number: Any) -> "Train":
        """The mode with `jax.random.fold_in(key, number)` for a key."""
        return self._with(self.mask, (*self._folds, number), self.is_inside)

    def masked(self, mask: Any) -> "Train":
        """The mode with another mask."""
        return self._with(mask, self._folds, self.is_inside)

    def inside(self) -> "Train":
        """The mode for the parts of a model, whose input has entered it: `Padded` sequences are not
        zeroed behind again.
        """
        return self if self.is_inside else self._with(self.mask, self._folds, True)

    def _with(self, mask: Any, folds: tuple[Any, ...], inside: bool) -> "Train":
        return Train.tree_unflatten((self.across, inside), (self._root, mask, folds))

    def _set(
        self, root: Any, folds: tuple[Any, ...], mask: Any, across: str | None, inside: bool
    ) -> None:
        for name, value in {
            "_root": root,
            "_folds": folds,
            "mask": mask,
            "across": across,
            "is_inside": inside,
        }.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Train({self.key!r}, mask={self.mask!r}, across={self.across!r})"

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], tuple[str | None, bool]]:
        return (self._root, self.mask, self._folds), (self.across, self.is_inside)

    @classmethod
    def tree_unflatten(
        cls, static: tuple[str | None, bool], children: tuple[Any, Any, Any]
    ) -> "Train":
        mode = object.__new__(cls)  # JAX also unflattens placeholders, which __init__ would refuse
        root, mask, folds = children
        mode._set(root, folds, mask, *static)
        return mode


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Eval:
    """The mode of an evaluating pass: no randomness, running statistics, state left as it is."""

    is_inside: bool = dataclasses.field(default=False, compare=False, repr=False)

    def within(self, name: str) -> "Eval":
        del name
        return self

    def inside(self) -> "Eval":
        """The mode for the parts of a model, as of `Train`."""
        return Eval(True)

    def tree_flatten(self) -> tuple[tuple[()], bool]:
        return (), self.is_inside

    @classmethod
    def tree_unflatten(cls, inside: bool, children: tuple[()]) -> "Eval":
        del children
        return cls(inside)


Mode = Train | Eval


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Span:
    """Where in their sequences the steps lie that `Layer.extend` is given.

    Args:
        start: int32 scalar, how many steps were read before.
        longest: how many steps the sequences will have at most; no shape depends on `start`.
    """

    start: Any
    longest: int = dataclasses.field(metadata={"static": True})


class Layer(Value, abc.ABC):
    """A model, or a part of one: a value that holds hyperparameters and no arrays.

    A subclass is a frozen dataclass. It prints as the call that built it, and equal values hash
    alike, so that a layer is a static argument of `jax.jit`. What its pickle gives is equal to it,
    and its deep copy is itself.

    Whatever calls it, its methods see an input as it enters a model: NumPy arrays as arrays of JAX;
    images in uint8 as x / 255, in the layer's `dtype` or float32, unless it `takes_bytes`; zeros
    behind the lengths of `Padded` sequences.
    """

    takes_bytes: ClassVar[bool] = False
    """Whether inputs in uint8 come as they are, for a layer that passes them on, or reads them as
    indices.
    """

    def __init_subclass__(cls) -> None:
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = call_repr  # type: ignore[method-assign]
        for name, enters in {
            "init": _init_enters,
            "apply": _apply_enters,
            "extend": _extend_enters,
        }.items():
            if name in cls.__dict__:
                setattr(cls, name, enters(cls.__dict__[name]))

    @abc.abstractmethod
    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        """Draws the parameters and the first state.

        Args:
            key: a typed key.
            x: an input, or its `jax.ShapeDtypeStruct`; batch first. Only shape and dtype are read.
        """

    @abc.abstractmethod
    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        """Maps a batch to outputs and the next state; a pure function."""

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        """Reads the next steps of sequences in evaluation, and remembers what the steps after them
        need; a pure function.

        All steps at once, and the same steps piece by piece, give the same outputs. `generate` runs
        a language model so.

        Args:
            cache: what earlier steps left; {} before the first.
            x: [batch, time, ...], the next steps.
            span: where they lie.

        Returns:
            The outputs of these steps, and the cache after them.
        """
        del params, state, cache, x, span
        raise LayerError(
            type(self).__name__,
            "it does not say how it reads a sequence step by step — give it a method "
            "extend(params, state, cache, x, span), "
            "which returns (self.apply(params, state, x)[0], cache) where each step is computed "
            "alone.",
        )


def _init_enters(method: Callable[..., Any]) -> Callable[..., Any]:
    """`Layer.init` of an input that enters."""

    @functools.wraps(method)
    def init(self: Layer, key: Array, x: Any) -> tuple[Params, State]:
        x = x if self.takes_bytes else as_intensities(x, getattr(self, "dtype", None))
        drawn = method(self, key, x)
        if not (
            _is_pair(drawn) and isinstance(drawn[0], Mapping) and isinstance(drawn[1], Mapping)
        ):
            raise LayerError(
                type(self).__name__,
                f"init gives two dicts, (params, state), got {_described(drawn)} — of a part "
                f"without parameters or state, an "
                "empty dict.",
            )
        return drawn

    return init


def _apply_enters(method: Callable[..., Any]) -> Callable[..., Any]:
    """`Layer.apply` of an input that enters."""

    @functools.wraps(method)
    def apply(
        self: Layer,
        params: Params,
        state: State,
        x: Any,
        mode: Mode = Eval(),
        *more: Any,
        **named: Any,
    ) -> Any:
        if not isinstance(mode, (Train, Eval)):
            raise LayerError(
                type(self).__name__,
                f"the mode is dl.Train(key) or dl.Eval(), got {_describe(mode)}.",
            )
        x = _entered(self, x)
        x = x if mode.is_inside else zero_behind(x)
        result = method(self, params, state, x, mode.inside(), *more, **named)
        if not (_is_pair(result) and isinstance(result[1], Mapping)):
            raise LayerError(
                type(self).__name__,
                f"apply gives the pair (output, state), state being a dict, got "
                f"{_described(result)}.",
            )
        return result

    return apply


def _extend_enters(method: Callable[..., Any]) -> Callable[..., Any]:
    """`Layer.extend` of an input that enters."""

    @functools.wraps(method)
    def extend(
        self: Layer, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        return method(self, params, state, cache, _entered(self, x), span)

    return extend


def _entered(layer: Layer, x: Any) -> Any:
    """An input as the layer's methods see it."""
    try:
        x = as_arrays(x)
    except ValueError as error:
        raise LayerError(type(layer).__name__, str(error)) from None
    return x if layer.takes_bytes else as_intensities(x, getattr(layer, "dtype", None))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


class Stateless(Layer):
    """A layer without state or randomness; it writes only mathematics, and is lifted to the
    contract here.

    `padded` says what it does with `Padded` sequences: they are refused, or it is lifted to them
    because it does the same at every step, or it takes them whole.
    """

    padded: ClassVar[OnPadded] = "refused"

    @abc.abstractmethod
    def weights(self, key: Array, x: Any) -> Params:
        """Draws the parameters for inputs of x's shape."""

    @abc.abstractmethod
    def forward(self, params: Params, x: Any) -> Any:
        """y = f(params, x)."""

    @final
    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        return self.weights(key, x.values if _lifted(self, x) else x), {}

    @final
    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        del mode
        if _lifted(self, x):
            return over_values(lambda values: self.forward(params, values), x), state
        return self.forward(params, x), state

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        del span
        if self.padded != "each step":
            raise LayerError(
                type(self).__name__,
                "it mixes the steps of a sequence, or may do so, and cannot read them one by one.",
            )
        return self.apply(params, state, x)[0], cache


def _lifted(layer: Stateless, x: Any) -> bool:
    """Whether x is padded and the layer is to run on its values."""
    if not isinstance(x, Padded) or layer.padded == "whole":
        return False
    if layer.padded == "refused":
        refuse_padded(type(layer).__name__, x)
    return True


def refuse_padded(layer: str, x: Any) -> None:
    """An error for `Padded` sequences that come to a layer that is not made for them."""
    if isinstance(x, Padded):
        raise LayerError(
            layer,
            "it got padded sequences, and would mix what they hold with their padding — put a "
            "recurrent layer with "
            "sequence=False or a global pooling before it, or give it arrays.",
        )


class Parameterless(Stateless):
    """A layer that is a plain function of its input."""

    @abc.abstractmethod
    def compute(self, x: Any) -> Any:
        """y = f(x)."""

    @final
    def weights(self, key: Array, x: Any) -> Params:
        del key, x
        return {}

    @final
    def forward(self, params: Params, x: Any) -> Any:
        del params
        return self.compute(x)


@dataclasses.dataclass(frozen=True)
class Function(Parameterless):
    """A plain function, `function(*arguments, x, **keywords)`, as a layer; `as_layer` makes it."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    padded: ClassVar[OnPadded] = "whole"

    def compute(self, x: Any) -> Any:
        bound = functools.partial(self.function, *self.arguments, **dict(self.keywords))
        try:
            return over_values(bound, x) if self.function in _ELEMENTWISE else bound(x)
        except Exception as error:
            error.add_note(
                f"This came from the function '{self.name}', called with {_described(x)}."
            )
            raise

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        """The function of these steps; that it computes each alone is taken on trust."""
        del params, state, span
        return self.compute(x), cache

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", type(self.function).__name__)

    def __repr__(self) -> str:
        bound = [repr(value) for value in self.arguments] + [
            f"{key}={value!r}" for key, value in self.keywords
        ]
        return f"partial({', '.join([self.name, *bound])})" if bound else self.name


_ELEMENTWISE = frozenset(activations.BY_STEP) | {jnp.tanh}
_FUNCTION_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    jax.custom_jvp,
    jax.custom_vjp,
    jnp.ufunc,
    type(jax.jit(abs)),
)


def as_layer(part: Any) -> Layer:
    """A layer as it is; a plain function, or a `functools.partial` of one, lifted to a layer.

    Raises:
        TypeError: the part is neither, such as a class, or a callable object that may hold arrays
            of its own.
    """
    if isinstance(part, Layer):
        return part
    if not isinstance(part, functools.partial):
        return Function(as_function(part))
    layer = Function(as_function(part.func), part.args, tuple(sorted(part.keywords.items())))
    try:
        hash(layer)
    except TypeError:
        raise TypeError(
            f"{layer} binds a value that cannot be hashed, such as an array or a list, and a layer "
            f"holds hyperparameters "
            "only — bind numbers, words and tuples; arrays belong in the params of a jaxdl.Layer."
        ) from None
    return layer


def as_function(function: Any) -> Callable[..., Any]:
    """A plain function as it is; an error for a class, or for a callable object that may hold
    arrays of its own.
    """
    if isinstance(function, type):
        raise TypeError(
            f"{function.__name__} is a class where a layer is expected — call it: "
            f"{function.__name__}(…)."
        )
    if isinstance(function, _FUNCTION_TYPES):
        return function
    if isinstance(function, np.ufunc):
        raise TypeError(
            f"numpy.{function.__name__} cannot be traced — take that of jax.numpy: "
            f"jnp.{function.__name__}."
        )
    if not callable(function):
        raise TypeError(f"expected a layer or a function of one array, got {_describe(function)}.")
    raise TypeError(
        f"a callable of type {type(function).__module__}.{type(function).__qualname__} may hold "
        f"state of its own, which a pure "
        "model cannot see — pass a plain function of one array, or write a jaxdl.Layer that "
        "returns its parameters from init."
    )


def forward(model: Layer, state: State) -> Callable[[Params, Any], Any]:
    """The plain function `f(params, x) -> y` of a model in evaluation, for research code.

    >>> import jax.numpy as jnp, jaxdl as dl
    >>> model = dl.Dense(1)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> f = dl.forward(model, state)
    >>> jax.jacobian(f, argnums=1)(params, jnp.ones((1, 3))).shape
    (1, 1, 1, 3)
    """
    return lambda params, x: model.apply(params, state, x, Eval())[0]


def fold_in_name(key: Array, name: str) -> Array:
    """A key for the part of that name: it does not depend on what other parts there are, nor on
    their order.
    """
    return fold_in(key, _number(name))


def fold_in(key: Array, number: Any) -> Array:
    """`jax.random.fold_in(key, number)`, without a program where both are known."""
    words = None if isinstance(number, Tracer) else threefry.words_of(key)
    return (
        jax.random.fold_in(key, number)
        if words is None
        else threefry.key_of(threefry.folded(words, number))
    )


def _number(name: str) -> np.uint32:
    return np.uint32(zlib.crc32(name.encode()))


class LayerError(ValueError):
    """What a layer was given does not fit it; says where in the model, what was expected, what
    came, and the fix.
    """

    def __init__(self, layer: str, problem: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(layer, problem, path)
        self.layer, self.problem, self.path = layer, problem, path

    def __str__(self) -> str:
        place = f" at '{'.'.join(self.path)}'" if self.path else ""
        return f"{self.layer}{place}: {self.problem}"


@contextlib.contextmanager
def located(name: str) -> Iterator[None]:
    """Adds the part's name to the path of an error that comes out of it, and to the operations in
    it, which profiles show.
    """
    try:
        with jax.named_scope(name):
            yield
    except LayerError as error:
        error.path = (name, *error.path)
        raise
    except Exception as error:
        path = getattr(error, "jaxdl_path", None)
        if path is None:
            error.jaxdl_path = path = [name]  # type: ignore[attr-defined]
        else:
            path.insert(0, name)
        error.__notes__ = [
            n for n in getattr(error, "__notes__", []) if not n.startswith("in the part '")
        ]
        error.add_note(f"in the part '{'.'.join(path)}' of the model")
        raise
