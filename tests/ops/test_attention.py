"""The kernel that never forms the weights of attention: where it is used, and on a GPU what it gives."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.compiling import target
from jaxdl.ops import attention as ops

QUERIES, NARROW = (2, 64, 4, 64), (2, 64, 2, 64)


@pytest.fixture
def untraced() -> Iterator[None]:
    """What a test traces with a stand-in is not what the next one calls."""
    jax.clear_caches()
    yield
    jax.clear_caches()


def drawn(dtype: Any, kv_heads: bool = False) -> list[jax.Array]:
    random = np.random.default_rng(0)
    shapes = [QUERIES, *[NARROW if kv_heads else QUERIES] * 2]
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_without_such_a_kernel_nothing_changes(dtype: Any, causal: bool) -> None:
    if jax.default_backend() == "gpu" and dtype == jnp.bfloat16:
        pytest.skip("there is one")
    plain, flash = (
        ops.attention(*drawn(dtype), causal=causal, flash=flash) for flash in (False, True)
    )
    np.testing.assert_array_equal(np.asarray(plain, np.float32), np.asarray(flash, np.float32))


@pytest.mark.usefixtures("untraced")
def test_programs_for_cuda_alone_have_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def stand_in(
        query: Any,
        key: Any,
        value: Any,
        bias: Any,
        mask: Any,
        *,
        is_causal: bool,
        implementation: str | None,
    ) -> Any:
        asked.append((is_causal, implementation))
        return query * (3 if implementation == "cudnn" else 5)

    monkeypatch.setattr(ops, "_cudnn_supports", lambda query: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    f = jax.jit(lambda q, k, v: ops.attention(q, k, v, causal=True, flash=True))
    text = {
        at: f.trace(*drawn(jnp.bfloat16)).lower(lowering_platforms=(at,)).as_text()
        for at in ("cpu", "cuda", "tpu")
    }
    assert set(asked) == {(True, "cudnn"), (True, None)}
    assert {at: "3.000" in lowered for at, lowered in text.items()} == {
        "cpu": False,
        "cuda": True,
        "tpu": False,
    }


@pytest.mark.slow
def test_what_the_kernel_lacks_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_cudnn_supports", lambda query: True)
    query, key, value = drawn(jnp.bfloat16)
    settings: list[dict[str, Any]] = [
        {"mask": jnp.ones((1, 1, 64, 64), bool)},
        {"bias": jnp.ones((1, 1, 64, 64), jnp.bfloat16)},
        {"soft_cap": 5.0},
        {"dropout": 0.5, "dropout_key": jax.random.key(0)},
    ]
    for how in settings:
        ops.attention(
            query, key, value, flash=True, **how
        )  # on this machine the kernel would be an error


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 4, 1, 64), jnp.float32),
        ((1, 4, 1, 63), jnp.bfloat16),
        ((1, 4, 1, 136), jnp.float16),
    ],
)
def test_heads_that_the_kernel_does_not_take(shape: Any, dtype: Any) -> None:
    assert not ops._cudnn_supports(jnp.zeros(shape, dtype))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs a GPU")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kv_heads", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_on_a_gpu_the_kernel_gives_what_the_equation_gives(
    dtype: Any, kv_heads: bool, causal: bool
) -> None:
    inputs = drawn(dtype, kv_heads)

    def outputs(flash: bool, *inputs: Any) -> Any:
        f = functools.partial(ops.attention, causal=causal, flash=flash)
        y, back = jax.vjp(f, *inputs)
        return y, *back(jnp.cos(y))

    program = jax.jit(functools.partial(outputs, True))
    assert "fmha" in program.lower(*inputs).as_text()
    given = [np.asarray(each, np.float32) for each in program(*inputs)]
    wide = [each.astype(jnp.float32) for each in inputs]
    with jax.default_matmul_precision("highest"):
        expected = [
            np.asarray(each) for each in jax.jit(functools.partial(outputs, False))(*wide)
        ]
    for ours, theirs in zip(given, expected, strict=True):
        assert np.linalg.norm(ours - theirs) < 2e-2 * np.linalg.norm(theirs)


@pytest.mark.skipif(
    jax.default_backend() == "gpu", reason="there the GPU of the process answers"
)
@pytest.mark.parametrize(
    ("platform", "taken"), [("cuda", True), ("tpu", False), ("cpu", False)]
)
def test_the_kernel_is_that_of_the_target(
    platform: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "_cuda_is_installed", lambda: True)
    heads = jnp.zeros((1, 4, 1, 64), jnp.bfloat16)
    with target.compiling_for(platform):
        assert ops._cudnn_supports(heads) == taken
    assert not ops._cudnn_supports(heads)
