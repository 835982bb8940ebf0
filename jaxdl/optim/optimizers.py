"""Optimizers as `fit` takes them: optax's own, functions of a learning rate, and names."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxdl.optim.schedules import Cosine, Plateau, Schedule

Optimizer = (
    optax.GradientTransformation
    | optax.MultiSteps
    | Callable[..., optax.GradientTransformation]
    | str
)
Factory = Callable[..., optax.GradientTransformation]
"""A function of a learning rate, such as `optax.adam`."""

LearningRate = float | Schedule | Plateau | optax.Schedule
Rate = LearningRate | ArrayLike
"""A learning rate of a sweep: traced."""

NAMES: Mapping[str, tuple[str, float | Cosine]] = MappingProxyType(
    {
        "adam": ("adam", 1e-3),
        "adamw": ("adamw", 1e-3),
        "sgd": ("sgd", 1e-2),
        "rmsprop": ("rmsprop", 1e-3),
        "adagrad": ("adagrad", 1e-2),
        "nadam": ("nadam", 1e-3),
        "radam": ("radam", 1e-3),
        "adamax": ("adamax", 2e-3),
        "adadelta": ("adadelta", 1.0),
        "lamb": ("lamb", 1e-3),
        "adafactor": ("adafactor", 1e-2),
        "lion": ("lion", 1e-4),
        "prodigy": ("contrib.prodigy", 1.0),
        "dadapt_adamw": ("contrib.dadapt_adamw", 1.0),
        "dowg": ("contrib.dowg", 1.0),
        "cocob": ("contrib.cocob", 1.0),
        "momo": ("contrib.momo", 1.0),
        "momo_adam": ("contrib.momo_adam", 1e-2),
        "schedule_free_adamw": ("contrib.schedule_free_adamw", 1e-2),
        "schedule_free_sgd": ("contrib.schedule_free_sgd", 0.3),
        "auto": ("contrib.prodigy", Cosine(1.0)),
    }
)
"""The function of optax that each name means, and its learning rate where none is given.

All other settings have optax's defaults. The rates are those of Keras for "adam", "adamw", "sgd",
"rmsprop", "nadam" and "lamb"; of PyTorch for "adagrad", "radam", "adadelta" and "adafactor", which
for Adadelta is the method's own and for Adafactor the largest relative step of its paper (optax
multiplies it by the size of the parameters); of the paper for "adamax" (Kingma and Ba, 2015,
section 7.1) and "lion". Those that estimate their step size, and the schedule-free ones, have what
their authors advise. Runs that differ in the learning rate alone share a compiled program.

"auto" is Prodigy (Mishchenko and Defazio, 2024), which estimates its step size, with the cosine
that its authors advise. Of optax's methods that need no rate it did best on the whole: on digits (a
dense and a convolutional network), diabetes, breast cancer and 4,000 images of MNIST, with five
seeds each. It begins with steps of a millionth, and takes some forty to find their size: a shorter
run learns nothing. Nor does it know when to stop: on few data it overfits as fast as it fits.
"""


def as_optimizer(
    optimizer: object,
    learning_rate: LearningRate | None = None,
    steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> optax.GradientTransformation:
    """An optimizer of optax, from one, from a function of a learning rate, or from a name.

    Args:
        optimizer: of optax, `optax.MultiSteps` too; a function of a learning rate, such as
            `optax.adam`; or a name.
        learning_rate: the argument of the function.
        steps: of the whole run, or None where they are not known.
        steps_per_epoch: of one epoch, or None.

    Returns:
        The optimizer; one object for equal functions and learning rates.

    Raises:
        TypeError: the optimizer or the learning rate is none.
        ValueError: the name is not known, a schedule needs a number of steps, or the optimizer has
            a learning rate already.

    >>> as_optimizer("adam", 1e-2) is as_optimizer(optax.adam, 1e-2)
    True
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if isinstance(optimizer, optax.GradientTransformation):
        if learning_rate is not None:
            raise ValueError(
                "learning_rate: the optimizer has been built with its own — give the function "
                "alone, as in fit(..., optimizer=optax.adam, learning_rate=1e-3)."
            )
        return optimizer
    function, default = _factory(optimizer)
    if isinstance(default, Cosine) and steps is None:
        # A stream whose length is not known.
        default = default.peak
    rate = _checked_rate(default if learning_rate is None else learning_rate)
    if not callable(function) or rate is None:
        raise TypeError(_no_optimizer(optimizer))
    _check_cached("learning_rate", rate)
    _check_cached("optimizer", function)
    span = _span(rate, steps, steps_per_epoch)
    return _built(function, rate, span)  # pyright: ignore[reportArgumentType]


def with_hyperparameters(
    optimizer: object,
    learning_rate: object,
    steps: int | None,
    steps_per_epoch: int | None,
    values: Mapping[str, ArrayLike],
) -> optax.GradientTransformation:
    """The optimizer of hyperparameters that may be traced; it is not cached.

    Args:
        optimizer: a function or a name, as in `as_optimizer`.
        learning_rate: as in `as_optimizer`.
        steps: as in `as_optimizer`.
        steps_per_epoch: as in `as_optimizer`.
        values: arguments of the function by name; a "learning_rate" among them replaces the other.

    Returns:
        The optimizer.

    Raises:
        TypeError: the function fails, or returns something else.
    """
    function, default = _factory(optimizer)
    rate = default if learning_rate is None else learning_rate
    if "learning_rate" in values or rate is None:
        return _checked(function, function(**values))
    rate = _checked_rate(rate)
    assert rate is not None
    span = _span(rate, steps, steps_per_epoch)
    return _made(functools.partial(function, **values), rate, span)


