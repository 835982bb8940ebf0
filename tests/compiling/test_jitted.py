"""Which of its two forms a program has, and that Python's collector is left as it was."""

import gc
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxdl.compiling.jitted import Jitted, gc_disabled
from jaxdl.compiling.target import compiling_for, target


def test_options_are_for_a_cpu_wherever_it_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"xla_backend_optimization_level": 0}
    double = Jitted(lambda x: 2 * x, options)
    assert double.options(2.0) == options
    monkeypatch.setattr(jax, "default_backend", lambda: "cuda")
    assert not double.options(2.0)
    for device in (jax.devices("cpu")[0], "cpu"):
        with jax.default_device(device):
            assert double.options(2.0) == options
    assert double(jnp.float32(2)) == 4


def test_options_may_hang_on_the_arguments() -> None:
    def options(x: Any) -> dict[str, int]:
        return {"xla_backend_optimization_level": 0} if x.size > 1 else {}

    double = Jitted(lambda x: 2 * x, options)
    for size in (1, 2, 3, 2):
        assert double(jnp.ones(size)).sum() == 2 * size
    assert double._cache_size() == 3


def failing() -> None:
    with compiling_for(None):
        assert target().program
        raise ZeroDivisionError


def test_a_program_is_traced_until_its_trace_ends() -> None:
    with pytest.raises(ZeroDivisionError):
        failing()
    assert not target().program


@gc_disabled()
def failing_uncollected() -> None:
    assert not gc.isenabled()
    raise ZeroDivisionError


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError):
            failing_uncollected()
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
