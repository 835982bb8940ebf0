"""What is fastest on a platform is chosen as a program is lowered, or as it is traced where there is one platform alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxdl import ops
from jaxdl.compiling import target as target_module
from jaxdl.compiling.target import compiling_for, target
from jaxdl.ops.by_platform import by_platform

IMAGES, QUERIES = jnp.ones((8, 6, 6, 8)), jnp.ones((2, 4, 2, 8))
OPERATIONS: dict[str, Callable[[], Any]] = {
    "conv": lambda: ops.conv.conv(
        IMAGES, jnp.ones((3, 3, 8, 8)), stride=(1, 1), padding="SAME", dilation=(1, 1)
    ),
    "conv_transpose": lambda: ops.conv_transpose.conv_transpose(
        IMAGES, jnp.ones((3, 3, 8, 8)), stride=(2, 2), padding="SAME", dilation=(1, 1)
    ),
    "max_pool": lambda: ops.pool.max_pool(
        IMAGES, window=(2, 2), stride=(2, 2), padding="VALID"
    ),
    "avg_pool": lambda: ops.pool.avg_pool(
        IMAGES, window=(2, 2), stride=(2, 2), padding="VALID"
    ),
    "attention": lambda: ops.attention.attention(QUERIES, QUERIES, QUERIES),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_program_that_runs_here_alone_holds_one_form(name: str) -> None:
    def traced() -> str:
        return str(jax.make_jaxpr(lambda: OPERATIONS[name]())())

    for _ in range(2):  # what is traced for one is not taken for the other
        assert "platform_index" in traced()
        with compiling_for(None):
            assert "platform_index" in traced()
        with compiling_for("cpu"):
            assert "platform_index" not in traced()
    outside = jax.jit(lambda: OPERATIONS[name]())()
    with compiling_for("cpu"):
        assert (jax.jit(lambda: OPERATIONS[name]())() == outside).all()


def test_each_platform_has_its_own() -> None:
    def chosen(x: jax.Array) -> jax.Array:
        return by_platform(target().platform, x, cpu=jnp.sin, tpu=jnp.cos, default=jnp.tanh)

    for platform, operation in (("cpu", "sine"), ("tpu", "cosine"), ("cuda", "tanh")):
        assert (
            operation
            in jax.export.export(jax.jit(chosen), platforms=[platform])(
                jnp.ones(2)
            ).mlir_module()
        )
    for platform, function in (("cpu", jnp.sin), ("tpu", jnp.cos), ("cuda", jnp.tanh)):
        assert by_platform(
            platform, jnp.ones(()), cpu=jnp.sin, tpu=jnp.cos, default=jnp.tanh
        ) == function(1.0)


def test_where_there_are_two_platforms_none_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, known in ((["cpu"], "cpu"), (["cpu", "cuda"], None)):
        monkeypatch.setattr(target_module, "backends", lambda found=found: dict.fromkeys(found))
        assert target_module._only_backend.__wrapped__() == known


def test_a_program_says_what_it_is_for() -> None:
    assert target().platform is None
    with compiling_for("cpu"):
        assert target().platform == "cpu"
        with compiling_for(None):
            assert target().platform is None
    assert target().platform is None
