"""The recurrences against a cell that is scanned and differentiated as it stands, in float64."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxdl.ops import recurrent

TIME, BATCH, FEATURES = 6, 3, 4
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def scanned_rnn(a: Any, kernel: Any, h: Any, mask: Any) -> Any:
    def step(h: Any, a: Any) -> Any:
        h = jnp.tanh(a + (h * mask) @ kernel)
        return h, h

    return lax.scan(step, h, a)[1]


def scanned_lstm(a: Any, kernel: Any, h: Any, c: Any, mask: Any) -> Any:
    def step(carry: Any, a: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(a + (h * mask) @ kernel, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), (h, c)

    return lax.scan(step, (h, c), a)[1]


def scanned_gru(a: Any, kernel: Any, bias: Any, h: Any, mask: Any) -> Any:
    def step(h: Any, a: Any) -> Any:
        (ar, az, an), (ur, uz, un) = jnp.split(a, 3, -1), jnp.split((h * mask) @ kernel, 3, -1)
        r, z = jax.nn.sigmoid(ar + ur), jax.nn.sigmoid(az + uz)
        h = (1 - z) * jnp.tanh(an + r * (un + bias[None])) + z * h
        return h, h

    return lax.scan(step, h, a)[1]


def ours_rnn(a: Any, kernel: Any, h: Any, mask: Any) -> Any:
    return recurrent.recurrence(jnp.tanh, a, kernel, h, mask)


def arguments(gates: int, extra: tuple[tuple[int, ...], ...]) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    shapes = [
        (TIME, BATCH, gates * FEATURES),
        (FEATURES, gates * FEATURES),
        *extra,
        (BATCH, FEATURES),
    ]
    return tuple(jnp.asarray(rng.normal(size=shape)) for shape in shapes)


STATE = (BATCH, FEATURES)
CASES: dict[
    str, tuple[Callable[..., Any], Callable[..., Any], int, tuple[tuple[int, ...], ...]]
] = {
    "rnn": (ours_rnn, scanned_rnn, 1, (STATE,)),
    "lstm": (recurrent.lstm, scanned_lstm, 4, (STATE, STATE)),
    "gru": (recurrent.gru, scanned_gru, 3, ((FEATURES,), STATE)),
}
every_case = pytest.mark.parametrize(
    ("ours", "scanned", "gates", "extra"), CASES.values(), ids=CASES.keys()
)


def weighed(function: Callable[..., Any]) -> Callable[..., Any]:
    """A scalar in which every output of the function counts, each with a weight of its own."""

    def objective(*args: Any) -> Any:
        leaves = jax.tree.leaves(function(*args))
        return sum(
            jnp.sum(jnp.sin(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape) * leaf)
            for leaf in leaves
        )

    return objective


def close(ours: Any, theirs: Any) -> None:
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), ours, theirs
    )


@pytest.mark.sampled
@every_case
def test_states_and_gradients_equal_autodiff_of_the_scanned_cell(
    ours: Any, scanned: Any, gates: int, extra: Any
) -> None:
    with jax.enable_x64(True):
        args = arguments(gates, extra)
        close(ours(*args), scanned(*args))
        everything = tuple(range(len(args)))
        gradients = [jax.jit(jax.grad(weighed(f), everything))(*args) for f in (ours, scanned)]
        close(*gradients)
        tangents = tuple(jnp.cos(arg) for arg in args)
        close(*(jax.jvp(f, args, tangents) for f in (ours, scanned)))


@pytest.mark.slow
@every_case
def test_second_derivatives_equal_autodiff_of_the_scanned_cell(
    ours: Any, scanned: Any, gates: int, extra: Any
) -> None:
    with jax.enable_x64(True):
        args = arguments(gates, extra)
        direction = tuple(jnp.cos(arg) for arg in args)
        everything = tuple(range(len(args)))

        def both(f: Any) -> Any:
            """Forwards over backwards, and backwards over backwards."""
            gradient = jax.grad(weighed(f), everything)

            def along(*args: Any) -> Any:
                return sum(
                    jnp.sum(g * d) for g, d in zip(gradient(*args), direction, strict=True)
                )

            return jax.jvp(gradient, args, direction)[1], jax.grad(along, everything)(*args)

        ours_forwards, ours_backwards = jax.jit(both, static_argnums=0)(ours)
        forwards, _ = jax.jit(both, static_argnums=0)(scanned)
        close(ours_forwards, forwards)
        close(ours_backwards, forwards)


@pytest.mark.slow
@every_case
def test_vmap_equals_a_loop(ours: Any, scanned: Any, gates: int, extra: Any) -> None:
    with jax.enable_x64(True):
        args = arguments(gates, extra)
        members = [
            jax.tree.map(lambda leaf, scale=scale: leaf * scale, args) for scale in (1.0, 0.5)
        ]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        gradient = jax.grad(weighed(ours), tuple(range(len(args))))
        expected = jax.tree.map(
            lambda *leaves: jnp.stack(leaves), *[gradient(*member) for member in members]
        )
        close(jax.vmap(gradient)(*stacked), expected)


@pytest.mark.sampled
@every_case
def test_no_mask_is_a_mask_of_ones(ours: Any, scanned: Any, gates: int, extra: Any) -> None:
    with jax.enable_x64(True):
        *args, mask = arguments(gates, extra)
        del mask
        close(ours(*args, None), scanned(*args, jnp.ones(STATE)))


def products_in_loops(jaxpr: Any, inside: bool = False) -> list[tuple[int, ...]]:
    """The output shapes of the matrix products that a program has inside its loops."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general" and inside:
            found.append(tuple(equation.outvars[0].aval.shape))
        parts = [
            part
            for value in equation.params.values()
            for part in (value if isinstance(value, tuple) else (value,))
        ]
        for part in parts:
            inner = getattr(part, "jaxpr", part)
            if hasattr(inner, "eqns"):
                found += products_in_loops(inner, inside or equation.primitive.name == "scan")
    return found


@pytest.mark.sampled
@every_case
def test_the_gradient_of_the_recurrent_kernel_is_formed_outside_of_the_loop(
    ours: Any, scanned: Any, gates: int, extra: Any
) -> None:
    args = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), arguments(gates, extra))
    kernel = (FEATURES, gates * FEATURES)

    def transposed(f: Any) -> set[tuple[int, ...]]:
        jaxpr = jax.make_jaxpr(jax.grad(weighed(f), tuple(range(len(args)))))(*args)
        return {tuple(sorted(shape)) for shape in products_in_loops(jaxpr.jaxpr)}

    assert tuple(sorted(kernel)) not in transposed(ours)
    assert tuple(sorted(kernel)) in transposed(scanned)


@pytest.mark.parametrize("lengths", [None, [6, 0, 3]])
def test_reversing_within_lengths(lengths: Any) -> None:
    x = np.arange(TIME * BATCH, dtype=np.float32).reshape(TIME, BATCH)
    expected = x.copy()
    for column, n in enumerate(lengths or [TIME] * BATCH):
        expected[:n, column] = x[:n, column][::-1]
    given = None if lengths is None else jnp.asarray(lengths, jnp.int32)
    once = recurrent.reverse_sequences(jnp.asarray(x), given)
    np.testing.assert_array_equal(once, expected)
    np.testing.assert_array_equal(recurrent.reverse_sequences(once, given), x)
