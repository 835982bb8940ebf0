"""`compare` and `compare_function`: the same work in several ways, timed in turn."""

import contextlib
import functools
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.compiling.target import single_platform
from jaxdl.core.layer import Layer
from jaxdl.ops.conv_algorithm import CPU_OPTIONS
from jaxdl.optim.optimizers import LearningRate, Optimizer
from jaxdl.speed import memory
from jaxdl.speed.compilations import Compilations, why_compiled
from jaxdl.speed.cost import Cost, cost_of
from jaxdl.speed.device import DeviceSpeed, measure_device
from jaxdl.speed.execution import ExecutionSpeed, PrecisionCost
from jaxdl.speed.report import SpeedReport
from jaxdl.speed.rounds import Repeat, Steady, check_names, check_rounds, in_turn
from jaxdl.speed.runner import Runner
from jaxdl.speed.work import Work, compiled_anew, work_of
from jaxdl.training import checks
from jaxdl.training.callbacks import copied
from jaxdl.training.objective import Objective
from jaxdl.training.options import Loss, SupervisedArguments
from jaxdl.training.outcome import stepped
from jaxdl.training.program import Execution
from jaxdl.training.state import TrainState
from jaxdl.training.step import TrainingStep
from jaxdl.training.step_form import open_step

EXECUTIONS: tuple[Execution, ...] = ("eager", "step", "epoch")


PACKAGES = ("jaxdl", "jax", "jaxlib")


def compare(
    model: Layer | Objective | TrainingStep,
    data: Any,
    *,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    learning_rate: LearningRate | None = None,
    executions: Sequence[Execution] = EXECUTIONS,
    batch_size: int = 32,
    drop_last: bool = False,
    seed: int | Array = 0,
    shuffle: bool = True,
    rounds: int = 9,
    seconds: float = 0.3,
    steps: int = 5,
    widest_spread: float = 0.25,
    device: DeviceSpeed | None = None,
    name: str | None = None,
    **options: Unpack[SupervisedArguments],
) -> SpeedReport:
    """Trains a model, an objective or a training step from one start in several ways, and tells
    what each costs.

    Each way compiles anew, makes `steps` steps from the start (which also warm it up, and whose
    parameters are compared), and then takes turns with the others, going on where it was: A B C, A
    B C, … No clock is read before the device has finished.

    Args:
        model, data, loss, optimizer, learning_rate, batch_size, drop_last, seed, shuffle: as in
            `fit`, for a run of one epoch; or an `Objective` without a loss, or a `TrainingStep`
            without both, and data as in `train`. Of a stream, the first batch is measured.
        executions: some of "eager", "step" and "epoch", as `fit` has them; differences and ratios
            are from the first.
        rounds: how many turns each way has.
        seconds: about how long a turn takes.
        steps: after how many the parameters are compared.
        widest_spread: the interquartile range over the median above which a way's time is not told.
        device: the machine's own speed, where it has been measured; None measures it now.
        name: what the report calls the work; None is the model.
        options: `metrics`, `class_weight`, `clip_norm`, `accumulate`, `average`, `augment` and
            `precision`, as in `fit`; of an objective, those that `train` takes.

    Returns:
        The report; with `precision` it tells the loss and the metrics of the data after `steps`
        steps beside those of the same steps in float32. Compiling is counted as this process had to
        do it: single operations, and the program that draws an epoch's order, are not compiled
            again where it has them from before.

    Raises:
        ValueError, TypeError: an argument does not fit, said before anything is compiled.
        FloatingPointError: training diverged, so that there is nothing to time.
    """
    given = dict(locals())
    chosen = check_names("executions", executions, EXECUTIONS)
    check_rounds(rounds, seconds, widest_spread)
    steps = checks.check_count("steps", steps)
    work = work_of(model, data, given, options)
    start = work.start(work.step)
    ready = {mode: _made_ready(mode, work, start, steps) for mode in chosen}
    runners = {mode: each.runner for mode, each in ready.items()}
    lost = _cost_of_precision(work, runners[chosen[0]], steps)
    before = device or measure_device()
    times = in_turn(
        {mode: runner.advance for mode, runner in runners.items()},
        rounds,
        seconds,
        {mode: runner.iteration.max_steps for mode, runner in runners.items()},
    )
    return report_of(
        _ways(ready, times, _cost(work, start)),
        device or before.best(measure_device()),
        name=name or _short(model),
        unit="step",
        examples=work.feed.first.source.batch_size,
        widest_spread=widest_spread,
        compared=steps,
        results="parameters",
        precision=lost,
    )


class _Ready(NamedTuple):
    """A way that has been warmed up, and the parameters after that."""

    runner: Runner
    warmed: "Warmed"
    params: Any


def _made_ready(mode: Execution, work: Work, start: TrainState, steps: int) -> _Ready:
    """Compiles a way anew, and makes so many steps."""
    runner = Runner(mode, compiled_anew(work.step), work.feed, start)
    warmed = _warmed(functools.partial(runner.advance, steps), runner.compile)
    return _Ready(runner, warmed, copied(runner.here.state.params))


def _ways(
    ready: Mapping[str, _Ready],
    times: Mapping[str, Steady],
    cost: Cost,
) -> dict[str, "Way"]:
    first = next(iter(ready.values())).params
    return {
        mode: Way(each.warmed, times[mode], cost, difference(first, each.params))
        for mode, each in ready.items()
    }


