"""Losses that mix the examples of a batch, such as contrastive ones: declared, so that rows which
only fill it up stay out.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxdl.losses.per_example import function_name, shown, telling_batch


@dataclasses.dataclass(frozen=True)
class Batchwise:
    """A loss of a batch as a whole; `batchwise` makes it. Equal functions with equal bound
    arguments make equal values.
    """

    function: Callable[..., Any]
    arguments: tuple[Hashable, ...] = ()
    keywords: tuple[tuple[str, Hashable], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "__name__", function_name(self.function))
        with contextlib.suppress(TypeError, ValueError):
            object.__setattr__(self, "__signature__", inspect.signature(self.function))

    def __call__(
        self,
        outputs: PyTree,
        targets: PyTree,
        mask: Bool[Array, " batch"] | None = None,
        weights: Float[Array, " batch"] | None = None,
        **settings: Any,
    ) -> Any:
        """The function's value; every row counts, and counts alike, where neither mask nor weights
        are given.
        """
        rows = jax.tree.leaves(outputs)[0].shape[0]
        mask = jnp.ones(rows, jnp.bool_) if mask is None else mask
        settings = dict(self.keywords) | settings
        if takes_weights(self):
            settings["weights"] = mask.astype(jnp.float32) if weights is None else weights
        return self.function(*self.arguments, outputs, targets, mask=mask, **settings)

    def __repr__(self) -> str:
        bound = [
            *map(repr, self.arguments),
            *(f"{name}={value!r}" for name, value in self.keywords),
        ]
        name = function_name(self.function)
        called = f"functools.partial({', '.join([name, *bound])})" if bound else name
        return f"batchwise({called})"

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """By its own name where it decorates a function, whose name then means this value."""
        place = (
            getattr(self.function, "__module__", ""),
            getattr(self.function, "__qualname__", ""),
        )
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            if _named(*place) is self:
                return _named, place
        return Batchwise, (self.function, self.arguments, self.keywords)


def batchwise(function: Callable[..., Any]) -> Batchwise:
    """Declares a loss that mixes the examples of a batch: contrastive and triplet losses,
    correlations, divergences of moments.

    A last, smaller batch is filled up with rows that repeat other examples. A loss of one example
    at a time is weighed by zero there; one that mixes them has to know which rows count, so it is
    given `mask`. A batch is always seen whole: where it is split over several devices, outputs are
    gathered from all of them, and with `accumulate` the outputs of all parts are computed first,
    and a second time with their gradient.

    Args:
        function: `function(outputs, targets, *, mask)`, or a `functools.partial` of one with
            hashable arguments. `mask` is [batch] bool, False for rows that only fill the batch up:
            what they hold may change neither value nor gradient. It returns either

            - [batch], a number for each example, which are weighed as those of any loss; or
            - one number, the loss of the batch. The loss of an epoch is the mean of its batches,
              weighted by their numbers of examples. Weights of examples or classes are refused,
              unless the function has an argument `weights` too, [batch] float32: an example's
              weight times its class's, 0 where the mask is False. The batches of an epoch are then
              weighted by their sums.

    Returns:
        A value that hashes, compares and pickles, wherever a loss is taken; it may be used as a
        decorator.

    Raises:
        TypeError: the function has no argument `mask`, or a bound argument cannot be hashed.

    >>> def spread(outputs, targets, *, mask):
    ...     mean = jnp.mean(outputs[:, 0], where=mask)
    ...     return jnp.mean((outputs[:, 0] - mean) ** 2, where=mask)
    >>> batchwise(spread)
    batchwise(spread)
    >>> outputs = jnp.array([[1.0], [3.0], [7.0]])
    >>> batchwise(spread)(outputs, jnp.zeros(3), mask=jnp.array([True, True, False]))
    Array(1., dtype=float32)
    """
    bound = function if isinstance(function, functools.partial) else functools.partial(function)
    keywords = tuple(sorted(bound.keywords.items()))
    for value in (bound.func, *bound.args, *dict(keywords).values()):
        _check_hashable(function_name(function), value)
    parameters = _parameters(bound.func)
    if parameters and "mask" not in parameters:
        raise TypeError(
            f"batchwise: '{function_name(function)}' has no argument `mask` — write it as "
            f"loss(outputs, targets, *, mask), and "
            "leave rows out where the mask is False."
        )
    return Batchwise(bound.func, bound.args, keywords)


def is_batchwise(loss: Any) -> bool:
    """Whether a loss is a `Batchwise`, also under partials, `jax.jit` and other wrappers."""
    if isinstance(loss, functools.partial):
        return is_batchwise(loss.func)
    wrapped = getattr(loss, "__wrapped__", None)
    return isinstance(loss, Batchwise) or (wrapped is not None and is_batchwise(wrapped))


def check_batchwise(loss: Any, outputs: PyTree, targets: PyTree, weighted: bool) -> None:
    """Checks what a batchwise loss returns, by shapes alone.

    Args:
        loss: of which `is_batchwise` is True.
        outputs: what the model gives, a pytree of shapes [batch, ...].
        targets: the same for the targets.
        weighted: whether examples or classes have weights.

    Raises:
        ValueError: it returned something other than [batch] or one floating-point number, or needs
            weights and takes none.
    """
    batch = telling_batch(outputs, targets)
    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), (outputs, targets)
    )
    mask, weights = (
        jax.ShapeDtypeStruct((batch,), jnp.bool_),
        jax.ShapeDtypeStruct((batch,), jnp.float32),
    )
    name, came = (
        f"loss '{function_name(loss)}'",
        f"outputs of {shown(given[0])} and targets of {shown(given[1])}",
    )
    try:
        returned = jax.eval_shape(loss, *given, mask=mask, weights=weights)
    except Exception as error:
        error.add_note(f"This came from {name}, called with {came} and a mask [batch].")
        raise
    check_returned(loss, returned, batch, weighted)


def check_returned(loss: Any, returned: Any, batch: int, weighted: bool) -> None:
    """Checks what a batchwise loss returned for a batch of that length; see `check_batchwise`."""
    name, shape = f"loss '{function_name(loss)}'", getattr(returned, "shape", None)
    if shape not in ((), (batch,)):
        raise ValueError(
            f"{name} returned {shown(returned)} for a batch of {batch}: a batchwise loss returns "
            f"one number, or one for each "
            "example ([batch])."
        )
    if not jnp.issubdtype(returned.dtype, jnp.floating):
        raise ValueError(
            f"{name} returned {returned.dtype} numbers, which have no gradient: return floating "
            f"ones."
        )
    if weighted and shape == () and not takes_weights(loss):
        raise ValueError(
            f"{name} returns one number for a batch, and examples or classes have weights, which "
            f"it is not given — give it an "
            "argument `weights` ([batch], 0 where the mask is False), let it return one number for "
            "each example, or leave "
            "the weights out."
        )


def takes_weights(loss: Any) -> bool:
    """Whether the function of a batchwise loss has an argument `weights`."""
    return "weights" in _parameters(loss)


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """A function's parameters by name; none where Python cannot tell."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _check_hashable(name: str, value: Any) -> None:
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"batchwise: '{name}' has the bound argument {value!r}, which cannot be hashed, and a "
            f"loss is a static argument of "
            "jit — bind numbers, strings or tuples."
        ) from error


def _named(module: str, name: str) -> Any:
    """What a module has under a dotted name."""
    return functools.reduce(getattr, name.split("."), importlib.import_module(module))
