"""Optimizers as `fit` takes them: optax's own, optax's functions with a learning rate, and
names.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax

from jaxdl.optim.alike import first_alike
from jaxdl.optim.schedules import Cosine, Plateau, Schedule

Optimizer = (
    optax.GradientTransformation
    | optax.MultiSteps
    | Callable[..., optax.GradientTransformation]
    | str
)
LearningRate = float | Schedule | Plateau | optax.Schedule

NAMES: Mapping[str, tuple[str, float | Cosine]] = MappingProxyType(
    {
        "adam": ("adam", 1e-3),
        "adamw": ("adamw", 1e-3),
        "sgd": ("sgd", 1e-2),
        "rmsprop": ("rmsprop", 1e-3),
        "adagrad": ("adagrad", 1e-2),
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
"""Each name's function in optax, and the learning rate it has unless one is given.

"auto" is Prodigy (Mishchenko and Defazio, 2024), which estimates its step size, with the cosine
that its authors advise. Of optax's methods that ask for no rate it did best on the whole: on digits
(a dense and a convolutional network), diabetes, breast cancer and 4,000 images of MNIST, with five
seeds each. It begins with steps of a millionth, and takes some forty to find their
size: a shorter run learns nothing. Nor does it know when to stop: on few data it overfits as fast
as it fits.
"""


def as_optimizer(
    optimizer: Any,
    learning_rate: LearningRate | None = None,
    steps: int | None = None,
    steps_per_epoch: int | None = None,
) -> optax.GradientTransformation:
    """The optimizer that is meant; the same object for one that was built alike, so that equal
    calls share a compiled program.

    Args:
        optimizer: of optax, `optax.MultiSteps` too; a function of a learning rate, such as
            `optax.adam`; or a name.
        learning_rate: what the function is given.
        steps: of the whole run, or None where nobody knows.
        steps_per_epoch: of one epoch, or None.

    Raises:
        TypeError, ValueError: the optimizer is none, the name is not known, or a schedule needs a
            number of steps.
    """
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    if isinstance(optimizer, optax.GradientTransformation):
        if learning_rate is not None:
            raise ValueError(
                "learning_rate: the optimizer has been built with its own — give the function "
                "alone, as in "
                "fit(..., optimizer=optax.adam, learning_rate=1e-3)."
            )
        return first_alike(optimizer)
    function, rate = _named(optimizer) if isinstance(optimizer, str) else (optimizer, None)
    if isinstance(rate, Cosine) and steps is None:  # a stream whose end nobody knows
        rate = rate.peak
    rate = _checked_rate(rate if learning_rate is None else learning_rate)
    if not callable(function) or rate is None:
        called = (
            " — call it, as in optax.adam(1e-3)"
            if callable(optimizer)
            else " — such as optax.adam(1e-3)"
        )
        also = ", or give a learning_rate" if callable(optimizer) else " or a name such as 'adam'"
        raise TypeError(f"optimizer: expected an optax optimizer, got {optimizer!r}{called}{also}.")
    for what, value in (("learning_rate", rate), ("optimizer", function)):
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"{what}: expected a number or a function, which can be hashed, got {value!r}."
            ) from None
    return first_alike(_built(function, rate, _span(rate, steps, steps_per_epoch)))


def with_hyperparameters(
    optimizer: Any,
    learning_rate: Any,
    steps: int | None,
    steps_per_epoch: int | None,
    values: Mapping[str, Any],
) -> optax.GradientTransformation:
    """The optimizer of hyperparameters that may be traced; nothing of it is kept.

    Args:
        optimizer, learning_rate, steps, steps_per_epoch: as in `as_optimizer`.
        values: arguments of its function by name; a "learning_rate" among them takes the place of
            the other.
    """
    function, rate = _named(optimizer) if isinstance(optimizer, str) else (optimizer, None)
    if "learning_rate" not in values and (learning_rate is not None or rate is not None):
        rate = _checked_rate(rate if learning_rate is None else learning_rate)
        span = _span(rate, steps, steps_per_epoch)
        return _made(functools.partial(function, **values), rate, span)
    return _checked(function, function(**values))


def takes(optimizer: Any) -> Any:
    """The function that makes the optimizer of that name; anything else as it is."""
    return _named(optimizer)[0] if isinstance(optimizer, str) else optimizer


def _span(rate: Any, steps: int | None, steps_per_epoch: int | None) -> int | None:
    """How many steps the rate asks for; None where it asks for none."""
    if isinstance(rate, Schedule):
        span, what, fix = steps, "the run", "steps=… or steps_per_epoch=…"
    elif isinstance(rate, Plateau):
        span, what, fix = steps_per_epoch, "an epoch", "steps_per_epoch=…"
    else:
        return None
    if span is None:
        raise ValueError(
            f"learning_rate: {rate} needs to know the steps of {what}, and a stream does not tell "
            f"— give {fix}."
        )
    return span


def _named(name: str) -> tuple[Callable[..., Any], float | Cosine]:
    if name not in NAMES:
        raise ValueError(
            f"optimizer: {name!r} is none of {', '.join(map(repr, NAMES))} — give one of these, or "
            f"optax's own, such as "
            "optax.adam(1e-3)."
        )
    path, rate = NAMES[name]
    place, _, function = path.rpartition(".")
    if not place:
        return getattr(optax, function), rate
    from optax import contrib

    return getattr(contrib, function), rate


def _checked_rate(rate: Any) -> Any:
    """A number as a float; schedules as they are."""
    if rate is None or isinstance(rate, (Schedule, Plateau)):
        return rate
    if callable(rate):
        return _checked_schedule(rate)
    rate = (
        rate.item()
        if getattr(rate, "shape", None) == () and np.issubdtype(rate.dtype, np.floating)
        else rate
    )
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise TypeError(f"learning_rate: expected a number or a schedule, got {rate!r}.")
    if not 0 <= rate <= float(np.finfo(np.float32).max):
        raise ValueError(f"learning_rate: a rate is a finite number of at least 0, got {rate!r}.")
    return float(rate)


def _checked_schedule(rate: Any) -> Any:
    """A schedule of optax, found to give a number for a number of steps."""
    expected = (
        "expected a function of the number of steps made, such as "
        "optax.linear_schedule(1e-3, 0, 100)"
    )
    if isinstance(rate, type):
        raise TypeError(f"learning_rate: {expected}, got the class {rate.__name__}.")
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            given = jax.eval_shape(rate, jax.ShapeDtypeStruct((), np.dtype(np.int32)))
    except Exception as error:
        raise TypeError(
            f"learning_rate: {expected}, and {rate!r} failed for one: {error}."
        ) from error
    if getattr(given, "shape", None) != ():
        raise TypeError(f"learning_rate: {expected}, and {rate!r} gave {given!r}.")
    return rate


@functools.lru_cache(maxsize=64)
def _built(
    function: Callable[..., Any], rate: Any, span: int | None
) -> optax.GradientTransformation:
    return _made(function, rate, span)


def _made(
    function: Callable[..., Any], rate: Any, span: int | None
) -> optax.GradientTransformation:
    if isinstance(rate, Plateau):
        assert span is not None
        return optax.chain(_called(function, rate.rate), rate.scaling(span))
    if isinstance(rate, Schedule):
        assert span is not None
        return _called(function, rate.over(span))
    return _called(function, rate)


def _called(function: Callable[..., Any], rate: Any) -> optax.GradientTransformation:
    """What a function gives for a rate."""
    try:
        optimizer = function(rate)
    except jax.errors.JAXTypeError:
        raise  # a hyperparameter of a sweep that may not be traced
    except Exception as error:
        raise TypeError(
            f"optimizer: {function!r} failed for a learning rate ({error}) — give one of optax, "
            f"such as optax.adam."
        ) from error
    return _checked(function, optimizer)


def _checked(function: Any, optimizer: Any) -> optax.GradientTransformation:
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"optimizer: {function!r} gave {optimizer!r} for a learning rate, expected an optax "
            f"optimizer."
        )
    return optimizer
