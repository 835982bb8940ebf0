"""Composites that a user writes, and where in a model an error says it happened."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.compiling.target import compiling_for
from jaxdl.core.error import LayerError
from jaxdl.layers.precision import in_precision
from tests.layers.oracles import close, normal

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
X = normal(0, (3, 4))


@dataclasses.dataclass(frozen=True)
class Cell(dl.Composite):
    """One layer used twice, and a part with state."""

    features: int

    def wire(self, wiring: Any, x: Any) -> Any:
        h = wiring.part("inner", dl.Dense(self.features), x)
        h = wiring.part("again", dl.Dense(self.features), h, shares="inner")
        return wiring.math(lambda a, b: a * b, h, wiring.part("norm", dl.BatchNorm(), x))


def test_a_composite_is_its_wiring() -> None:
    params, state = Cell(4).init(KEY, X)
    assert (set(params), set(state)) == ({"inner", "norm"}, {"norm"})
    y, _ = Cell(4).apply(params, state, X)
    dense = lambda x: dl.Dense(4).apply(params["inner"], {}, x)[0]  # noqa: E731
    close(y, dense(dense(X)) * dl.BatchNorm().apply(params["norm"], state["norm"], X)[0])


def test_a_composite_prints_and_compares_as_a_value() -> None:
    assert repr(Cell(4)) == "Cell(4)"
    assert Cell(4) == Cell(4) != Cell(5)
    assert len({Cell(4), Cell(4), Cell(5)}) == 2


def test_init_runs_no_forward_pass_of_a_composite() -> None:
    """Output shapes come from shapes alone: a batch of any size costs nothing."""
    params, _ = dl.Sequential(dl.Conv(2, 3), dl.Flatten(), dl.Dense(1)).init(
        KEY, jax.ShapeDtypeStruct((10**9, 8, 8, 1), jnp.float32)
    )
    assert params["dense_0"]["kernel"].shape == (128, 1)


def test_weights_depend_on_the_shape_of_one_example_alone() -> None:
    first, second = (
        dl.Sequential(dl.Dense(3), dl.Dense(2)).init(KEY, jnp.zeros((n, 4))) for n in (1, 7)
    )
    close(first, second, 0)


def test_inputs_may_be_trees() -> None:
    @dataclasses.dataclass(frozen=True)
    class Pair(dl.Composite):
        def wire(self, wiring: Any, x: Any) -> Any:
            left = wiring.part("left", dl.Dense(2), x["left"])
            return wiring.math(
                lambda a, b: a + b, left, wiring.part("right", dl.Dense(2), x["right"])
            )

    x = {"left": np.ones((2, 3)), "right": np.ones((2, 5))}
    params, state = Pair().init(KEY, x)
    assert params["right"]["kernel"].shape == (5, 2)
    assert Pair().apply(params, state, x)[0].shape == (2, 2)


def test_a_part_tied_to_one_that_has_not_run() -> None:
    @dataclasses.dataclass(frozen=True)
    class Early(dl.Composite):
        def wire(self, wiring: Any, x: Any) -> Any:
            return wiring.part("late", dl.Dense(4), x, shares="missing")

    with pytest.raises(
        LayerError, match=r"^Dense at 'late': it uses the parameters of 'missing', and no part"
    ):
        Early().init(KEY, X)


def test_two_parts_of_one_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class Twice(dl.Composite):
        def wire(self, wiring: Any, x: Any) -> Any:
            return wiring.part("dense", dl.Dense(4), wiring.part("dense", dl.Dense(4), x))

    with pytest.raises(
        LayerError, match=r"^Dense at 'dense': another part has this name .* shares='dense'"
    ):
        Twice().init(KEY, X)


@pytest.mark.parametrize(
    "build",
    [lambda inner: dl.Sequential(body=inner), dl.Residual, dl.Map],
    ids=["body", "body", "map"],
)
def test_errors_name_the_part(build: Any) -> None:
    model = dl.Sequential(head=build(dl.Sequential(dl.Dense(4), dl.Dense(4))))
    x = jnp.zeros((2, 3, 4))
    params, state = model.init(KEY, x)
    params["head"]["body"]["dense_1"]["kernel"] = jnp.zeros((5, 4))
    with pytest.raises(LayerError) as caught:
        model.apply(params, state, x)
    assert caught.value.path == ("head", "body", "dense_1")
    assert str(caught.value).startswith(
        "Dense at 'head.body.dense_1': expected 5 features, as at init, got 4 (input of shape"
    )


def test_errors_name_the_part_at_init() -> None:
    model = dl.Sequential(stem=dl.Sequential(dl.Flatten(), dl.Conv(3, 3)))
    with pytest.raises(
        LayerError, match=r"^Conv at 'stem\.conv_0': expected \[batch, \*space, channels\]"
    ):
        model.init(KEY, jnp.zeros((1, 8, 8, 1)))


def test_errors_of_functions_say_where_they_are() -> None:
    def broken(x: Any) -> Any:
        raise ValueError("broken")

    model = dl.Sequential(outer=dl.Sequential(dl.Dense(3), broken))
    with pytest.raises(ValueError, match="broken") as caught:
        model.init(KEY, X)
    assert caught.value.__notes__[-1] == "in the part 'outer.broken_0' of the model"


def test_errors_in_a_traced_model_say_where_they_are() -> None:
    model = dl.Sequential(dl.Dense(3), dl.Dense(2))
    params, state = model.init(KEY, X)
    with pytest.raises(LayerError, match=r"^Dense at 'dense_0': expected 4 features"):
        jax.jit(lambda x: model.apply(params, state, x))(jnp.zeros((2, 9)))


@dataclasses.dataclass(frozen=True)
class Block(dl.Composite):
    """Counts in `traces` how often it is wired on arrays."""

    traces: Any = dataclasses.field(compare=False)
    rate: Any = 0.5

    def wire(self, wiring: Any, x: Any) -> Any:
        self.traces.append(x)
        y = wiring.part("norm", dl.BatchNorm(), wiring.part("dense", dl.Dense(4), x))
        return wiring.part("dropout", dl.Dropout(self.rate), y)


def blocks(rate: Any = 0.5) -> tuple[dl.Sequential, list[Any]]:
    traces: list[Any] = []
    return dl.Sequential(*[Block(traces, rate)] * 4, dl.Dense(2)), traces


def within_program(model: Any, params: Any, state: Any, mode: Any = dl.Eval()) -> Any:
    @jax.jit
    def program(params: Any, state: Any, x: Any) -> Any:
        with compiling_for(None):
            return model.apply(params, state, x, mode)

    return program(params, state, X)[0]


def test_a_part_in_several_places_of_a_program_is_traced_once() -> None:
    model, traces = blocks()
    params, state = model.init(KEY, X)
    mode = dl.Train(jax.random.key(1))
    traces.clear()
    expected, new = jax.jit(lambda p, s, x: model.apply(p, s, x, mode))(params, state, X)
    assert len(traces) == 4

    @jax.jit
    def program(params: Any, state: Any, x: Any) -> Any:
        with compiling_for(None):
            return model.apply(params, state, x, mode)

    traces.clear()
    outputs, updated = program(params, state, X)
    assert len(traces) == 1
    np.testing.assert_array_equal(
        outputs, expected
    )  # each with its own parameters, statistics and dropout
    jax.tree.map(np.testing.assert_array_equal, updated, new)


@pytest.mark.slow
def test_a_part_in_several_places_may_have_a_rate_that_is_an_array() -> None:
    model, _ = blocks()
    params, state = model.init(KEY, X)

    @jax.jit
    def program(rate: Any) -> Any:
        with compiling_for(None):
            return blocks(rate)[0].apply(params, state, X, dl.Train(KEY))[0]

    np.testing.assert_array_equal(
        program(jnp.float32(0.5)),
        jax.jit(lambda r: blocks(r)[0].apply(params, state, X, dl.Train(KEY))[0])(0.5),
    )


def raised(n: Any, x: Any) -> Any:
    return x * n if isinstance(n, float) else x**n


def test_parts_that_differ_in_the_type_of_a_number_alone_are_two() -> None:
    model = dl.Sequential(
        *[dl.Sequential(dl.Dense(4), functools.partial(raised, n)) for n in (2, 2.0)]
    )
    params, state = model.init(KEY, X)
    np.testing.assert_allclose(
        within_program(model, params, state), model.apply(params, state, X)[0], rtol=1e-6
    )


def test_what_was_traced_serves_one_program_alone() -> None:
    factor = [1.0]
    block = dl.Sequential(dl.Dense(4), lambda x: x * factor[0])
    for value in (1.0, 3.0):
        factor[0] = value
        model = dl.Sequential(block, block, *[jnp.tanh] * int(value))
        params, state = model.init(KEY, X)
        np.testing.assert_allclose(
            within_program(model, params, state), model.apply(params, state, X)[0], rtol=1e-6
        )


def test_it_is_traced_once_in_a_narrower_dtype_too() -> None:
    model, traces = blocks()
    narrow = in_precision(model, "bfloat16")
    params, state = narrow.init(KEY, X)
    traces.clear()
    within_program(narrow, params, state)
    assert len(traces) == 1


@dataclasses.dataclass(frozen=True)
class Sevens(Cell):
    """A composite that draws its parameters otherwise, against the types."""

    def init(self, key: Any, x: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        params, state = super().init(key, x)
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 7), params), state


def test_a_part_has_the_first_parameters_that_it_gives() -> None:
    params, _ = dl.Sequential(Sevens(4)).init(KEY, X)
    assert all((leaf == 7).all() for leaf in jax.tree.leaves(params))


def test_an_error_in_one_of_several_places_says_where_it_is() -> None:
    model = dl.Sequential(*[dl.Sequential(dl.Dense(4), dl.Dense(4))] * 2)
    params, state = model.init(KEY, X)

    def program(x: Any) -> Any:
        with compiling_for(None):
            return model.apply(params, state, x)

    with pytest.raises(LayerError, match=r"'sequential_0.dense_0'"):
        jax.jit(program)(normal(0, (3, 5)))


def test_first_parameters_of_a_part_in_several_places_are_traced_once_and_drawn_for_each() -> (
    None
):
    traces: list[Any] = []

    def kernel(key: Any, shape: Any, dtype: Any) -> Any:
        traces.append(shape)
        return jax.random.normal(key, shape, dtype)

    block = dl.Sequential(dl.Dense(4, kernel_init=kernel), jnp.tanh, dl.BatchNorm())
    model = dl.Sequential(*[block] * 3)
    expected = model.init(KEY, X)
    assert len(traces) == 3
    traces.clear()
    drawn = jax.jit(lambda key: model.init(key, X))(KEY)
    assert len(traces) == 1
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)
    kernels = [part["dense_0"]["kernel"] for part in drawn[0].values()]
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(kernels, 2))


@pytest.mark.slow
def test_in_several_places_of_different_shapes_each_is_drawn_by_itself() -> None:
    block = dl.Sequential(dl.Dense(5), dl.Dense(6))
    model = dl.Sequential(*[block] * 3)  # of 4, then of 6 features twice
    drawn, expected = jax.jit(lambda key: model.init(key, X))(KEY), model.init(KEY, X)
    jax.tree.map(np.testing.assert_array_equal, drawn, expected)
    assert [part["dense_0"]["kernel"].shape for part in drawn[0].values()] == [
        (4, 5),
        (6, 5),
        (6, 5),
    ]


def test_an_error_in_the_first_parameters_of_several_places_says_where_it_is() -> None:
    model = dl.Sequential(
        *[dl.Sequential(dl.Dense(4, kernel_init=lambda key, shape, dtype: None))] * 2
    )
    with pytest.raises(LayerError, match=r"'sequential_0.dense_0'"):
        jax.eval_shape(lambda key: model.init(key, X), KEY)


@dataclasses.dataclass(frozen=True)
class Written(dl.Composite):
    """A composite whose data flow is given."""

    flow: Any

    def wire(self, wiring: Any, x: Any) -> Any:
        return self.flow(wiring, x)


def test_a_part_may_be_a_plain_function() -> None:
    x = jnp.array([[-1.0, 2.0]])
    model = Written(
        lambda wiring, x: wiring.part(
            "second", jnp.negative, wiring.part("first", jax.nn.relu, x)
        )
    )
    params, state = model.init(jax.random.key(0), x)
    assert (params, state) == ({}, {})
    for other in (model, dl.in_precision(model, "float32")):
        np.testing.assert_array_equal(other.apply(params, state, x)[0], [[0.0, -2.0]])
    assert [row.kind for row in dl.summary(model, x, show=False).rows] == ["relu", "negative"]


@pytest.mark.parametrize(
    "flow",
    [
        lambda wiring, x: wiring.part("dense", dl.Dense(2), x) * 2,
        lambda wiring, x: jnp.tanh(wiring.part("dense", dl.Dense(2), x)),
        lambda wiring, x: wiring.part("dense", dl.Dense(2), x).mean(),
    ],
)
def test_mathematics_beside_the_wiring_is_named(flow: Any) -> None:
    for model, place in (
        (Written(flow), "Written"),
        (dl.Sequential(Written(flow)), "Written at 'written_0'"),
    ):
        with pytest.raises(
            dl.LayerError,
            match=rf"^{place}: wire computes with arrays itself.* — put mathematics into wiring.math",
        ):
            model.init(jax.random.key(0), jnp.ones((1, 2)))


def test_a_data_flow_gives_something() -> None:
    with pytest.raises(dl.LayerError, match=r"^Written: wire returns None"):
        Written(lambda wiring, x: None).init(jax.random.key(0), jnp.ones((1, 2)))
