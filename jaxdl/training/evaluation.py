"""`evaluate` and `predict`: passes over data that train nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jaxdl.compiling import threefry
from jaxdl.core.arrays import convert_foreign, host_arrays
from jaxdl.core.layer import Layer, Params, State
from jaxdl.data.source import Batch
from jaxdl.layers.precision import in_precision
from jaxdl.training import checks, data_checks, sources
from jaxdl.training.feed import lists_read
from jaxdl.training.interrupts import catch_interrupts
from jaxdl.training.iteration import measure
from jaxdl.training.loss_terms import as_loss, with_terms
from jaxdl.training.options import Loss, Precision
from jaxdl.training.run_options import Compile, as_execution
from jaxdl.training.spread import as_mesh, whole, without_mesh
from jaxdl.training.state import EvalState
from jaxdl.training.steps.supervised import Evaluation, Prediction


@catch_interrupts()
@without_mesh()
def evaluate(
    model: Layer,
    params: Params,
    state: State,
    data: Any,
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Any] | None = None,
    batch_size: int = 256,
    precision: Precision | None = None,
    compile: Compile = "auto",
    devices: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The mean loss and the metrics of a model over data, exact over all examples.

    Args:
        model, params, state: as from `fit` or `init`.
        data: as in `fit`.
        loss: measured as "loss", where given; of several outputs, as in `fit`, each term as well.
        metrics: by name.
        batch_size: examples at a time, for arrays.
        precision, compile, devices: as in `fit`.

    Returns:
        Figures by name.
    """
    model = _computing(checks.check_model(model), precision)
    checks.check_execution(compile)
    mesh = as_mesh(devices)
    batch_size = checks.check_count("batch_size", batch_size)
    function = as_loss(loss)
    lifted = with_terms(checks.check_metrics(metrics), function)
    feed = sources.as_feed(
        "data", data, batch_size=batch_size, key=threefry.of_seed(0), mesh=mesh
    )
    step = Evaluation(model, function, lifted, mesh)
    start = _eval_state(params, state, mesh)
    checks.check_fit("data", step, start, feed, feed.example)
    return measure(step, feed, start, as_execution(compile, feed))


@catch_interrupts()
@without_mesh()
def predict(
    model: Layer,
    params: Params,
    state: State,
    inputs: Any,
    *,
    batch_size: int = 256,
    precision: Precision | None = None,
    compile: Compile = "auto",
    devices: Sequence[Any] | None = None,
) -> Any:
    """The outputs of a model in evaluation for all inputs, in their order: [examples, ...].

    Args:
        model, params, state: as from `fit` or `init`.
        inputs: an array, or a tree of arrays, with one entry an example.
        batch_size: examples at a time.
        precision, compile, devices: as in `fit`.
    """
    model = _computing(checks.check_model(model), precision)
    checks.check_execution(compile)
    mesh = as_mesh(devices)
    batch = Batch(host_arrays("inputs", inputs), ())
    data_checks.check_lengths("inputs", batch, lists_read(inputs))
    feed = sources.resident(
        batch, checks.check_count("batch_size", batch_size), threefry.of_seed(0), False, mesh
    )
    start = _eval_state(params, state, mesh)
    checks.check_model_on(model, start.params, start.state, feed.example)
    figures = measure(Prediction(model, mesh), feed, start, as_execution(compile, feed))
    return jax.device_put(
        jax.tree.map(lambda rows: rows[: feed.source.size], figures["outputs"])
    )


def _computing(model: Layer, precision: Precision | None) -> Layer:
    checks.check_precision(precision)
    return model if precision is None else in_precision(model, precision)


def _eval_state(params: Params, state: State, mesh: Mesh | None) -> EvalState:
    start = EvalState(convert_foreign("params", params), convert_foreign("state", state))
    return start if mesh is None else jax.device_put(start, whole(mesh))
