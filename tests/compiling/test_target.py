"""What is compiled for is stated once, and what was traced for one target is not used for another."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxdl.compiling import target as module
from jaxdl.compiling.target import (
    Target,
    compiling_for,
    compute_capability,
    default_platform,
    single_platform,
    target,
    tracing_population,
)
from jaxdl.ops import pool


def test_a_target_ends_with_its_block() -> None:
    assert target() == Target()
    with pytest.raises(ZeroDivisionError), compiling_for("tpu"):
        failing()
    assert target() == Target()


def failing() -> None:
    with tracing_population():
        assert target() == Target("tpu", program=True, population=True)
    assert target() == Target("tpu", program=True)
    raise ZeroDivisionError


def test_a_stated_platform_answers_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_only_backend", lambda: "cpu")
    with compiling_for("tpu"):
        assert (single_platform(), default_platform()) == ("tpu", "tpu")
        with compiling_for(single_platform()):
            assert target().platform == "tpu"
    with compiling_for(None):
        assert single_platform() is None
        assert default_platform() == jax.default_backend()
    assert single_platform() == "cpu"


def test_a_population_alone_states_no_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_only_backend", lambda: "cpu")
    with tracing_population():
        assert single_platform() == "cpu"
        assert not target().program


def test_jit_traces_anew_for_another_target() -> None:
    seen = []

    @jax.jit
    def double(x: Any) -> Any:
        seen.append(target().platform)
        return 2 * x

    for _ in range(2):
        double(1.0)
        for platform in ("cpu", "cuda"):
            with compiling_for(platform):
                double(1.0)
    assert seen == [None, "cpu", "cuda"]


def test_a_program_for_an_accelerator_holds_its_form_alone() -> None:
    x = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    window: dict[str, Any] = {"window": (2, 2), "stride": (2, 2), "padding": "VALID"}

    def pooled(x: Any) -> Any:
        return pool.max_pool(x, **window)

    for platform, reduces in (("tpu", True), ("cuda", True), ("cpu", False)):
        with compiling_for(platform):
            traced = jax.jit(pooled).trace(x)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("reduce_window" in text) == reduces
        assert "platform_index" not in str(traced.jaxpr)


@pytest.mark.parametrize(("platform", "capability"), [("cuda", 8), ("tpu", 0), ("cpu", 0)])
def test_a_gpu_that_is_not_there_is_taken_to_be_a_recent_one(
    platform: str, capability: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if jax.default_backend() == "gpu":
        pytest.skip("there the GPU of the process answers")
    monkeypatch.setattr(module, "_cuda_is_installed", lambda: True)
    with compiling_for(platform):
        assert compute_capability() == capability
    assert compute_capability() == 0
    monkeypatch.setattr(module, "_cuda_is_installed", lambda: False)
    with compiling_for("cuda"):
        assert compute_capability() == 0