def takes(optimizer: object) -> object:
    """The function that a name means; anything else as it is."""
    return _factory(optimizer)[0]


def _factory(optimizer: object) -> tuple[Any, float | Cosine | None]:
    """The function that makes an optimizer, and the learning rate that its name means."""
    if isinstance(optimizer, str):
        return _named(optimizer)
    return optimizer, None


def _no_optimizer(optimizer: object) -> str:
    fix = " — such as optax.adam(1e-3) or a name such as 'adam'"
    if callable(optimizer):
        fix = " — call it, as in optax.adam(1e-3), or give a learning_rate"
    return f"optimizer: expected an optax optimizer, got {optimizer!r}{fix}."


def _check_cached(what: str, value: object) -> None:
    """Checks that a value can be a key of the cache of optimizers."""
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{what}: expected a number or a function, which can be hashed, got {value!r}."
        ) from None


def _span(rate: Rate, steps: int | None, steps_per_epoch: int | None) -> int | None:
    """The number of steps that a rate needs to know; None where it needs none."""
    if isinstance(rate, Schedule):
        span = steps
        what = "the run"
        fix = "steps=… or steps_per_epoch=…"
    elif isinstance(rate, Plateau):
        span = steps_per_epoch
        what = "an epoch"
        fix = "steps_per_epoch=…"
    else:
        return None
    if span is None:
        raise ValueError(
            f"learning_rate: {rate} needs to know the steps of {what}, and a stream does not say "
            f"— give {fix}."
        )
    return span


def _named(name: str) -> tuple[Factory, float | Cosine]:
    """The function of optax that a name means, and its learning rate."""
    if name not in NAMES:
        names = ", ".join(map(repr, NAMES))
        raise ValueError(
            f"optimizer: {name!r} is none of {names} — give one of these, or optax's own, such as "
            "optax.adam(1e-3)."
        )
    path, rate = NAMES[name]
    module, _, function = path.rpartition(".")
    if not module:
        return getattr(optax, function), rate
    from optax import contrib

    return getattr(contrib, function), rate


def _checked_rate(rate: object) -> Rate | None:
    """A number as a float; schedules as they are.

    Raises:
        TypeError: it is neither.
        ValueError: the number is negative, or not finite.
    """
    if rate is None or isinstance(rate, (Schedule, Plateau)):
        return rate
    if callable(rate):
        return _checked_schedule(rate)
    number = rate
    if isinstance(rate, (np.ndarray, jax.Array)) and _is_float_scalar(rate):
        number = rate.item()
    kinds = (int, float, np.integer, np.floating)
    if isinstance(number, bool) or not isinstance(number, kinds):
        raise TypeError(f"learning_rate: expected a number or a schedule, got {rate!r}.")
    if not 0 <= number <= float(np.finfo(np.float32).max):
        raise ValueError(
            f"learning_rate: a rate is a finite number of at least 0, got {number!r}."
        )
    return float(number)


def _is_float_scalar(array: np.ndarray | jax.Array) -> bool:
    return array.shape == () and np.issubdtype(array.dtype, np.floating)


def _checked_schedule(rate: Callable[..., Any]) -> optax.Schedule:
    """A schedule of optax, which returns a scalar for a number of steps.

    Raises:
        TypeError: it fails, or returns something else.
    """
    expected = (
        "expected a function of the number of steps made, such as "
        "optax.linear_schedule(1e-3, 0, 100)"
    )
    if isinstance(rate, type):
        raise TypeError(f"learning_rate: {expected}, got the class {rate.__name__}.")
    count = jax.ShapeDtypeStruct((), np.dtype(np.int32))
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            returned = jax.eval_shape(rate, count)
    except Exception as error:
        raise TypeError(
            f"learning_rate: {expected}, and {rate!r} failed for one: {error}."
        ) from error
    if getattr(returned, "shape", None) != ():
        raise TypeError(f"learning_rate: {expected}, and {rate!r} gave {returned!r}.")
    return rate


@functools.lru_cache(maxsize=64)
def _built(function: Factory, rate: Rate, span: int | None) -> optax.GradientTransformation:
    """As `_made`, cached: equal arguments give one object."""
    return _made(function, rate, span)


def _made(function: Factory, rate: Rate, span: int | None) -> optax.GradientTransformation:
    """The optimizer of a function and a learning rate."""
    if isinstance(rate, Plateau):
        assert span is not None
        return optax.chain(_called(function, rate.rate), rate.scaling(span))
    if isinstance(rate, Schedule):
        assert span is not None
        return _called(function, rate.over(span))
    return _called(function, rate)


def _called(
    function: Factory, rate: ArrayLike | optax.Schedule
) -> optax.GradientTransformation:
    """What a function returns for a rate."""
    try:
        optimizer = function(rate)
    except jax.errors.JAXTypeError:
        # A hyperparameter of a sweep that may not be traced.
        raise
    except Exception as error:
        raise TypeError(
            f"optimizer: {function!r} failed for a learning rate ({error}) — give one of optax, "
            "such as optax.adam."
        ) from error
    return _checked(function, optimizer)


def _checked(function: object, optimizer: object) -> optax.GradientTransformation:
    if isinstance(optimizer, optax.GradientTransformation):
        return optimizer
    raise TypeError(
        f"optimizer: {function!r} gave {optimizer!r} for a learning rate, expected an optax "
        "optimizer."
    )
