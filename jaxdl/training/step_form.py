"""Steps with the numbers of their optimizers taken out, so that one compiled program serves them
all.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import optax

from jaxdl.optim.forms import Form, Number, UnlikeError, opened
from jaxdl.training.step import Recipe, Step

Numbers = tuple[Number, ...]
Holder = TypeVar("Holder", bound=Step | Recipe)


class StepForm:
    """A step without the numbers of its optimizers: what a program is compiled for; `step(numbers)`
    has them.

    Equal for steps that differ in those numbers alone. Of equal ones there is one, so that they
    compare at once.

    Args:
        template: the step, with an `OptimizerForm` in the place of each optimizer whose numbers
            were taken out.
        example: numbers that such a step had.
    """

    def __init__(self, template: Step, example: Numbers = ()) -> None:
        self.template = template
        self.example = example
        self._hash = hash(template)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, StepForm) and self.template == other.template
        )

    def __repr__(self) -> str:
        return f"StepForm({self.template!r})"

    def step(self, numbers: Any) -> Step:
        """The step with these numbers, which may be traced scalars."""

        def built(optimizer: Any) -> Any:
            return optimizer.built(numbers)

        return _with_optimizers(self.template, built, (OptimizerForm, ClosedOptimizer))


@dataclasses.dataclass(frozen=True)
class OptimizerForm:
    """An optimizer's form, and which of the step's numbers are its own.

    Args:
        form: of the optimizer.
        first: the place of its first number.
        example: one that has this form.
    """

    form: Form
    first: int
    example: optax.GradientTransformation = dataclasses.field(compare=False, repr=False)

    def built(self, numbers: Any) -> optax.GradientTransformation:
        return self.form.built(numbers[self.first : self.first + self.form.count])


@dataclasses.dataclass(frozen=True)
class ClosedOptimizer:
    """An optimizer with its numbers; equal for those that one call builds with the same ones.

    Args:
        form: of the optimizer.
        own: its numbers.
        example: one that is equal.
    """

    form: Form
    own: Numbers
    example: optax.GradientTransformation = dataclasses.field(compare=False, repr=False)

    def built(self, numbers: Any) -> optax.GradientTransformation:
        del numbers
        return self.example


def open_step(step: Step) -> tuple[StepForm, Numbers]:
    """A step's form and the numbers of its optimizers: `form.step(numbers)` does what the step
    does.

    Those of its fields that are optimizers, and those of steps among its fields, are opened. What
    cannot be opened stays as it is, with its numbers: a hand-made optimizer, or a step that is no
    dataclass or holds more than its fields.
    """
    numbers: list[Number] = []

    def form(optimizer: Any) -> Any:
        try:
            form, own = opened(optimizer)
        except UnlikeError:
            return optimizer
        numbers.extend(own)
        return OptimizerForm(form, len(numbers) - len(own), optimizer)

    template = _with_optimizers(step, form, optax.GradientTransformation)
    return _first(StepForm(template, tuple(numbers))), tuple(numbers)


def closed_step(step: Step) -> StepForm:
    """The form of a step that keeps its numbers; equal for equal ones."""

    def form(optimizer: Any) -> Any:
        try:
            form, own = opened(optimizer)
        except UnlikeError:
            return optimizer
        return ClosedOptimizer(form, own, optimizer)

    return _first(StepForm(_with_optimizers(step, form, optax.GradientTransformation)))


@functools.lru_cache(maxsize=64)
def _first(form: StepForm) -> StepForm:
    return form


def _with_optimizers(
    step: Holder, change: Callable[[Any], Any], kind: type | tuple[type, ...]
) -> Holder:
    """The step with those of its fields changed that are of a kind, and those of the steps and
    recipes among its fields.
    """
    if not _is_its_fields(step):
        return step
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(step):  # pyright: ignore[reportArgumentType]
        value = getattr(step, field.name)
        if isinstance(value, kind):
            changed[field.name] = change(value)
        elif isinstance(value, (Step, Recipe)):
            changed[field.name] = _with_optimizers(value, change, kind)
    step = copy.copy(step)
    for name, value in changed.items():
        object.__setattr__(step, name, value)  # it is frozen
    return step


def _is_its_fields(step: Any) -> bool:
    """Whether a step is what its fields are, compared by them: nothing else that it holds was made
    of an optimizer.
    """
    if not dataclasses.is_dataclass(step) or not type(step).__dataclass_params__.eq:  # pyright: ignore
        return False
    return vars(step).keys() == {field.name for field in dataclasses.fields(step)}
