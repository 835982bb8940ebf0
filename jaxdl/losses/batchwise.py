"""Losses that mix the examples of a batch, such as contrastive ones.

They are declared by `batchwise`, and are given a mask, so that rows which only fill up a smaller
batch stay out.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.bound import Arguments, Keywords, check_bound, format_bound, unbound
from jaxdl.losses.per_example import (
    format_shapes,
    function_name,
    probe_batch_size,
    returned_shapes,
    with_batch_size,
)


@dataclasses.dataclass(frozen=True)
class Batchwise:
    """A loss of a batch as a whole, as `batchwise` returns it.

    Equal functions with equal bound arguments make equal values.
    """

    function: Callable[..., Array]
    arguments: Arguments = ()
    keywords: Keywords = ()

    def __post_init__(self) -> None:
        name = function_name(self.function)
        object.__setattr__(self, "__name__", name)
        object.__setattr__(self, "__doc__", self.function.__doc__)
        with contextlib.suppress(TypeError, ValueError):
            signature = inspect.signature(self.function)
            object.__setattr__(self, "__signature__", signature)

    def __call__(
        self,
        outputs: PyTree,
        targets: PyTree,
        mask: Bool[Array, " batch"] | None = None,
        weights: Float[Array, " batch"] | None = None,
        **settings: object,
    ) -> PyTree:
        """The value of the function.

        Args:
            outputs: of the model, a pytree `[batch, ...]`.
            targets: a pytree `[batch, ...]`.
            mask: which rows count; all where it is None.
            weights: of the rows, for a function that takes them; the mask where it is None.
            **settings: further keywords of the function.

        Returns:
            What the function returns: a scalar or `[batch]`.
        """
        if mask is None:
            rows = jax.tree.leaves(outputs)[0].shape[0]
            mask = jnp.ones(rows, jnp.bool_)
        keywords = dict(self.keywords) | settings
        if takes_weights(self):
            if weights is None:
                weights = mask.astype(jnp.float32)
            keywords["weights"] = weights
        return self.function(*self.arguments, outputs, targets, mask=mask, **keywords)

    def __repr__(self) -> str:
        return f"batchwise({format_bound(self.function, self.arguments, self.keywords)})"

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Pickles a decorated function by its name, which means this value."""
        module = getattr(self.function, "__module__", "")
        name = getattr(self.function, "__qualname__", "")
        with contextlib.suppress(ImportError, AttributeError, ValueError):
            if _named(module, name) is self:
                return _named, (module, name)
        return Batchwise, (self.function, self.arguments, self.keywords)


def batchwise(function: Callable[..., Array]) -> Batchwise:
    """Declares a loss that mixes the examples of a batch.

    Such are contrastive and triplet losses, correlations, and divergences of moments. A last,
    smaller batch is filled up with rows that repeat other examples. A per-example loss is weighted
    by zero there; one that mixes examples has to know which rows count, so it is given `mask`. It
    always sees the whole batch: outputs are gathered from all devices that share a batch, and with
    `accumulate` the outputs of all parts are computed first, and a second time with their gradient.

    Args:
        function: `function(outputs, targets, *, mask)`, or a `functools.partial` of one with
            hashable arguments. `mask` is [batch] bool, False for rows that only fill the batch up:
            what they hold may change neither value nor gradient. It returns either

            - [batch], a value for each example, weighted as those of any loss; or
            - a scalar, the loss of the batch. The loss of an epoch is the mean of its batches,
              weighted by their numbers of examples. Weights of examples or classes are refused,
              unless the function has an argument `weights` too, [batch] float32: an example's
              weight times its class's, 0 where the mask is False. The batches of an epoch are then
              weighted by their sums.

    Returns:
        A loss that hashes, compares and pickles. `batchwise` may be used as a decorator.

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
    function, arguments, keywords = unbound(function)
    check_bound("batchwise", function, arguments, keywords)
    name = function_name(function)
    parameters = _parameters(function)
    if parameters and "mask" not in parameters:
        raise TypeError(
            f"batchwise: '{name}' has no argument `mask` — write it as loss(outputs, targets, *, "
            "mask), and leave rows out where the mask is False."
        )
    return Batchwise(function, arguments, keywords)


def is_batchwise(loss: object) -> bool:
    """Whether a loss is a `Batchwise`, also under partials, `jax.jit` and other wrappers."""
    if isinstance(loss, Batchwise):
        return True
    if isinstance(loss, functools.partial):
        return is_batchwise(loss.func)
    wrapped = getattr(loss, "__wrapped__", None)
    return wrapped is not None and is_batchwise(wrapped)


def check_batchwise(
    loss: Callable[..., PyTree], outputs: PyTree, targets: PyTree, weighted: bool
) -> None:
    """Checks what a batchwise loss returns, by shapes alone.

    Args:
        loss: of which `is_batchwise` is True.
        outputs: of the model, a pytree of arrays or shapes [batch, ...].
        targets: the same of the targets.
        weighted: whether examples or classes have weights.

    Raises:
        ValueError: it returned something other than [batch] or a floating scalar, or needs weights
            and takes none.
    """
    batch = probe_batch_size(outputs, targets)
    outputs = with_batch_size(outputs, batch)
    targets = with_batch_size(targets, batch)
    returned = returned_shapes(
        loss,
        outputs,
        targets,
        mask=jax.ShapeDtypeStruct((batch,), jnp.bool_),
        weights=jax.ShapeDtypeStruct((batch,), jnp.float32),
    )
    check_returned(loss, returned, batch, weighted)


def check_returned(
    loss: Callable[..., PyTree], returned: PyTree, batch: int, weighted: bool
) -> None:
    """Checks what a batchwise loss returned for a batch of some size; see `check_batchwise`.

    Raises:
        ValueError: as in `check_batchwise`.
    """
    name = f"loss '{function_name(loss)}'"
    shape = getattr(returned, "shape", None)
    if shape not in ((), (batch,)):
        raise ValueError(
            f"{name} returned {format_shapes(returned)} for a batch of {batch}: a batchwise loss "
            "returns a scalar, or one value for each example ([batch])."
        )
    check_differentiable(name, returned)
    if weighted and shape == () and not takes_weights(loss):
        raise ValueError(
            f"{name} returns a scalar for a batch, and examples or classes have weights, which it "
            "is not given — give it an argument `weights` ([batch], 0 where the mask is False), "
            "let it return one value for each example, or leave the weights out."
        )


def check_differentiable(name: str, returned: jax.Array | jax.ShapeDtypeStruct) -> None:
    """Checks that what a loss returned is floating.

    Raises:
        ValueError: it has another dtype, and so no gradient.
    """
    if jnp.issubdtype(returned.dtype, jnp.floating):
        return
    raise ValueError(
        f"{name} returned {returned.dtype}, which has no gradient: return a floating dtype."
    )


def takes_weights(loss: Callable[..., PyTree]) -> bool:
    """Whether the function of a batchwise loss has an argument `weights`."""
    return "weights" in _parameters(loss)


def _parameters(function: Callable[..., PyTree]) -> Mapping[str, inspect.Parameter]:
    """A function's parameters by name; none where Python does not know them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _named(module: str, name: str) -> object:
    """The value that a module has under a dotted name."""
    value: object = importlib.import_module(module)
    return functools.reduce(getattr, name.split("."), value)
