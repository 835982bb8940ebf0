"""The arithmetic that training steps share: weights, sums, updates, and the metrics of a batch."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from jaxdl.core.layer import Params
from jaxdl.metrics.metric import Mean, Metric
from jaxdl.metrics.part import measured
from jaxdl.ops.primitives import batch_last
from jaxdl.optim.learning_rate import learning_rate
from jaxdl.training.spread import added_up
from jaxdl.training.state import Measured

Augment = Callable[[Array, Any, Any], tuple[Any, Any]]


def in_shares(weights: Array, across: str | None = None) -> tuple[Array, Array]:
    """Weights divided by their sum, that of all parts of the batch, and the sum."""
    total = added_up(weights.sum(), across)
    return weights / jnp.where(total > 0, total, 1), total


def updated(
    optimizer: optax.GradientTransformation,
    gradients: Params,
    optimizer_state: Any,
    params: Params,
    loss: Array,
    loss_of: Callable[[Params], Array] | None = None,
) -> tuple[Params, Any]:
    """The parameters and the optimizer's state one update on.

    Args:
        optimizer: of optax.
        gradients, optimizer_state, params, loss: of this step.
        loss_of: the loss of other parameters, for an optimizer that searches along a line, such as
            `optax.lbfgs`.

    Raises:
        TypeError: the optimizer asks for the loss of other parameters, and there is no `loss_of`.
    """
    extended = optax.with_extra_args_support(optimizer)
    gradients = jax.tree.map(batch_last, gradients)
    more = {} if loss_of is None else {"grad": gradients, "value_fn": loss_of}
    with (
        jax.named_scope("optimizer"),
        jax.numpy_dtype_promotion("standard"),
    ):  # optax mixes floats and integer counts
        try:
            updates, optimizer_state = extended.update(
                gradients,
                optimizer_state,
                params,
                **_accepted(extended.update, {"value": loss, **more}),
            )
        except TypeError as error:
            if loss_of is not None or "value_fn" not in str(error):
                raise
            raise TypeError(
                "optimizer: it searches along a line, for which it needs the loss of other "
                "parameters (value_fn), and this "
                "step has none to give — train with `fit` or `Supervised`, or take an optimizer "
                "without a search, such as "
                "optax.adam(1e-3)."
            ) from error
    moved: Any = optax.apply_updates(params, updates)
    return moved, optimizer_state


def _accepted(update: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that an update takes; the loss, and all where it takes any."""
    parameters = inspect.signature(update).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {
        name: value
        for name, value in arguments.items()
        if name in parameters or name == "value"
    }


def current_rate(
    optimizer: optax.GradientTransformation, optimizer_state: Any, estimate: Any = None
) -> Array:
    """The step size that an optimizer took last, or takes first; NaN where it cannot be read."""
    with jax.numpy_dtype_promotion("standard"):
        return learning_rate(optimizer, optimizer_state, estimate)


def measure(
    metrics: tuple[tuple[str, Metric], ...], outputs: Any, targets: Any, weights: Array
) -> Measured:
    """All metrics of one batch."""
    outputs = lax.stop_gradient(outputs)
    pairs = {name: measured(metric, outputs, targets, weights) for name, metric in metrics}
    return Measured(
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )


def report(
    metrics: tuple[tuple[str, Metric], ...], sums: dict[str, Any], gathered: dict[str, Any]
) -> dict[str, float | np.ndarray]:
    """The mean loss, those that layers added, and each metric of an epoch."""
    return loss_means(sums) | {
        name: metric.result(sums[name], gathered[name]) for name, metric in metrics
    }


def report_members(
    metrics: tuple[tuple[str, Metric], ...],
    sums: dict[str, Any],
    gathered: dict[str, Any],
    count: int,
) -> dict[str, np.ndarray]:
    """`report` for every member of a population, [members, ...]: means at once, and other metrics
    one by one.
    """
    figures = {name: _ratios(*pair) for name, pair in _losses(sums).items()}
    for name, metric in metrics:
        if isinstance(metric, Mean):
            figures[name] = _ratios(sums[name]["total"], sums[name]["weight"])
            continue
        each = [
            metric.result(
                jax.tree.map(lambda leaf, k=k: leaf[k], sums[name]),
                jax.tree.map(lambda rows, k=k: rows[:, k], gathered[name]),
            )
            for k in range(count)
        ]
        figures[name] = np.stack([np.asarray(figure) for figure in each])
    return figures


def _ratios(totals: Any, weights: Any) -> np.ndarray:
    """total / weight, NaN where nothing has weight."""
    totals = np.asarray(totals, np.float64)
    weights = np.asarray(weights, np.float64)
    return np.divide(totals, weights, out=np.full(totals.shape, np.nan), where=weights != 0)


def loss_means(sums: dict[str, Any]) -> dict[str, Any]:
    """The mean loss of an epoch, where there is one, and those that layers added to it."""
    return means(_losses(sums))


def _losses(sums: dict[str, Any]) -> dict[str, Any]:
    loss = {"loss": sums["loss"]} if "loss" in sums else {}
    return loss | sums.get("losses", {})


def means(sums: dict[str, Any]) -> dict[str, Any]:
    """Σ w·x / Σ w of each pair of sums; NaN where nothing has weight."""
    return {
        name: float(total / weight) if weight else float("nan")
        for name, (total, weight) in sums.items()
    }