def _cost_of_precision(work: Work, narrow: Runner, steps: int) -> PrecisionCost | None:
    """What the data say after so many steps in a narrow dtype, and after the same in float32."""
    if work.dtype is None:
        return None
    full = Runner("step", work.full, work.feed, work.start(work.full))
    full.advance(steps)
    return PrecisionCost(
        work.dtype,
        narrow.metrics(),
        full.metrics(),
        difference(full.here.state.params, narrow.here.state.params),
    )


class Warmed(NamedTuple):
    """What making a way ready took: what was compiled in all, and for the first step, which is
    timed.
    """

    compiled: Compilations
    at_first: Compilations
    first_seconds: float
    peak_bytes: int | None
    peak_of: str


def _warmed(warm_up: Callable[[], None], compile: Callable[[], None] | None) -> Warmed:
    """Calls a thing for the first time, and notes what was compiled and the memory it took."""
    counted = memory.begin_peak()
    with why_compiled(show=False) as compiled:
        began = time.perf_counter()
        (compile or warm_up)()
        first_seconds = time.perf_counter() - began
        at_first = Compilations(compiled)
        warm_up()
    held, kind = memory.peak()
    if kind == "resident in the process":
        kind += (
            " while the way warmed up, which includes all that was there before"
            if counted
            else " since it began"
        )
    return Warmed(compiled, at_first, first_seconds, held, kind)


class Way(NamedTuple):
    """What was measured of one way to do the work.

    Args:
        warmed: as it was made ready.
        times: of its rounds.
        cost: of one step or call.
        apart: the largest difference of its results from those of the first way.
    """

    warmed: Warmed
    times: Steady
    cost: Cost
    apart: float


def report_of(
    ways: Mapping[str, Way],
    device: DeviceSpeed,
    *,
    name: str,
    unit: str,
    examples: int | None,
    widest_spread: float,
    compared: int,
    results: str,
    precision: PrecisionCost | None = None,
) -> SpeedReport:
    """The report of what was measured; described at `SpeedReport`."""
    first = next(iter(ways.values()))
    dtype = first.cost.dtype if first.cost.dtype in device.matrix_product else "float32"
    executions = [
        _execution(mode, way, device, dtype, widest_spread, examples)
        for mode, way in ways.items()
    ]
    return SpeedReport(
        name,
        unit,
        tuple(executions),
        device,
        dtype,
        examples,
        widest_spread,
        compared,
        results,
        all(way.cost.exact for way in ways.values()),
        first.warmed.peak_of,
        _versions(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        precision,
    )


def _execution(
    name: str,
    way: Way,
    device: DeviceSpeed,
    dtype: str,
    widest_spread: float,
    examples: int | None,
) -> ExecutionSpeed:
    """A way's figures; those that follow from its time only where that means something."""
    times = way.times
    seconds = times.median if times.known(widest_spread) else None

    def a_second(amount: float | None) -> float | None:
        return None if seconds is None or amount is None else amount / seconds

    flops = a_second(way.cost.flops)
    moved = a_second(way.cost.bytes)
    compiled = way.warmed.compiled
    at_first = way.warmed.at_first
    held = [each.memory_bytes for each in compiled if each.memory_bytes is not None]
    return ExecutionSpeed(
        name,
        len(compiled),
        sum(each.cached for each in compiled),
        sum(each.trace_seconds + each.lower_seconds for each in at_first),
        sum(each.compile_seconds for each in at_first),
        way.warmed.first_seconds,
        times.seconds,
        times.repeats,
        times.spread,
        seconds,
        a_second(examples),
        way.cost.flops,
        way.cost.bytes,
        flops,
        None if flops is None else flops / device.matrix_product[dtype],
        None if moved is None else moved / device.bandwidth,
        None if name == "eager" else max(held, default=None),
        way.warmed.peak_bytes,
        way.apart,
    )


def _cost(work: Work, start: TrainState) -> Cost:
    """Of one step as a program, its batch's gathering included."""
    source = work.feed.first.source
    (form, numbers) = open_step(work.step)

    def once(state: Any, source: Any, orders: Any, index: Any) -> Any:
        batch = source.batch(orders, index, index)
        return stepped(form, single_platform(), numbers, state, batch, index)

    return cost_of(
        once,
        start,
        source,
        source.orders(0, 1),
        np.int32(0),
        cpu_options=CPU_OPTIONS,
    )


def difference(these: Any, those: Any) -> float:
    """The largest between the numbers of two trees."""
    pairs = zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True)
    apart = [np.abs(_numbers(a) - _numbers(b)) for a, b in pairs]
    return max((float(each.max()) for each in apart if each.size), default=0.0)


def _numbers(leaf: Any) -> np.ndarray:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _blocking(call: Callable[[], Any]) -> Callable[[], None]:
    return lambda: _repeated(call)(1)


def _repeated(call: Callable[[], Any]) -> Repeat:
    """Calls one after another, and waits for the last."""

    def repeat(count: int) -> None:
        result = None
        for _ in range(count):
            result = call()
        jax.block_until_ready(result)

    return repeat


def _divided(cost: Cost, parts: int) -> Cost:
    flops, moved = (None if each is None else each / parts for each in (cost.flops, cost.bytes))
    return cost._replace(flops=flops, bytes=moved)


def _check_arrays(args: tuple[Any, ...]) -> None:
    for index, arg in enumerate(args):
        for leaf in jax.tree.leaves(arg):
            if not isinstance(
                leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
            ):
                raise TypeError(
                    f"compare_function: argument {index} holds {type(leaf).__name__}; expected "
                    f"arrays — give other settings by "
                    "functools.partial."
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__}(…)"


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **dict(_installed())}


def _installed() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            yield package, version(package)
