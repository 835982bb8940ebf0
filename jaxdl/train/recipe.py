"""A supervised step as a function of hyperparameters."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import optax

from jaxdl.layer import Layer
from jaxdl.train import checks
from jaxdl.train.members import Recipe
from jaxdl.train.step import Augment, Supervised


@dataclasses.dataclass(frozen=True)
class SupervisedRecipe(Recipe):
    """A supervised step whose model, loss and optimizer may take hyperparameters."""

    model: Any
    loss: Any
    optimizer: Any
    metrics: Any
    accumulate: int
    average: float | None
    augment: Augment | None
    class_weights: tuple[float, ...] | None
    clip_norm: float | None
    names: tuple[str, ...]
    some: tuple[tuple[str, float], ...] = dataclasses.field(compare=False)

    @property
    def single(self) -> Supervised:
        return self(dict(self.some))

    def __call__(self, values: Mapping[str, Any]) -> Supervised:
        optimizer = self._given(self.optimizer, values)
        if self.clip_norm is not None:
            optimizer = optax.chain(optax.clip_by_global_norm(self.clip_norm), optimizer)
        taken = {name: values[name] for name in _named(self.loss, self.names)}
        loss = functools.partial(self.loss, **taken) if taken else self.loss
        return Supervised(
            self.model_of(values),
            loss,
            optimizer,
            self.metrics,
            self.accumulate,
            self.average,
            self.augment,
            self.class_weights,
        )

    def model_of(self, values: Mapping[str, Any]) -> Layer:
        return checks.check_model(self._given(self.model, values))

    def check(self) -> None:
        """Refuses hyperparameters that nothing takes."""
        taken = {name for part in (self.model, self.loss, self.optimizer) for name in _named(part, self.names)}
        for name in self.names:
            if name not in taken:
                raise ValueError(
                    f"sweep: nothing takes the hyperparameter {name!r} — the model, the loss or the optimizer has to be a "
                    f"function with an argument of that name, as optimizer=optax.adam is for 'learning_rate'."
                )
        checks.check_optimizer(self._given(self.optimizer, dict(self.some)))

    def _given(self, part: Any, values: Mapping[str, Any]) -> Any:
        names = _named(part, self.names)
        return part(**{name: values[name] for name in names}) if names else part


def _named(part: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the hyperparameters a function names among its arguments."""
    if not names or isinstance(part, (Layer, optax.GradientTransformation)) or not callable(part):
        return ()
    try:
        parameters = inspect.signature(part).parameters
    except (TypeError, ValueError):
        return ()
    return tuple(name for name in names if name in parameters)
