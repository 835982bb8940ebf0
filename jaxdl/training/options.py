"""The options of supervised training, passed whole to all that trains a model on a loss."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import optax
from jax import Array
from jax.sharding import Mesh

from jaxdl.core.layer import Layer
from jaxdl.layers.precision import in_precision
from jaxdl.metrics.metric import Metric
from jaxdl.training import arguments, checks
from jaxdl.training.class_weights import check_class_weight, check_class_weight_of_stream
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.loss_terms import as_loss, with_terms
from jaxdl.training.objective import Objective
from jaxdl.training.run_options import chosen
from jaxdl.training.scaling import LossScaling
from jaxdl.training.steps.minimize import Minimize
from jaxdl.training.steps.supervised import Supervised
from jaxdl.training.stream_feed import StreamFeed
from jaxdl.training.update import Augment

Loss = Callable[..., Array] | Mapping[str, Callable[..., Array]]
"""A loss, or a loss for each output by name."""
Precision = Literal["bfloat16", "float16"]


class ObjectiveArguments(TypedDict, total=False):
    """What `train` takes from `fit` for an `Objective`, with the same meaning."""

    clip_norm: float | None
    accumulate: int
    average: float | None
    precision: Precision | None


class SupervisedArguments(ObjectiveArguments, total=False):
    """What `fit_many`, `sweep`, `compare` and `find_learning_rate` take from `fit` beside a model,
    a loss and an optimizer, with the same meaning.
    """

    metrics: Mapping[str, Any] | None
    augment: Augment | None
    class_weight: Mapping[int, float] | Sequence[float] | None


@dataclasses.dataclass(frozen=True)
class SupervisedOptions:
    """The options of supervised training, described at `fit`.

    Args:
        metrics: by name.
        clip_norm: the largest norm a gradient keeps.
        accumulate: the number of parts that a batch is computed in.
        average: the decay of a moving average of the parameters.
        augment: `augment(key, inputs, targets) -> (inputs, targets)`.
        class_weights: one for each class.
        precision: the dtype the model computes in.
    """

    metrics: tuple[tuple[str, Metric], ...] = ()
    clip_norm: float | None = None
    accumulate: int = 1
    average: float | None = None
    augment: Augment | None = None
    class_weights: tuple[float, ...] | None = None
    precision: Precision | None = None

    @classmethod
    def of(cls, feed: Feed | None, given: Mapping[str, Any]) -> "SupervisedOptions":
        """Those among a caller's arguments, checked; what else it was given is left alone.

        Args:
            feed: the data, for the classes that `class_weight` weighs; None where it is not given.
            given: `metrics` and `class_weight` as `fit` takes them, and the other fields.

        Raises:
            ValueError, TypeError: the value of one does not fit.
        """
        taken = chosen(given, [field.name for field in dataclasses.fields(cls)])
        taken["metrics"] = checks.check_metrics(given.get("metrics"))
        class_weight = given.get("class_weight")
        if class_weight is not None:
            taken["class_weights"] = _class_weights(class_weight, feed)
        return cls(**taken)

    def __post_init__(self) -> None:
        checks.check_precision(self.precision)
        checks.check_count("accumulate", self.accumulate)
        clip_norm = self.clip_norm
        if clip_norm is not None and not (arguments.is_number(clip_norm) and clip_norm > 0):
            raise ValueError(
                f"clip_norm: the largest norm of a gradient is a finite number above 0, got "
                f"{clip_norm!r}."
            )
        if self.augment is not None:
            arguments.check_function(
                "augment", self.augment, "augment(key, inputs, targets) -> (inputs, targets)"
            )

    def step(
        self,
        model: Layer,
        loss: Loss,
        optimizer: optax.GradientTransformation,
        mesh: Mesh | None = None,
    ) -> Supervised:
        """The step that these options make; equal ones share a compiled program."""
        checks.check_average(self.average, optimizer)
        function = as_loss(loss)
        arguments.check_function(
            "loss",
            function,
            "loss(outputs, targets) -> [batch], such as losses.mean_squared_error",
        )
        return Supervised(
            model=self.computing(model),
            loss=function,
            optimizer=self.clipped(optimizer),
            metrics=with_terms(self.metrics, function),
            accumulate=self.accumulate,
            average=self.average,
            augment=self.augment,
            class_weights=self.class_weights,
            loss_scaling=LossScaling() if self.precision == "float16" else None,
            mesh=mesh,
        )

    def minimize(
        self,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        mesh: Mesh | None = None,
    ) -> Minimize:
        """The step that these options make of an objective.

        Raises:
            ValueError: its examples mix, and a batch is to be computed in parts.
        """
        checks.check_average(self.average, optimizer)
        if objective.mixes and self.accumulate > 1:
            raise ValueError(
                f"accumulate: the examples of a batch meet in {type(objective).__name__}, so that "
                f"a part of it would be another batch — leave it out, or give a smaller "
                f"batch_size."
            )
        if self.precision is not None:
            objective = objective.computing_in(self.precision)
        return Minimize(
            of=objective,
            optimizer=self.clipped(optimizer),
            accumulate=self.accumulate,
            average=self.average,
            loss_scaling=LossScaling() if self.precision == "float16" else None,
            mesh=mesh,
        )

    def computing(self, model: Layer) -> Layer:
        """The model, computing in the precision."""
        return model if self.precision is None else in_precision(model, self.precision)

    def clipped(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """The optimizer, of gradients whose norm is clipped."""
        if self.clip_norm is None:
            return optimizer
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), optimizer)


def check_names(caller: str, given: Mapping[str, Any], known: type) -> None:
    """Refuses an argument that a `TypedDict` class does not have."""
    names = list(known.__annotations__)
    for name in given:
        if name not in names:
            raise TypeError(
                f"{caller}: there is no argument {name!r} — options are {', '.join(names)}."
            )


def _class_weights(class_weight: Any, feed: Feed | None) -> tuple[float, ...] | None:
    """Weights of classes by their number, for the data."""
    if isinstance(feed, StreamFeed):
        return check_class_weight_of_stream(class_weight, feed.first_targets)
    assert isinstance(feed, ResidentFeed)
    return check_class_weight(class_weight, feed.source.targets)
