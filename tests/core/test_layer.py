"""The contract: modes, the lift, functions as layers, values, and errors that say where they are."""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError, located
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Params

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
X = jnp.arange(6.0).reshape(2, 3)


def twice(x: Any) -> Any:
    return 2 * x


@dataclasses.dataclass(frozen=True)
class Scale(dl.Stateless):
    """A layer such as a user writes."""

    start: float = 1.0

    def weights(self, key: Any, x: Any) -> Params:
        return {"scale": jnp.full(x.shape[-1], self.start)}

    def forward(self, params: Params, x: Any) -> Any:
        return x * params["scale"][None]


@pytest.mark.once
def test_annotations_are_checked_in_these_tests() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        dl.ops.linear.linear(jnp.zeros((2, 3)), jnp.zeros((4, 5)), None)


def test_promotion_is_refused_in_these_tests() -> None:
    with pytest.raises(ValueError, match="rank_promotion"):
        _ = jnp.zeros((2, 3)) + jnp.zeros(3)
    with pytest.raises(Exception, match="no available implicit dtype promotion path"):
        _ = jnp.zeros(3) + jnp.zeros(3, jnp.int32)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (0, "Train(key): expected a typed key, jax.random.key(seed), got 0 of type int."),
        (
            None,
            "Train(key): expected a typed key, jax.random.key(seed), got None of type NoneType.",
        ),
        (
            np.zeros(2, np.uint32),
            "Train(key): expected a typed key, jax.random.key(seed), got an array of shape (2,) and dtype uint32.",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_training_needs_a_typed_key(key: Any, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        dl.Train(key)
    assert str(caught.value) == text


def test_old_style_keys_are_refused() -> None:
    with pytest.raises(TypeError, match=r"got an array of shape \(2,\) and dtype uint32"):
        dl.Train(jax.random.PRNGKey(0))


def test_modes_are_trees() -> None:
    mask = jnp.array([True, False])
    train = dl.Train(KEY, mask, "devices")
    leaves, structure = jax.tree.flatten(train)
    assert len(leaves) == 2
    assert leaves[1] is mask
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, dl.Train)
    assert again.key is KEY
    assert again.across == "devices"
    assert jax.tree.leaves(dl.Eval()) == []
    assert jax.tree.map(lambda leaf: leaf, dl.Eval()) == dl.Eval()
    assert isinstance(jax.jit(lambda mode: mode)(train), dl.Train)
    assert jax.tree.structure(dl.Train(KEY)) != jax.tree.structure(train)


def test_a_mode_within_a_part_has_a_key_of_its_own() -> None:
    train = dl.Train(KEY, jnp.ones(2, bool), "devices")
    assert train.for_part("a").across == "devices"
    assert train.for_part("a").key == fold_in_name(KEY, "a")
    assert train.for_part("a").key != train.for_part("b").key != train.key
    assert train.for_part("a").mask is train.mask
    assert train.for_part("a").for_part("b").key == fold_in_name(fold_in_name(KEY, "a"), "b")
    assert train.fold_in(3).for_part("a").key == fold_in_name(jax.random.fold_in(KEY, 3), "a")
    assert train.with_mask(None).for_part("a") == dl.Train(KEY, None, "devices").for_part("a")
    assert dl.Eval().for_part("a") == dl.Eval()
    assert (
        repr(dl.Train(KEY, None, "devices")) == f"Train({KEY!r}, mask=None, across='devices')"
    )


def test_programs_in_which_nothing_draws_derive_no_key() -> None:
    def derives(model: dl.Layer) -> bool:
        params, state = model.init(KEY, X)

        def apply(key: jax.Array, step: int) -> jax.Array:
            return model.apply(params, state, X, dl.Train(key).fold_in(step))[0]

        return " xor(" in jax.jit(apply).lower(KEY, 0).compile().as_text()

    assert not derives(dl.Sequential(dl.Sequential(dl.Dense(3)), Scale()))
    assert derives(dl.Sequential(dl.Dense(3), dl.Dropout(0.5)))


def test_a_key_derived_in_a_program_is_that_derived_outside() -> None:
    mode = dl.Train(KEY).fold_in(5).for_part("a")
    for step in (5, np.int32(5), jnp.int32(5)):
        assert dl.Train(KEY).fold_in(step).for_part("a").key == mode.key
        assert (
            jax.jit(lambda key, step: dl.Train(key).fold_in(step).for_part("a").key)(KEY, step)
            == mode.key
        )
    assert jax.jit(lambda mode: mode.key)(mode) == mode.key
    assert jax.tree.leaves(mode) == [mode.key]


def test_names_are_folded_in_by_their_letters() -> None:
    """A hash that does not change from one process to the next."""
    assert fold_in_name(KEY, "conv_0") == jax.random.fold_in(KEY, zlib.crc32(b"conv_0"))


def test_the_lift_keeps_the_state_and_ignores_the_mode() -> None:
    layer = Scale(3.0)
    params, state = layer.init(KEY, X)
    assert state == {}
    carried = {"other": jnp.ones(1)}
    for mode in (dl.Eval(), dl.Train(KEY)):
        y, new = layer.apply(params, carried, X, mode)
        np.testing.assert_array_equal(y, 3 * X)
        assert new is carried


def test_a_users_layer_is_a_value() -> None:
    assert repr(Scale()) == "Scale()"
    assert repr(Scale(2.0)) == "Scale(start=2.0)"
    assert Scale(2.0) == Scale(2.0) != Scale(3.0)
    assert hash(Scale(2.0)) == hash(Scale(2.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Scale().start = 2.0  # type: ignore[misc]


def test_a_layer_of_ones_own_print_keeps_it() -> None:
    @dataclasses.dataclass(frozen=True)
    class Named(dl.Parameterless):
        def compute(self, x: Any) -> Any:
            return x

        def __repr__(self) -> str:
            return "named"

    assert repr(Named()) == "named"


def test_what_a_layer_must_write() -> None:
    with pytest.raises(TypeError, match="abstract"):
        dl.Layer()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        dl.Stateless()  # type: ignore[abstract]


def test_defaults_are_left_out_of_the_print() -> None:
    assert repr(dl.Conv(32, (3, 1), stride=2)) == "Conv(32, (3, 1), stride=2)"
    assert repr(
        dl.Dense(3, kernel_init=jax.nn.initializers.zeros, param_dtype=jnp.float16)
    ) == ("Dense(3, kernel_init=zeros, param_dtype=float16)")


@pytest.mark.parametrize(
    ("function", "shown", "expected"),
    [
        (twice, "twice", 2 * X),
        (jax.nn.relu, "relu", X),
        (jnp.square, "square", X**2),
        (jax.jit(jnp.negative), "negative", -X),
        (functools.partial(jnp.add, 1), "partial(add, 1)", X + 1),
        (
            functools.partial(jnp.clip, min=1, max=2),
            "partial(clip, max=2, min=1)",
            jnp.clip(X, 1, 2),
        ),
        (
            functools.partial(functools.partial(jnp.clip, min=1), max=2),
            "partial(clip, max=2, min=1)",
            jnp.clip(X, 1, 2),
        ),
    ],
)
def test_functions_are_layers(function: Any, shown: str, expected: Any) -> None:
    layer = as_layer(function)
    assert layer.init(KEY, X) == ({}, {})
    np.testing.assert_array_equal(layer.apply({}, {}, X)[0], expected)
    assert repr(layer) == shown
    assert layer == as_layer(function)
    assert hash(layer) == hash(as_layer(function))


def test_partials_are_equal_where_they_bind_the_same() -> None:
    make = lambda slope: as_layer(functools.partial(jax.nn.leaky_relu, negative_slope=slope))  # noqa: E731
    assert make(0.1) == make(0.1) != make(0.2)


def test_a_layer_is_its_own_lift() -> None:
    layer = dl.Dense(3)
    assert as_layer(layer) is layer


class Callable:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, x: Any) -> Any:
        self.count += 1
        return x


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (dl.Dense, "Dense is a class where a layer is expected — call it: Dense(…)."),
        (3, "expected a layer or a function of one array, got 3 of type int."),
        (
            jnp.zeros(2),
            "expected a layer or a function of one array, got an array of shape (2,) and dtype float32.",
        ),
        (
            Callable(),
            f"a callable of type {__name__}.Callable may hold state of its own, which a pure model cannot see — pass a plain "
            "function of one array, or write a jaxdl.Layer that returns its parameters from init.",
        ),
        (
            Callable().__call__,
            "a callable of type builtins.method may hold state of its own, which a pure model cannot see — pass a plain function "
            "of one array, or write a jaxdl.Layer that returns its parameters from init.",
        ),
        (np.tanh, "numpy.tanh cannot be traced — use that of jax.numpy: jnp.tanh."),
        (
            functools.partial(jnp.add, np.ones(1)),
            "partial(add, array([1.])) binds a value that cannot be hashed, such as an array or a list, and a layer holds only "
            "hyperparameters — bind numbers, strings and tuples; arrays belong in the params of a jaxdl.Layer.",
        ),
    ],
)
def test_what_is_no_layer(part: Any, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        as_layer(part)
    assert str(caught.value) == text


def test_a_flax_module_is_no_plain_function() -> None:
    import flax.linen as nn

    with pytest.raises(
        TypeError, match=r"^a callable of type flax\.linen\.linear\.Dense may hold state"
    ):
        dl.Sequential(nn.Dense(3))


def test_forward_is_a_plain_function_of_parameters_and_input() -> None:
    model = dl.Sequential(dl.Dense(2), dl.BatchNorm(), dl.Dropout(0.5))
    params, state = model.init(KEY, X)
    f = dl.forward(model, state)
    np.testing.assert_array_equal(f(params, X), model.apply(params, state, X)[0])
    assert jax.hessian(f, argnums=1)(params, X).shape == (2, 2, 2, 3, 2, 3)
    jacobian = jax.jacobian(f)(params, X)
    assert jacobian["dense_0"]["kernel"].shape == (2, 2, 3, 2)


def test_a_layer_error_says_where_it_happened() -> None:
    assert str(LayerError("Dense", "no.")) == "Dense: no."
    assert (
        str(LayerError("Dense", "no.", ("head", "dense_1"))) == "Dense at 'head.dense_1': no."
    )
    with pytest.raises(LayerError) as caught, located("head"), located("dense_1"):
        raise LayerError("Dense", "no.")
    assert str(caught.value) == "Dense at 'head.dense_1': no."
    assert isinstance(caught.value, ValueError)


def test_any_other_error_gets_one_note() -> None:
    with pytest.raises(KeyError) as caught, located("a"), located("b"), located("c"):
        raise KeyError("kernel")
    assert caught.value.__notes__ == ["in the part 'a.b.c' of the model"]


def test_notes_of_others_are_kept() -> None:
    error = KeyError("kernel")
    error.add_note("theirs")
    with pytest.raises(KeyError) as caught, located("a"), located("b"):
        raise error
    assert caught.value.__notes__ == ["theirs", "in the part 'a.b' of the model"]


def test_a_layer_that_is_no_dataclass_prints_its_attributes() -> None:
    class Plain(dl.Parameterless):
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def compute(self, x: Any) -> Any:
            return x * self.factor

    assert repr(Plain(3.0)) == "Plain(factor=3.0)"
    assert repr(dl.Sequential(Plain(2.0))) == "Sequential(Plain(factor=2.0))"
    np.testing.assert_array_equal(dl.Sequential(Plain(2.0)).apply({}, {}, X)[0], 2 * X)


@dataclasses.dataclass(frozen=True)
class Gives(dl.Layer):
    """A layer that gives what it is told to."""

    drawn: Any = ({}, {})
    result: Any = None

    def __hash__(self) -> int:
        return 0

    def init(self, key: Any, x: Any) -> Any:
        return self.drawn

    def apply(self, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
        return self.result


@pytest.mark.parametrize("drawn", [{}, None, ({}, {}, {}), ({}, None), (X, {})], ids=str)
def test_init_gives_two_dicts(drawn: Any) -> None:
    with pytest.raises(
        LayerError, match=r"^Gives: init returns two dicts, \(params, state\), got "
    ):
        Gives(drawn).init(KEY, X)
    with pytest.raises(LayerError, match=r"^Gives at 'gives_0': init returns two dicts"):
        dl.Sequential(Gives(drawn)).init(KEY, X)


@pytest.mark.parametrize(
    "result", [X, None, (X, None), (X, {}, {}), (X, X)], ids=lambda value: type(value).__name__
)
def test_apply_gives_an_output_and_a_state(result: Any) -> None:
    with pytest.raises(
        LayerError,
        match=r"^Gives: apply returns the pair \(output, state\), where state is a dict, got ",
    ):
        Gives(result=result).apply({}, {}, X)
    with pytest.raises(LayerError, match=r"^Gives at 'gives_0': apply returns the pair"):
        dl.Sequential(dl.Flatten(), Gives(result=result)).init(KEY, X)


@pytest.mark.parametrize("mode", [True, None, "train"])
@pytest.mark.usefixtures("unchecked")
def test_a_mode_is_one_of_two(mode: Any) -> None:
    for layer in (Gives(result=(X, {})), dl.Dense(3), dl.Sequential(dl.Flatten())):
        with pytest.raises(
            LayerError, match=r"the mode is dl.Train\(key\) or dl.Eval\(\), got"
        ):
            layer.apply({}, {}, X, mode)
