"""A planted recompilation is found among others, with its reason."""

import functools
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.speed import compilations


def watched() -> jax.stages.Wrapped:
    """A jitted function that no other test has compiled."""

    @functools.partial(jax.jit, static_argnames=("rate", "mode"))
    def scale(
        params: dict[str, jax.Array], x: jax.Array, rate: float = 1.0, mode: object = None
    ) -> jax.Array:
        del mode
        return params["w"] * rate + x.astype(jnp.float32).sum()

    return scale


def ones(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.ones(shape, dtype)


CHANGES = {
    "a shape": ({"x": ones(4)}, "shape", "`x` has another shape, float32[3] → float32[4]."),
    "a shape in a tree": (
        {"params": {"w": ones(2)}},
        "shape",
        "`params['w']` has another shape, float32[1] → float32[2].",
    ),
    "a dtype": (
        {"x": ones(3, dtype="int32")},
        "dtype",
        "`x` has another dtype, float32[3] → int32[3].",
    ),
    "a static float": (
        {"rate": 2.0},
        "static value",
        "static `rate` has another value, 1.0 → 2.0.",
    ),
    "a structure": (
        {"params": {"w": ones(1), "b": ones(1)}},
        "structure",
        "`params['b']` has another structure, nothing → float32[1].",
    ),
    "a weak type": (
        {"params": {"w": 1.0}},
        "weak type",
        "`params['w']` has another weak type, float32[] strong → float32[] weak (Python numbers are weak, arrays are not).",
    ),
    "a function of another name": (
        {"mode": np.sum},
        "static value",
        "static `mode` has another value, None → <function sum",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(name: str) -> None:
    change, kind, sentence = CHANGES[name]
    scale = watched()
    first = {
        "params": {"w": np.float32(1) if kind == "weak type" else ones(1)},
        "x": ones(3),
        "rate": 1.0,
        "mode": None,
    }
    with dl.why_compiled(show=False) as why:
        scale(**first)
        scale(**first)
        scale(**first | change)
    assert [each.number for each in why.functions] == [1, 2]
    (again,) = why.repeated
    assert again.function.endswith("scale")
    assert [each.kind for each in again.differences] == [kind]
    assert (
        again.reason.startswith(sentence) if sentence[-1] != "." else again.reason == sentence
    )
    assert again.trace_seconds > 0
    assert again.compile_seconds > 0
    assert again.memory_bytes is not None
    assert sentence in str(why)


def test_the_nearest_of_several_earlier_programs_is_compared_with() -> None:
    scale = watched()
    with dl.why_compiled(show=False) as why:
        for shape, rate in (((3,), 1.0), ((4,), 2.0), ((4,), 1.0)):
            scale({"w": ones(1)}, ones(*shape), rate=rate)
    assert [each.kind for each in why.repeated[0].differences] == ["shape", "static value"]
    assert len(why.repeated[1].differences) == 1


def test_a_function_defined_anew_and_what_it_closes_over_are_named() -> None:
    def planted(rate: float) -> jax.stages.Wrapped:
        return jax.jit(lambda x: x * rate)

    with dl.why_compiled(show=False) as why:
        planted(1.0)(ones(3))
        planted(2.0)(ones(3))
    assert [(each.kind, each.path) for each in why.repeated[0].differences[:1]] == [
        ("static value", "rate")
    ]
    assert "the function was defined anew (test_compilations.py:" in why.repeated[0].reason


def test_a_setting_of_jax_is_named() -> None:
    scale = watched()
    with dl.why_compiled(show=False) as why:
        scale({"w": ones(1)}, ones(3))
        with jax.default_matmul_precision("highest"):
            scale({"w": ones(1)}, ones(3))
    assert (
        why.repeated[0].reason
        == "the setting jax_default_matmul_precision differs, None → highest."
    )


def test_compiling_ahead_of_time_is_explained_by_its_arguments() -> None:
    scale = watched()
    with dl.why_compiled(show=False) as why:
        scale({"w": ones(1)}, ones(3))
        scale.lower({"w": ones(1)}, ones(5)).compile()
    assert why.repeated[0].reason == "`x` has another shape, float32[3] → float32[5]."


@pytest.mark.slow
def test_fit_compiles_again_for_a_new_optimizer_and_a_new_batch_size_and_not_otherwise() -> (
    None
):
    x, y = ones(8, 2), ones(8, 1)
    loss = functools.partial(losses.huber, delta=2.0)
    kept = optax.sgd(0.1)
    fit = functools.partial(dl.fit, dl.Dense(1), (x, y), loss=loss, progress=False)

    def loops(**settings: object) -> str:
        with dl.why_compiled(show=False) as why:
            fit(optimizer=kept, batch_size=4)
            fit(**{"optimizer": kept, "batch_size": 4} | settings)
        return " ".join(
            each.reason for each in why.repeated if each.function.endswith("epoch_loop")
        )

    def mine() -> optax.GradientTransformation:
        return optax.stateless(lambda updates, _: jax.tree.map(lambda leaf: -leaf, updates))

    loops()
    assert loops() == ""
    assert loops(optimizer=optax.sgd(0.1)) == ""
    jax.clear_caches()
    kept = mine()
    assert loops(optimizer=mine()) == (
        "static `step.optimizer` is another object, though it looks alike (GradientTransformation): make it once and "
        "pass the same one."
    )
    jax.clear_caches()
    kept = optax.sgd(0.1)
    assert loops(optimizer=optax.sgd(0.2)) == ""
    jax.clear_caches()
    assert (
        "static `step.optimizer` has another value, GradientTransformationExtraArgs("
        in loops(optimizer=optax.sgd(0.1, momentum=0.9))
    )
    jax.clear_caches()
    assert "`source.batch_size` has another value, 4 → 2" in loops(batch_size=2)


def test_single_operations_are_printed_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with dl.why_compiled() as why:
        jnp.ones((3, 5, 7)) * 3.5
    printed = capsys.readouterr().out
    assert why.functions == []
    assert f"{len(why)} single operations outside of jit" in printed
    assert printed.count("\n") == 1


def test_nothing_is_watched_after_the_end_and_nothing_compiled_is_said() -> None:
    scale = watched()
    with pytest.raises(ZeroDivisionError), dl.why_compiled(show=False) as why:
        1 / 0  # noqa: B018
    scale({"w": ones(1)}, ones(3))
    assert list(why) == []
    assert str(why) == "nothing was compiled."


def test_what_another_thread_compiles_is_recorded_too() -> None:
    scale = watched()
    with dl.why_compiled(show=False) as why:
        thread = threading.Thread(target=scale, args=({"w": ones(1)}, ones(3)))
        thread.start()
        thread.join()
    assert len(why.functions) == 1


def test_a_static_value_that_cannot_be_compared_does_not_end_the_call() -> None:
    class Awkward:
        def __eq__(self, other: object) -> bool:
            return self is other

        def __hash__(self) -> int:
            return id(self)

        def __repr__(self) -> str:
            raise RuntimeError("no text")

    scale = watched()
    with dl.why_compiled(show=False) as why:
        scale({"w": ones(1)}, ones(3), mode=Awkward())
        scale({"w": ones(1)}, ones(3), mode=Awkward())
    assert len(why.repeated) == 1


def test_a_version_of_jax_that_hides_its_calls_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilations, "jit_call", lambda: None)
    scale = watched()
    with dl.why_compiled(show=False) as why:
        scale({"w": ones(1)}, ones(3))
        scale({"w": ones(1)}, ones(4))
    (again,) = [each for each in why.repeated if each.function == "scale"]
    assert again.differences is None
    assert (
        again.reason
        == f"its arguments are unknown, as JAX {jax.__version__} does not show its calls."
    )


def test_arrays_are_not_kept_alive() -> None:
    scale, x = watched(), jnp.ones(1000)
    kept = weakref.ref(x)
    with dl.why_compiled(show=False) as why:
        scale({"w": ones(1)}, x)
        del x
        assert kept() is None
    assert len(why.functions) == 1
