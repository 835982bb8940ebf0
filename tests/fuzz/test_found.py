"""What fuzzing has found: each case is a small one, with the sentence that it gets now, or the result."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import data, losses, metrics
from tests.fuzz.outcome import Refused, attempt

KEY = jax.random.key(0)
X, Y = np.ones((8, 3), np.float32), np.zeros((8, 2), np.float32)
ANY: Any = dl  # the same layers, for arguments of the wrong types


def begun(layer: Any, *shape: int, dtype: Any = np.float32) -> Any:
    return layer.init(KEY, np.ones(shape, dtype))


def fit(**changes: Any) -> Any:
    given = {
        "model": dl.Dense(2),
        "data": (X, Y),
        "loss": losses.mean_squared_error,
        "optimizer": "sgd",
        "progress": False,
    }
    return ANY.fit(**(given | changes))


CASES = {
    "an activation in the place of a flag": (
        lambda: ANY.Dense(3, jax.nn.relu),
        "Dense: use_bias is True or False",
    ),
    "a dtype that is none": (
        lambda: dl.Dense(3, dtype="same"),
        "dtype is a floating-point dtype such as",
    ),
    "a dtype that is not enabled": (
        lambda: begun(dl.Dense(3, dtype="float64"), 1, 3),
        "which JAX has not enabled",
    ),
    "an initializer that was not called": (
        lambda: begun(dl.Dense(3, kernel_init=jax.nn.initializers.lecun_normal), 1, 3),
        "has it been called, as in lecun_normal()",
    ),
    "an initializer for matrices": (
        lambda: begun(dl.Dense(3, bias_init=jax.nn.initializers.lecun_normal()), 1, 3),
        "Dense: bias_init failed for a parameter of shape [3]",
    ),
    "a rate of a word": (
        lambda: ANY.Dropout("0.5"),
        "Dropout: rate is a probability in [0, 1), got '0.5'.",
    ),
    "a rate that cannot be hashed": (
        lambda: dl.Dropout(jnp.asarray(0.5)),
        "Dropout: rate is a probability",
    ),
    "momentum of a tuple": (
        lambda: ANY.BatchNorm((1,)),
        "BatchNorm: momentum is a finite number",
    ),
    "a negative epsilon": (
        lambda: dl.LayerNorm(epsilon=-1.0),
        "LayerNorm: epsilon is a finite number of at least 0",
    ),
    "a slope beyond the dtype": (
        lambda: dl.PReLU(1e6, param_dtype="float16"),
        "PReLU: negative_slope is a finite number in float16",
    ),
    "features beyond int32": (
        lambda: dl.Embedding(2**31, 3),
        "Embedding: count is at most 2147483647",
    ),
    "more numbers than any device holds": (
        lambda: begun(dl.Dense(10**9), 1, 10**6),
        "Dense: a parameter of shape [1000000, 1000000000] has 1e+15 elements",
    ),
    "no features": (
        lambda: begun(dl.Dense(3), 4, 0),
        "Dense: an input of shape (4, 0) has no features to compute with.",
    ),
    "no space": (
        lambda: begun(dl.BatchNorm(), 4, 0, 3),
        "BatchNorm: an input of shape (4, 0, 3) has no elements",
    ),
    "a scalar": (
        lambda: dl.Reshape(1).apply({}, {}, np.float32(1)),
        "Reshape: expected a batch axis, got a scalar.",
    ),
    "a maximum of complex numbers": (
        lambda: dl.MaxPool(2).apply({}, {}, np.ones((1, 4, 1), np.complex64)),
        "MaxPool: expected real numbers, got complex64.",
    ),
    "windows of padding alone": (
        lambda: dl.MaxPool(2, padding=((2, 0),)).apply({}, {}, np.ones((1, 4, 1), np.float32)),
        "MaxPool: padding ((2, 0),) leaves windows (2,) with nothing inside",
    ),
    "a window beyond all inputs": (
        lambda: dl.MaxPool(10**9, padding="SAME").apply({}, {}, np.ones((1, 4, 1), np.float32)),
        "MaxPool: the window reaches over 1000000000 elements",
    ),
    "indices without a batch": (
        lambda: dl.Embedding(2, 3).init(KEY, np.int32(1)),
        "Embedding: expected indices [batch, ...], got a scalar.",
    ),
    "groups that do not divide": (
        lambda: dl.GroupNorm(2, use_scale=False, use_bias=False).apply(
            {}, {}, np.ones((1, 3), np.float32)
        ),
        "GroupNorm: 3 channels cannot be split into 2 groups of one size.",
    ),
    "a tree for a layer": (
        lambda: dl.Dense(1).init(KEY, [X, X]),
        "Dense: expected an array, got list",
    ),
    "an axis of a word": (
        lambda: ANY.Map(dl.Dense(1), "x"),
        "Map: axis is a whole number, got 'x'.",
    ),
    "an axis of None": (
        lambda: ANY.Map(dl.Dense(1), None),
        "Map: axis is a whole number, got None.",
    ),
    "a model that cannot be hashed": (
        lambda: fit(model=dl.Sequential(Unhashable([1]))),
        "model: Sequential cannot be hashed",
    ),
    "a seed beyond 32 bits": (lambda: fit(seed=2**32), "seed: JAX reads 32 bits of it"),
    "a seed of the old kind": (
        lambda: fit(seed=jax.random.PRNGKey(1)),
        "seed is a whole number or one typed key",
    ),
    "no inputs": (lambda: fit(data=({}, Y)), "data: there are no inputs"),
    "words as targets": (
        lambda: fit(data=(X, np.array(["a"] * 8))),
        "data targets: expected arrays of numbers, got <U1",
    ),
    "labels beyond int32": (
        lambda: fit(data=(X, np.full(8, 2**40)), loss=losses.softmax_cross_entropy),
        "data targets: 1099511627776 does not fit int32",
    ),
    "numbers beyond float32": (
        lambda: fit(data=(np.full((8, 3), 1e300), Y)),
        "data inputs: 24 of 24 numbers are not finite",
    ),
    "infinite weights": (
        lambda: fit(data=(X, Y, np.full(8, np.inf))),
        "data: weights are one finite number",
    ),
    "weights of a stream": (
        lambda: fit(data=[(X, Y, -np.ones(8))]),
        "data: batch 1: weights are one finite number",
    ),
    "a loss that cannot be hashed": (lambda: fit(loss=[]), "loss is [], expected a function"),
    "losses of no output": (lambda: fit(loss={}), "ByOutput: there are no losses"),
    "a loss of a class": (
        lambda: fit(loss=dict),
        "loss is <class 'dict'>, expected a function",
    ),
    "clip_norm 0": (
        lambda: fit(clip_norm=0),
        "clip_norm: the largest norm of a gradient is a finite number above 0",
    ),
    "average 1": (
        lambda: fit(average=1.0),
        "average: the decay of a moving average lies in [0, 1), got 1.0.",
    ),
    "early stopping of a number": (
        lambda: fit(early_stopping=3),
        "early_stopping: expected EarlyStopping(patience=5), got 3.",
    ),
    "patience of a word": (
        lambda: dl.EarlyStopping("3"),
        "EarlyStopping: patience is a whole number",
    ),  # type: ignore[arg-type]
    "min_delta of NaN": (
        lambda: dl.EarlyStopping(min_delta=float("nan")),
        "EarlyStopping: min_delta is a finite number",
    ),
    "callbacks of one function": (
        lambda: fit(callbacks=print),
        "callbacks: expected a list of functions",
    ),
    "a checkpoint of a word": (
        lambda: fit(checkpoint="runs"),
        "checkpoint: expected Checkpoints('runs/name'), got 'runs'.",
    ),
    "initial of a word": (
        lambda: fit(initial="a"),
        "initial: expected (params, state), two dicts of arrays, got str.",
    ),
    "a metric's name": (
        lambda: fit(metrics={1: metrics.squared_error}),
        "metrics: expected words as names, got 1.",
    ),
    "augment that returns one array": (
        lambda: fit(augment=lambda key, x, y: x),
        "return the pair (inputs, targets)",
    ),
    "augment that drops examples": (
        lambda: fit(augment=lambda key, x, y: (x[:4], y[:4])),
        "augment returned 4 examples of 8: return as many as it is given.",
    ),
    "class weights of several labels": (
        lambda: fit(data=(X, np.ones((8, 2), np.int32)), class_weight=[1, 1]),
        "class_weight: each example needs one class label",
    ),
    "class weights of words": (
        lambda: fit(
            data=(X, np.zeros(8, int)), loss=losses.softmax_cross_entropy, class_weight={"a": 1}
        ),
        "class_weight: expected numbers of at least 0 by class number",
    ),
    "a schedule without its argument": (
        lambda: fit(optimizer=optax.sgd, learning_rate=lambda: 0.1),
        "learning_rate: expected a function of the number of steps made",
    ),
    "an optimizer that takes no rate": (
        lambda: fit(optimizer=lambda: 3, learning_rate=0.1),
        "failed for a learning rate",
    ),
    "params that are none": (
        lambda: ANY.predict(dl.Dense(1), 3, {}, X),
        "params: expected a dict of arrays",
    ),
    "params of another model": (
        lambda: dl.predict(dl.Dense(1), {}, {}, X),
        "Dense: expected parameters by name, among them 'kernel', got none",
    ),
    "label smoothing of a word": (
        lambda: losses.softmax_cross_entropy(X, X, label_smoothing="a"),  # type: ignore[arg-type]
        "softmax_cross_entropy: label_smoothing is a finite number from 0 to 1, got 'a'.",
    ),
    "a negative gamma": (
        lambda: losses.focal(X, X, gamma=-1),
        "focal: gamma is a finite number of at least 0",
    ),
    "classes of a word": (
        lambda: ANY.metrics.ConfusionMatrix("3"),
        "ConfusionMatrix: classes is a whole number",
    ),
    "a prompt of unknown tokens": (
        lambda: generated(np.full((1, 2), 5)),
        "generate: the prompt has token 5, and the model knows 0 … 4.",
    ),
    "a prompt beyond int32": (
        lambda: generated(np.full((1, 2), 2**32)),
        "4294967296 does not fit int32",
    ),
    "a stop token that is none": (
        lambda: generated(np.ones((1, 2), int), stop=9),
        "generate: stop is one of the tokens 0 … 4",
    ),
    "padding to no length": (
        lambda: data.pad([np.arange(3)], 0),
        "pad: length is at least 1, got 0.",
    ),
    "tokens in two axes": (
        lambda: data.windows(np.zeros((2, 2), int), 1),
        "windows: expected ids as one NumPy array [tokens]",
    ),
    "a batch beyond all memory": (
        lambda: data.RandomWindows(np.arange(9), 3, 10**9),
        "fits no device",
    ),
    "tokens beyond int32": (
        lambda: data.windows(np.full(9, 2**40), 2),
        "windows: ids are int32",
    ),
}


class Unhashable(dl.Parameterless):
    """A layer that holds a list, and so cannot be a static argument."""

    def __init__(self, values: list[int]) -> None:
        self.values = values

    __hash__ = None  # type: ignore[assignment]

    def compute(self, x: Any) -> Any:
        return x

    __repr__ = object.__repr__


def generated(prompt: np.ndarray, **options: Any) -> Any:
    model = dl.Sequential(dl.Embedding(5, 4), dl.Dense(5))
    return ANY.generate(
        model, *model.init(KEY, np.ones((1, 2), np.int32)), prompt, 2, temperature=0, **options
    )


@pytest.mark.sampled(20)
@pytest.mark.parametrize("case", CASES)
def test_it_gets_a_sentence(case: str) -> None:
    call, sentence = CASES[case]
    with pytest.raises(Refused, match=re.escape(sentence)):
        attempt(call)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    layer = dl.Conv(np.int64(2), np.int64(3), stride=(np.int64(2),))  # type: ignore[arg-type]
    assert begun(layer, 1, 6, 2)[0]["kernel"].shape == (3, 2, 2)
    pooled, _ = dl.AvgPool(np.int64(2)).apply({}, {}, jnp.ones((1, 4, 1), jnp.bfloat16))  # type: ignore[arg-type]
    assert pooled.dtype == jnp.bfloat16


def test_a_rate_next_to_one_drops_half_precision_numbers_without_overflow() -> None:
    x = jnp.full((1000, 100), 0.5, jnp.float16)
    y, _ = attempt(dl.Dropout(0.999999).apply, {}, {}, x, dl.Train(KEY))
    assert set(np.unique(y)) <= {0, 32768}


def test_sequences_and_sets_without_elements_keep_their_shape() -> None:
    layer = dl.MultiHeadAttention(2)
    params, _ = begun(layer, 1, 3, 4)
    assert attempt(layer.apply, params, {}, np.ones((2, 0, 4), np.float32))[0].shape == (
        2,
        0,
        4,
    )
    assert attempt(dl.Reshape(-1).apply, {}, {}, np.ones((0, 2, 2), np.float32))[0].shape == (
        0,
        4,
    )


def test_a_window_as_large_as_an_image_compiles_soon() -> None:
    """It was taken apart into a slice for each of its elements: over a minute for 48 by 48."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 48, 48, 1)), jnp.float32)

    def both(x: Any) -> Any:
        return jax.grad(lambda x: dl.MaxPool(48).apply({}, {}, x)[0].sum())(x), dl.MaxPool(
            48
        ).apply({}, {}, x)[0]

    gradient, y = attempt(jax.jit(both), x)
    np.testing.assert_array_equal(y[:, 0, 0, 0], x.max((1, 2, 3)))
    np.testing.assert_array_equal(
        gradient, (x == x.max((1, 2, 3), keepdims=True)).astype(np.float32)
    )
