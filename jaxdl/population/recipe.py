"""A supervised step as a function of hyperparameters."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxdl.checkpoint.describe import Description, describe
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Layer
from jaxdl.optim.optimizers import as_optimizer, takes, with_hyperparameters
from jaxdl.optim.schedules import Schedule
from jaxdl.training import checks
from jaxdl.training.objective import Objective
from jaxdl.training.options import SupervisedOptions
from jaxdl.training.step import Recipe
from jaxdl.training.steps.minimize import Minimize
from jaxdl.training.steps.supervised import Supervised


@dataclasses.dataclass(frozen=True)
class SupervisedRecipe(Recipe):
    """A supervised step whose model, loss and optimizer may take hyperparameters."""

    model: Any
    loss: Any
    optimizer: Any
    options: SupervisedOptions
    learning_rate: Any
    steps: int | None
    steps_per_epoch: int | None
    names: tuple[str, ...]
    some: tuple[tuple[str, float], ...] = dataclasses.field(compare=False)

    @property
    def single(self) -> Supervised | Minimize:
        return self(dict(self.some))

    def __call__(self, values: Mapping[str, Any]) -> Supervised | Minimize:
        objective = self._given(self.model, values)
        if isinstance(objective, Objective):
            return self.options.minimize(objective, self._optimizer(values))
        taken = {name: values[name] for name in _named(self.loss, self.names)}
        loss = functools.partial(self.loss, **taken) if taken else self.loss
        model = as_layer(objective)
        return self.options.step(model, loss, self._optimizer(values))

    def resolved(self) -> "SupervisedRecipe":
        """The same with its optimizer made, where no hyperparameter decides it: programs then take
        its numbers as arguments.
        """
        if any(
            _named(part, self.names) for part in (takes(self.optimizer), self.learning_rate)
        ):
            return self
        optimizer = self._optimizer({})
        return dataclasses.replace(self, optimizer=optimizer, learning_rate=None)

    def described(self) -> dict[str, Description]:
        """The step of some member, and the functions that make the others'."""
        makers = {
            "model": self.model,
            "loss": self.loss,
            "optimizer": takes(self.optimizer),
            "learning_rate": self.learning_rate,
        }
        named = {
            f"{name} of hyperparameters": maker
            for name, maker in makers.items()
            if _named(maker, self.names)
        }
        return self.single.described() | {
            name: describe(maker) for name, maker in named.items()
        }

    def model_of(self, values: Mapping[str, Any]) -> Any:
        return self(values).model

    def check(self) -> None:
        """Refuses hyperparameters that nothing takes."""
        parts = (self.model, self.loss, takes(self.optimizer), self.learning_rate)
        taken = {name for part in parts for name in _named(part, self.names)}
        for name in self.names:
            if name not in taken:
                raise ValueError(
                    f"sweep: nothing takes the hyperparameter {name!r} — the model, the loss, the "
                    f"optimizer or the learning "
                    f"rate has to be a function with an argument of that name, as "
                    f"optimizer=optax.adam is for 'learning_rate'."
                )
        checks.check_average(self.options.average, self._optimizer(dict(self.some)))
        if not self.names:
            return
        try:
            jax.eval_shape(
                self._traced, dict.fromkeys(self.names, jax.ShapeDtypeStruct((), jnp.float32))
            )
        except Exception as error:
            if not isinstance(error, jax.errors.JAXTypeError) and "Tracer" not in str(error):
                raise
            raise ValueError(
                f"sweep: one of {', '.join(map(repr, self.names))} decides what is compiled, such "
                f"as a width, a number of "
                "layers or of steps, and all members share one program — train each of those with "
                "`fit` in a loop (or with a "
                "`sweep` of its own), and sweep over numbers that are only computed with, such as "
                "a rate."
            ) from error

    def _traced(self, values: Mapping[str, Any]) -> Array:
        self.model_of(values)
        self._optimizer(values)
        return jnp.zeros(())

    def _optimizer(self, values: Mapping[str, Any]) -> optax.GradientTransformation:
        rate = self._given(self.learning_rate, values)
        taken = {name: values[name] for name in _named(takes(self.optimizer), self.names)}
        if not taken and rate is self.learning_rate:
            return as_optimizer(self.optimizer, rate, self.steps, self.steps_per_epoch)
        return with_hyperparameters(
            self.optimizer, rate, self.steps, self.steps_per_epoch, taken
        )

    def _given(self, part: Any, values: Mapping[str, Any]) -> Any:
        return built_of(part, values)


def built_of(part: Any, values: Mapping[str, Any]) -> Any:
    """What a function of hyperparameters makes of those it names; all else as it is."""
    names = _named(part, tuple(values))
    return part(**{name: values[name] for name in names}) if names else part


def _named(part: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the hyperparameters a function names among its arguments."""
    if (
        not names
        or isinstance(part, (Layer, Objective, Schedule, optax.GradientTransformation))
        or not callable(part)
    ):
        return ()
    try:
        parameters = inspect.signature(part).parameters
    except (TypeError, ValueError):
        return ()
    return tuple(name for name in names if name in parameters)
