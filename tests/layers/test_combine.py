"""Combinators: what they compute, how they name, print and slice, and what wrong parts get."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from jaxdl.ops.activations import relu, tanh
from tests.layers.oracles import close, normal, perturbed

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
X = normal(0, (3, 4))
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)

WRONG: dict[str, Any] = {"combine": "mean", "number": 3, "word": "relu"}


def drawn(layer: dl.Layer, x: Any = X) -> tuple[Any, Any]:
    params, state = layer.init(KEY, x)
    return perturbed(params, 1), perturbed(state, 2)


def part(layer: Any, params: Any, name: str, x: Any) -> Any:
    return layer.apply(params.get(name, {}), {}, x)[0]


def test_sequential_is_the_composition_of_its_parts() -> None:
    model = dl.Sequential(dl.Dense(5), tanh, dl.Dense(2))
    params, state = drawn(model)
    hidden = jnp.tanh(X @ params["dense_0"]["kernel"] + params["dense_0"]["bias"][None])
    close(
        model.apply(params, state, X)[0],
        hidden @ params["dense_1"]["kernel"] + params["dense_1"]["bias"][None],
    )


def test_parts_are_named_by_kind_and_count_or_by_keyword() -> None:
    scaled = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)
    model = dl.Sequential(
        dl.Conv(4, 3),
        dl.BatchNorm(),
        relu,
        dl.Conv(4, 3),
        scaled,
        dl.RMSNorm(),
        lambda x: x,
        dl.Flatten(),
        head=dl.Dense(2),
    )
    names = [
        "conv_0",
        "batch_norm_0",
        "relu_0",
        "conv_1",
        "leaky_relu_0",
        "rms_norm_0",
        "lambda_0",
        "flatten_0",
        "head",
    ]
    assert [name for name, _ in model.parts] == names
    params, state = model.init(KEY, jnp.zeros((1, 4, 4, 1)))
    assert list(params) == ["conv_0", "batch_norm_0", "conv_1", "rms_norm_0", "head"], (
        "in the model's order"
    )
    assert list(state) == ["batch_norm_0"]


def test_a_model_prints_as_the_call_that_builds_it() -> None:
    model = dl.Sequential(
        dl.Conv(32, 3, stride=2, padding="VALID", dtype=jnp.bfloat16),
        relu,
        dl.MaxPool((2, 1)),
        dl.Residual(tanh),
        head=dl.Dense(10),
    )
    assert repr(model) == (
        "Sequential(Conv(32, 3, stride=2, padding='VALID', dtype=bfloat16), relu, MaxPool((2, 1)), Residual(tanh), head=Dense(10))"
    )
    assert (
        repr(dl.Sequential(dl.Dense(1), dense_1=dl.Dense(2)))
        == "Sequential(Dense(1), Dense(2))"
    )
    assert (
        repr(dl.Sequential(first=dl.Dense(1), dense_0=dl.Dense(2)))
        == "Sequential(first=Dense(1), dense_0=Dense(2))"
    )
    assert (
        repr(dl.Parallel(dl.Dense(1), relu, combine="add"))
        == "Parallel(Dense(1), relu, combine='add')"
    )
    assert repr(dl.Parallel(a=dl.Dense(1), axis=1)) == "Parallel(a=Dense(1), axis=1)"
    assert repr(dl.Map(dl.Frozen(relu), axis=2)) == "Map(Frozen(relu), axis=2)"
    assert repr(dl.Tied("a")) == "Tied('a')"
    assert repr(functools.partial(relu)) != repr(
        dl.Sequential(functools.partial(jax.nn.gelu, approximate=False))
    )
    assert (
        repr(dl.Sequential(functools.partial(jax.nn.gelu, approximate=False)))
        == "Sequential(partial(gelu, approximate=False))"
    )


def test_a_slice_is_the_model_of_those_parts() -> None:
    model = dl.Sequential(dl.Dense(5), relu, dl.Dense(2))
    params, state = drawn(model)
    head, tail = model[:-1], model[-1:]
    close(
        tail.apply(params, state, head.apply(params, state, X)[0])[0],
        model.apply(params, state, X)[0],
    )
    assert model["dense_1"] == model[2] == dl.Dense(2)
    assert list(model) == [model[0], model["relu_0"], model[2]]
    assert len(model) == 3
    assert model[:] == model
    assert repr(model[1:]) == "Sequential(relu, dense_1=Dense(2))"


def test_an_empty_model_is_the_identity() -> None:
    assert dl.Sequential().init(KEY, X) == ({}, {})
    assert dl.Sequential().apply({}, {}, X)[0] is X


def test_equal_parts_under_other_names_are_another_model() -> None:
    assert dl.Sequential(dl.Dense(1)) == dl.Sequential(dense_0=dl.Dense(1))
    assert dl.Sequential(dl.Dense(1)) != dl.Sequential(a=dl.Dense(1))
    assert (
        dl.Parallel(relu)
        != dl.Parallel(relu, combine="add")
        != dl.Parallel(relu, combine="add", axis=1)
    )


def test_inserted_parts_change_nobody_elses_weights() -> None:
    plain = dl.Sequential(dl.Dense(5), dl.Dense(4), dl.Dropout(0.5), dl.Dense(2))
    longer = dl.Sequential(
        relu,
        dl.Dense(5),
        dl.LayerNorm(),
        relu,
        dl.Dense(4),
        tanh,
        dl.Dropout(0.5),
        relu,
        dl.Dense(2),
    )
    ours, theirs = plain.init(KEY, X)[0], longer.init(KEY, X)[0]
    assert set(theirs) - set(ours) == {"layer_norm_0"}
    close(ours, {name: theirs[name] for name in ours}, 0)


def test_parts_draw_their_own_weights() -> None:
    params, _ = dl.Sequential(dl.Dense(4), dl.Dense(4)).init(KEY, X)
    assert not jnp.array_equal(params["dense_0"]["kernel"], params["dense_1"]["kernel"])
    nested, _ = dl.Sequential(a=dl.Sequential(dl.Dense(4)), b=dl.Sequential(dl.Dense(4))).init(
        KEY, X
    )
    assert not jnp.array_equal(
        nested["a"]["dense_0"]["kernel"], nested["b"]["dense_0"]["kernel"]
    )


def test_tied_to_a_part_runs_it_again() -> None:
    model = dl.Sequential(f=dl.Dense(4), g=tanh, again=dl.Tied("f"))
    params, state = drawn(model)
    assert list(params) == ["f"]
    f = functools.partial(part, dl.Dense(4), params, "f")
    close(model.apply(params, state, X)[0], f(jnp.tanh(f(X))))


def test_tied_with_a_use_of_its_own_shares_parameters_and_gradients() -> None:
    model = dl.Sequential(
        encode=dl.Dense(2, use_bias=False),
        decode=dl.Tied("encode", lambda params, x: x @ params["kernel"].T),
    )
    params, state = drawn(model)
    assert list(params) == ["encode"]
    W = params["encode"]["kernel"]
    close(model.apply(params, state, X)[0], X @ W @ W.T)
    gradient = jax.grad(lambda p: model.apply(p, state, X)[0].sum())(params)["encode"]["kernel"]
    close(gradient, jax.grad(lambda W: (X @ W @ W.T).sum())(W))


def test_a_tied_part_with_state_moves_it_twice() -> None:
    model = dl.Sequential(norm=dl.BatchNorm(momentum=0.5), again=dl.Tied("norm"))
    params, state = model.init(KEY, X)
    _, new = model.apply(params, state, X + 5, dl.Train(KEY))
    once, _ = dl.BatchNorm(momentum=0.5).init(KEY, X)
    y, first = dl.BatchNorm(momentum=0.5).apply(once, state["norm"], X + 5, dl.Train(KEY))
    _, second = dl.BatchNorm(momentum=0.5).apply(once, first, y, dl.Train(KEY))
    close(new["norm"], second)


def test_residual_adds_the_shortcut() -> None:
    model = dl.Residual(dl.Dense(4))
    params, state = drawn(model)
    close(model.apply(params, state, X)[0], X + part(dl.Dense(4), params, "body", X))
    wider = dl.Residual(dl.Sequential(dl.Dense(5), tanh), dl.Dense(5))
    params, state = drawn(wider)
    close(
        wider.apply(params, state, X)[0],
        part(dl.Sequential(dl.Dense(5), tanh), params, "body", X)
        + part(dl.Dense(5), params, "shortcut", X),
    )


def test_parallel_concatenates_or_adds() -> None:
    parts: dict[str, Any] = {"a": dl.Dense(4), "b": dl.Dense(4, use_bias=False)}
    params, _ = drawn(dl.Parallel(**parts))
    a, b = (part(parts[name], params, name, X) for name in parts)
    close(dl.Parallel(**parts).apply(params, {}, X)[0], jnp.concatenate([a, b], -1))
    close(dl.Parallel(**parts, combine="add").apply(params, {}, X)[0], a + b)
    sequence = X[:, None]
    rows = [part(parts[name], params, name, sequence) for name in parts]
    close(dl.Parallel(**parts, axis=1).apply(params, {}, sequence)[0], jnp.concatenate(rows, 1))


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "model",
    [
        dl.Residual(dl.Conv(3, 3)),
        dl.Residual(dl.MaxPool(3, 1, "SAME"), dl.Conv(3, 1)),
        dl.Residual(dl.MaxPool(3, 1, "SAME")),
        dl.Parallel(dl.MaxPool(3, 1, "SAME"), dl.Conv(3, 1)),
        dl.Parallel(dl.Conv(3, 1), lambda x: x, combine="add"),
        dl.Parallel(lambda x: x, lambda x: x, combine="add"),
        dl.Map(dl.Sequential(dl.Flatten(), dl.Dense(2))),
        dl.Frozen(dl.Residual(dl.Conv(3, 3))),
    ],
    ids=repr,
)
def test_images_in_bytes_are_put_together_as_intensities(model: dl.Layer) -> None:
    params, state = model.init(KEY, IMAGES)
    y, _ = model.apply(params, state, IMAGES)
    expected, _ = model.apply(params, state, IMAGES.astype(np.float32) / np.float32(255))
    close(y, expected, 1e-6)


def test_bytes_beside_half_precision_become_half_precision() -> None:
    model = dl.Parallel(dl.Conv(3, 1, dtype=jnp.bfloat16), dl.Dropout(0.5))
    assert model.apply(*model.init(KEY, IMAGES), IMAGES)[0].dtype == jnp.bfloat16


@pytest.mark.slow
def test_map_is_the_layer_at_every_place() -> None:
    x = normal(0, (3, 4, 5, 2))
    for axis, length in ((1, 4), (2, 5), (-2, 5)):
        model = dl.Map(dl.Sequential(dl.Flatten(), dl.Dense(6)), axis)
        params, state = drawn(model, x)
        assert list(params) == ["body"]
        places = [
            part(model.body, params, "body", jnp.take(x, jnp.full((), i, jnp.int32), axis))
            for i in range(length)
        ]
        position = axis if axis > 0 else 1
        close(model.apply(params, state, x)[0], jnp.stack(places, position))


@pytest.mark.slow
def test_map_normalises_over_all_places_and_repeats_the_mask() -> None:
    model = dl.Map(dl.BatchNorm())
    x = normal(0, (4, 5, 3))
    params, state = drawn(model, x)
    y, new = model.apply(params, state, x, dl.Train(KEY))
    expected, moved = dl.BatchNorm().apply(params["body"], state["body"], x, dl.Train(KEY))
    close((y, new), (expected, {"body": moved}))
    masked, few = model.apply(
        params, state, x, dl.Train(KEY, jnp.array([True, True, False, False]))
    )
    expected, moved = model.apply(params, state, x[:2], dl.Train(KEY))
    close((masked[:2], few), (expected, moved))


def test_map_draws_a_mask_a_place() -> None:
    y, _ = dl.Map(dl.Dropout(0.5)).apply({}, {}, jnp.ones((2, 8, 16)), dl.Train(KEY))
    assert len(np.unique(np.asarray(y[0]), axis=0)) == 8


def test_map_of_an_empty_batch() -> None:
    model = dl.Map(dl.Dense(3))
    params, state = model.init(KEY, jnp.zeros((1, 4, 2)))
    assert model.apply(params, state, jnp.zeros((0, 4, 2)))[0].shape == (0, 4, 3)


def test_frozen_hides_its_parameters_and_runs_as_in_evaluation() -> None:
    body = dl.Sequential(dl.Dense(3), dl.BatchNorm(), dl.Dropout(0.5))
    params, state = dl.Frozen(body).init(KEY, X)
    assert params == {}
    close((state["params"], state["state"]), body.init(KEY, X), 0)
    y, new = dl.Frozen(body).apply(params, state, X, dl.Train(KEY))
    close((y, new), (body.apply(state["params"], state["state"], X)[0], state), 0)


def test_frozen_parameters_get_no_gradient_and_what_is_below_them_does() -> None:
    model = dl.Sequential(below=dl.Dense(3), frozen=dl.Frozen(dl.Dense(2)))
    params, state = model.init(KEY, X)
    gradient = jax.grad(lambda p: model.apply(p, state, X, dl.Train(KEY))[0].sum())(params)
    assert list(gradient) == ["below"]
    assert jnp.abs(gradient["below"]["kernel"]).min() > 0


def test_combinators_take_plain_functions() -> None:
    y, _ = dl.Residual(dl.Parallel(jnp.abs, jnp.square, combine="add"), jnp.sin).apply(
        {}, {}, X
    )
    close(y, jnp.abs(X) + jnp.square(X) + jnp.sin(X))
    close(dl.Map(jnp.cumsum).apply({}, {}, jnp.ones((1, 2)))[0], jnp.array([[1.0, 2.0]]))
    close(dl.Frozen(relu).apply({}, {}, X)[0], relu(X))


@pytest.mark.parametrize(
    ("build", "kind", "text"),
    [
        (
            lambda: dl.Sequential(dl.Dense(1), dense_0=dl.Dense(1)),
            LayerError,
            "Sequential: two parts are named 'dense_0' — give one of them another keyword.",
        ),
        (
            lambda: dl.Parallel(dl.Dense(1), dense_0=dl.Dense(1)),
            LayerError,
            "Parallel: two parts are named 'dense_0' — give one of them another keyword.",
        ),
        (
            lambda: dl.Sequential(out=dl.Tied("embed"), embed=dl.Embedding(3, 2)),
            LayerError,
            "Sequential: 'out' is tied to 'embed', and no layer of that name stands before it.",
        ),
        (
            lambda: dl.Sequential(f=dl.Dense(4), again=dl.Tied("f"), more=dl.Tied("again")),
            LayerError,
            "Sequential: 'more' is tied to 'again', and no layer of that name stands before it.",
        ),
        (lambda: dl.Parallel(), LayerError, "Parallel: expected at least one part."),
        (
            lambda: dl.Parallel(relu, combine=WRONG["combine"]),
            LayerError,
            "Parallel: combine is 'concatenate' or 'add', got 'mean'.",
        ),
        (
            lambda: dl.Map(relu, 0),
            LayerError,
            "Map: axis 0 is the batch, which every layer is mapped over already.",
        ),
        (
            lambda: dl.Sequential(dl.Dense),
            TypeError,
            "Dense is a class where a layer is expected — call it: Dense(…).",
        ),
        (
            lambda: dl.Residual(WRONG["number"]),
            TypeError,
            "expected a layer or a function of one array, got 3 of type int.",
        ),
        (
            lambda: dl.Parallel(WRONG["word"]),
            TypeError,
            "expected a layer or a function of one array, got 'relu' of type str.",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_parts(build: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        build()
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("model", "shape", "text"),
    [
        (
            dl.Residual(dl.Dense(3)),
            (2, 4),
            "Residual: the body gives shape (2, 3) and the shortcut (2, 4), which cannot be added — give a shortcut that maps one "
            "to the other, such as Conv(features, 1, stride).",
        ),
        (
            dl.Sequential(block=dl.Residual(dl.Dense(3))),
            (2, 4),
            "Residual at 'block': the body gives shape (2, 3) and the shortcut (2, 4), which cannot be added — give a shortcut "
            "that maps one to the other, such as Conv(features, 1, stride).",
        ),
        (
            dl.Parallel(dl.Dense(3), dl.Dense(4), combine="add"),
            (2, 4),
            "Parallel: parts give shapes [(2, 3), (2, 4)], which cannot be added.",
        ),
        (
            dl.Parallel(dl.Dense(3), dl.Flatten()),
            (2, 5, 4),
            "Parallel: parts give shapes [(2, 5, 3), (2, 20)], which cannot be concatenated along axis -1.",
        ),
        (
            dl.Parallel(dl.Dense(3), axis=2),
            (2, 4),
            "Parallel: parts give shapes [(2, 3)], which have no axis 2 after the batch.",
        ),
        (
            dl.Parallel(dl.Dense(3), axis=-2),
            (2, 4),
            "Parallel: parts give shapes [(2, 3)], which have no axis -2 after the batch.",
        ),
        (
            dl.Map(relu, 2),
            (2, 4),
            "Map: an input of shape (2, 4) has no axis 2 after the batch.",
        ),
        (
            dl.Map(relu, -2),
            (2, 4),
            "Map: an input of shape (2, 4) has no axis -2 after the batch.",
        ),
    ],
    ids=repr,
)
def test_shapes_that_do_not_fit(model: dl.Layer, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(LayerError) as caught:
        model.init(KEY, jnp.zeros(shape))
    assert str(caught.value) == text


def test_a_map_whose_axis_its_body_removes() -> None:
    with pytest.raises(
        LayerError,
        match=r"^Map: the body gives shape \(12,\) at each place, which leaves no axis 3\.$",
    ):
        dl.Map(dl.Flatten(), 3).apply({}, {}, jnp.zeros((2, 4, 3, 2)))
