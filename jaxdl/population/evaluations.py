"""Recipes of what evaluates the members of a population."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxdl.losses.classification import Loss
from jaxdl.training.step import Recipe, Step
from jaxdl.training.steps.supervised import Evaluation, Prediction


@dataclasses.dataclass(frozen=True)
class _Predicting(Recipe):
    """Each member's model, whose outputs are gathered."""

    recipe: Recipe

    @property
    def single(self) -> Any:
        return self(dict(getattr(self.recipe, "some", ())))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return _Evaluated(Prediction(self.recipe(values).model))


@dataclasses.dataclass(frozen=True)
class _Evaluating(Recipe):
    """Each member's model, measured by a loss and metrics."""

    recipe: Recipe
    loss: Loss | None
    metrics: Any

    @property
    def single(self) -> Any:
        return self(dict(getattr(self.recipe, "some", ())))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return _Evaluated(Evaluation(self.recipe(values).model, self.loss, self.metrics))


@dataclasses.dataclass(frozen=True)
class _Evaluated:
    step: Step

    def evaluation(self) -> Step:
        return self.step
