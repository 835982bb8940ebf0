"""`compare_function`: a function as it is, under `jit`, and under `vmap`, timed in turn."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxdl.speed.compare import (
    Way,
    _blocking,
    _check_arrays,
    _divided,
    _repeated,
    _short,
    _warmed,
    difference,
    report_of,
)
from jaxdl.speed.cost import cost_of
from jaxdl.speed.device import DeviceSpeed, measure_device
from jaxdl.speed.report import SpeedReport
from jaxdl.speed.rounds import Steady, check_rounds, in_turn
from jaxdl.training import checks


def compare_function(
    function: Callable[..., Any],
    *args: Any,
    vmap_over: int | None = 16,
    in_axes: Any = 0,
    rounds: int = 9,
    seconds: float = 0.2,
    widest_spread: float = 0.25,
    device: DeviceSpeed | None = None,
    name: str | None = None,
) -> SpeedReport:
    """Times a function as it is, under `jit`, and under `jit` of `vmap`.

    All times are of one call: under "vmap", of `vmap_over` copies of the arguments, laid along a
    new axis and computed by one program, divided by their number; so "jit" beside it is what a
    Python loop over the copies takes.

    Args:
        function: of arrays, or trees of arrays; settings that are none are given by
            `functools.partial`.
        args: what to call it with.
        vmap_over: how many copies; None leaves "vmap" out.
        in_axes: which arguments are copied, and along which axis, as in `jax.vmap`: `(None, 0)`
            shares the first.
        rounds, seconds, widest_spread, device: as in `compare`.
        name: what the report calls the work; None is the function's name.

    Returns:
        The report; Δ compares outputs with those of the function as it is.

    >>> import jax.numpy as jnp
    >>> square = jnp.ones((64, 64))
    >>> report = compare_function(jnp.dot, square, square, rounds=3, seconds=0.001)
    >>> [way.name for way in report.executions], report["jit"].flops == 2 * 64**3
    (['eager', 'jit', 'vmap'], True)
    """
    check_rounds(rounds, seconds, widest_spread)
    _check_arrays(args)
    args = jax.device_put(args)
    fresh = _afresh(function)
    calls: dict[str, Callable[[], Any]] = {"eager": lambda: function(*args)}
    jitted = jax.jit(fresh)
    calls["jit"] = lambda: jitted(*args)
    parts = {"eager": 1, "jit": 1}
    many = args
    if vmap_over is not None:
        parts["vmap"] = checks.check_count("vmap_over", vmap_over)
        many = jax.vmap(lambda *one: one, None, in_axes, axis_size=vmap_over)(*args)
        mapped = jax.jit(jax.vmap(_afresh(function), in_axes))
        calls["vmap"] = lambda: mapped(*many)
    warmed = {way: _warmed(_blocking(call), None) for way, call in calls.items()}
    cost = cost_of(function, *args)
    costs = {"eager": cost, "jit": cost}
    if vmap_over is not None:
        costs["vmap"] = _divided(cost_of(jax.vmap(function, in_axes), *many), vmap_over)
    outputs = {way: call() for way, call in calls.items()}
    if "vmap" in outputs:
        outputs["vmap"] = jax.tree.map(lambda leaf: leaf[0], outputs["vmap"])
    before = device or measure_device()
    times = in_turn({way: _repeated(call) for way, call in calls.items()}, rounds, seconds)
    ways = {}
    for way, time in times.items():
        each = Steady(tuple(taken / parts[way] for taken in time.seconds), time.repeats)
        apart = difference(outputs["eager"], outputs[way])
        ways[way] = Way(warmed[way], each, costs[way], apart)
    return report_of(
        ways,
        device or before.best(measure_device()),
        name=name or getattr(function, "__name__", None) or _short(function),
        unit="call",
        examples=None,
        widest_spread=widest_spread,
        compared=1,
        results="outputs",
    )


def _afresh(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function as a new object, so that its programs are compiled anew."""

    def afresh(*args: Any, **settings: Any) -> Any:
        return function(*args, **settings)

    with contextlib.suppress(AttributeError):
        functools.update_wrapper(afresh, function)
    return afresh
