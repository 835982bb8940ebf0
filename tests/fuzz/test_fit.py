"""`fit`, `evaluate` and `predict` with any data and any arguments: what is measured is right, or a sentence says what is not."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl import losses, metrics, optim
from tests.fuzz.outcome import attempt, case, examples
from tests.fuzz.strategies import absurd, filled

FEATURES, CLASSES = 3, 3
MODELS = {
    "linear": dl.Dense(CLASSES),
    "one output": dl.Dense(1),
    "normalised": dl.Sequential(
        dl.Dense(4), dl.BatchNorm(), jnp.tanh, dl.Dropout(0.3), head=dl.Dense(CLASSES)
    ),
    "none": dl.Sequential(),
}
LOSSES = (
    losses.softmax_cross_entropy,
    losses.mean_squared_error,
    losses.binary_cross_entropy,
    losses.hinge,
    losses.huber,
)
CLASSIFIERS = (MODELS["linear"], MODELS["linear"], MODELS["normalised"])
FITTING_OPTIMIZERS = (optax.sgd(0.1), optax.adam(1e-2), "adam", "schedule_free_sgd")
OPTIMIZERS = (optax.sgd(0.1), optax.adam(1e-2), optax.sgd, "adam", "schedule_free_sgd", "momo")


class Table:
    """What gives its numbers as NumPy asks for them, as a data frame or a tensor of another library does."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)


def mapped(values: np.ndarray) -> np.ndarray:
    """The same numbers in a file."""
    if not values.size:
        return values
    with tempfile.TemporaryFile() as file:
        laid = np.memmap(file, values.dtype, "w+", shape=values.shape)
        laid[...] = values
        return laid


FORMS = {
    "numpy": np.asarray,
    "jax": jnp.asarray,
    "list": np.ndarray.tolist,
    "table": Table,
    "memmap": mapped,
}


def targets_of(kind: str, n: int, seed: int) -> np.ndarray:
    """Labels and numbers of the kinds that losses ask for, and some that none does."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, n)
    return {
        "labels": lambda: labels.astype(np.int32),
        "labels in a column": lambda: labels[:, None],
        "one class": lambda: np.zeros(n, np.int64),
        "one-hot": lambda: np.eye(CLASSES, dtype=np.float32)[labels],
        "bytes": lambda: labels.astype(np.uint8),
        "bool": lambda: labels > 0,
        "binary": lambda: (labels > 0)[:, None],
        "signs": lambda: np.where(labels > 0, 1, -1)[:, None],
        "numbers": lambda: random.normal(size=(n, CLASSES)),
        "one number": lambda: random.normal(size=(n, 1)).astype(np.float32),
        "half": lambda: random.normal(size=(n, CLASSES)).astype(np.float16),
        "out of range": lambda: labels + 7,
        "negative": lambda: labels - 1,
        "words": lambda: np.array(["a", "b", "c"])[labels],
        "objects": lambda: np.array([None] * n, dtype=object),
        "complex": lambda: labels.astype(np.complex64),
        "dates": lambda: labels.astype("datetime64[D]"),
        "scalar": lambda: np.float32(1),
        "cube": lambda: np.zeros((n, 2, 2), np.float32),
    }[kind]()


FITTING_KINDS = {
    losses.softmax_cross_entropy: ("labels", "one class", "one-hot", "bytes", "bool"),
    losses.mean_squared_error: ("numbers", "half", "one-hot", "one number"),
    losses.binary_cross_entropy: ("one-hot", "binary"),
    losses.hinge: ("signs",),
    losses.huber: ("numbers", "half"),
}
KINDS = (
    *(
        "labels",
        "labels in a column",
        "one class",
        "one-hot",
        "bytes",
        "bool",
        "binary",
        "signs",
        "numbers",
        "one number",
        "half",
    ),
    *("out of range", "negative", "words", "objects", "complex", "dates", "scalar", "cube"),
)
ODD_DTYPES = (
    np.int32,
    np.bool_,
    np.complex64,
    np.float16,
    np.uint8,
    np.int8,
    np.float64,
    "U3",
    object,
)


@st.composite
def inputs(draw: Any, n: int) -> Any:
    """Mostly [n, 3] floats; else of another dtype or shape, or with numbers that are not finite."""
    x = filled((n, FEATURES), np.float32, draw(st.integers(0, 5)))
    how = draw(st.sampled_from(["plain"] * 6 + ["dtype", "shape", "nan", "tree", "absurd"]))
    if how == "dtype":
        return x.astype(draw(st.sampled_from(ODD_DTYPES)))
    if how == "shape":
        return filled(
            draw(
                st.sampled_from(
                    [(n,), (n, 0), (n, 1), (n, 2, 3), (n, 4), (), (0, 3), (n + 1, 3)]
                )
            ),
            np.float32,
        )
    if how == "nan" and n:
        x[draw(st.integers(0, n - 1)), 1] = draw(
            st.sampled_from([np.nan, np.inf, -np.inf, 3e38])
        )
        return x
    if how == "tree":
        return draw(
            st.sampled_from(
                [{"a": x}, {"a": x, "b": x[:1]}, (x, x), [x], [], {}, (), [x.tolist(), 1], None]
            )
        )
    return draw(absurd) if how == "absurd" else x


@st.composite
def data(draw: Any, loss: Any = None, fitting: bool = False) -> Any:
    """Inputs, targets and perhaps weights, in any form; a stream of batches sometimes."""
    n = draw(st.sampled_from([1, 2, 7, 8, 13] if fitting else [0, 1, 2, 7, 8, 13]))
    x = (
        filled((n, FEATURES), np.float32, draw(st.integers(0, 5)))
        if fitting
        else draw(inputs(n))
    )
    fits = loss is not None and (fitting or draw(st.integers(0, 3)))
    kind = draw(st.sampled_from(FITTING_KINDS[loss] if fits else KINDS))
    y = targets_of(
        kind, n if fitting or draw(st.integers(0, 9)) else n + 1, draw(st.integers(0, 3))
    )
    parts: list[Any] = [x, y]
    if draw(st.integers(0, 3)) == 0:
        parts.append(draw(weights(n, fitting)))
    form = (
        draw(st.sampled_from(list(FORMS)))
        if fitting or draw(st.integers(0, 3)) == 0
        else "numpy"
    )
    whole = draw(
        st.sampled_from(
            ["tuple"] * 5
            if fitting
            else ["tuple"] * 5 + ["list", "stream", "function", "one", "more"]
        )
    )
    return Given(parts, form, whole)


class Given:
    """Data as they are handed over, and what they were."""

    def __init__(self, parts: list[Any], form: str, whole: str) -> None:
        self.parts, self.form, self.whole = parts, form, whole

    def __repr__(self) -> str:
        shown = [
            f"{part.dtype}{part.shape}" if isinstance(part, np.ndarray) else repr(part)
            for part in self.parts
        ]
        return f"Given({self.whole} of {self.form}: {', '.join(shown)})"

    def handed(self) -> Any:
        def formed(part: Any) -> Any:
            numeric = (
                isinstance(part, np.ndarray)
                and part.dtype.kind in "fiub"
                and part.dtype != object
            )
            return FORMS[self.form](part) if numeric else part

        parts = [formed(part) for part in self.parts]
        if self.whole == "stream":
            return (
                [tuple(part[at : at + 4] for part in self.parts) for at in range(0, 8, 4)]
                if self.cuttable
                else [tuple(parts)]
            )
        if self.whole == "function":
            return lambda: iter([tuple(parts)] * 3)
        if self.whole == "one":
            return parts[0]
        if self.whole == "more":
            return (*parts, *parts)
        return parts if self.whole == "list" else tuple(parts)

    @property
    def cuttable(self) -> bool:
        return all(isinstance(part, np.ndarray) and part.ndim for part in self.parts)


@st.composite
def weights(draw: Any, n: int, fitting: bool) -> Any:
    good = np.random.default_rng(draw(st.integers(0, 3))).uniform(0.1, 2, n).astype(np.float32)
    if fitting:
        return good
    return draw(
        st.sampled_from(
            [
                *(
                    good,
                    good,
                    None,
                    np.zeros(n),
                    -good,
                    good[:, None],
                    good[: n // 2],
                    np.ones(n, bool),
                    np.array(["1"] * n),
                ),
                *(good * np.nan, good * np.inf, good.astype(int), 1.0, good.tolist()),
            ]
        )
    )


METRICS: tuple[Any, ...] = (
    *(
        metrics.accuracy,
        metrics.squared_error,
        metrics.R2(),
        metrics.F1(),
        metrics.ROCAUC(),
        metrics.ConfusionMatrix(CLASSES),
    ),
    *(
        metrics.Perplexity(),
        functools.partial(metrics.top_k_accuracy, k=2),
        metrics.Precision(average=None),
    ),
)
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "learning_rate": st.sampled_from(
        [None, 0.01, 0, 1, optim.Cosine(0.1), optim.Plateau(0.1), optax.constant_schedule(0.1)]
    ),
    "epochs": st.sampled_from([1, 2, 3, np.int64(2)]),
    "steps": st.sampled_from([None, 1, 4]),
    "batch_size": st.sampled_from([1, 3, 4, 8, 100, np.int32(5)]),
    "metrics": st.dictionaries(
        st.sampled_from(["a", "b", "loss", ""]), st.sampled_from(METRICS), max_size=2
    )
    | st.none(),
    "validation": st.sampled_from([None, 0.25, 0.5, 0.99, 1e-9, 0.0, 1.0, -0.5, float("nan")])
    | data(),
    "class_weight": st.sampled_from(
        [
            None,
            {0: 1.0, 1: 2.0, 2: 0.5},
            [1, 2, 3],
            (1.0, 0.0, 2.0),
            np.ones(3),
            {0: 1},
            {"a": 1},
            [],
        ]
    ),
    "clip_norm": st.sampled_from([None, 1.0, 1, 1e-6, 0, -1.0, float("nan"), float("inf")]),
    "accumulate": st.sampled_from([1, 1, 2, 4, 0]),
    "average": st.sampled_from([None, 0.9, 0.0, 0, 1.0, -0.5, 2, float("nan")]),
    "augment": st.sampled_from(
        [
            None,
            lambda key, x, y: (x, y),
            lambda key, x, y: (x[:, :2], y),
            lambda key, x, y: x,
            lambda x: x,
        ]
    ),
    "early_stopping": st.sampled_from(
        [None, dl.EarlyStopping(1, "loss"), dl.EarlyStopping(), dl.EarlyStopping(2, "a", "max")]
    ),
    "callbacks": st.sampled_from(
        [
            (),
            [lambda end: end.history],
            (lambda end: True,),
            [lambda end: None, lambda end: end.epoch == 0],
        ]
    ),
    "seed": st.sampled_from(
        [0, 7, -1, 2**31, np.int64(3), jax.random.key(2), jax.random.PRNGKey(1), 2**63 - 1]
    ),
    "shuffle": st.booleans(),
    "steps_per_epoch": st.sampled_from([None, 1, 2, 100, 0]),
    "new_shapes": st.booleans(),
    "drop_last": st.booleans(),
    "precision": st.sampled_from([None, None, "bfloat16", "float16", "float32"]),
    "compile": st.sampled_from(["auto", "step", "eager", "epoch", "fast"]),
    "if_not_finite": st.sampled_from(["stop", "skip", "rollback", "never"]),
    "debug": st.booleans(),
    "initial": st.sampled_from(
        [None, ({}, {}), ({"kernel": np.ones((3, 3), np.float32)}, {}), ({"kernel": [1]},), "a"]
    ),
    "checkpoint": st.sampled_from([None, None, "folder", Path("folder"), 3]),
}

FITTING_OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "epochs": st.sampled_from([1, 2, 3]),
    "batch_size": st.sampled_from([1, 3, 4, 8, 100]),
    "validation": st.sampled_from([None, 0.25, 0.5]),
    "clip_norm": st.sampled_from([None, 1.0, 1]),
    "average": st.sampled_from([None, 0.9, 0.0]),
    "early_stopping": st.sampled_from(
        [None, dl.EarlyStopping(1, "loss"), dl.EarlyStopping(2, "loss", restore_best=False)]
    ),
    "callbacks": st.sampled_from([(), (lambda end: True,), [lambda end: None]]),
    "seed": st.sampled_from([0, 7, -1, np.int64(3), jax.random.key(2)]),
    "shuffle": st.booleans(),
    "precision": st.sampled_from([None, "bfloat16", "float16"]),
    "compile": st.sampled_from(["auto", "step", "eager", "epoch"]),
    "if_not_finite": st.sampled_from(["stop", "skip"]),
    "metrics": st.sampled_from([None, {"a": metrics.squared_error}]),
}


@st.composite
def fits(draw: Any) -> tuple[Any, Given, dict[str, Any]]:
    """A model, data and arguments of `fit`: all good, or some of them absurd."""
    loss = draw(st.sampled_from(LOSSES))
    spoil = draw(st.sampled_from(["data", "odd", "absurd", "both", "neither", "neither"]))
    given = draw(data(loss, fitting=spoil not in ("data", "both")))
    options: dict[str, Any] = {
        "loss": loss,
        "optimizer": draw(
            st.sampled_from(OPTIMIZERS if spoil == "odd" else FITTING_OPTIMIZERS)
        ),
    }
    chosen_from = OPTIONS if spoil == "odd" else FITTING_OPTIONS
    for name in draw(st.lists(st.sampled_from(list(chosen_from)), max_size=4, unique=True)):
        options[name] = draw(chosen_from[name])
    if spoil in ("absurd", "both"):
        for name in draw(
            st.lists(st.sampled_from([*OPTIONS, "loss", "optimizer"]), min_size=1, max_size=2)
        ):
            options[name] = draw(absurd)
    fitting = (
        MODELS["one output"]
        if getattr(given.parts[1], "shape", ())[1:] == (1,)
        else draw(st.sampled_from(CLASSIFIERS))
    )
    odd = [*MODELS.values(), dl.Dense, dl.Embedding(3, 3), jnp.tanh, None, 3, lambda x: x[0]]
    model = (
        fitting if spoil == "neither" or draw(st.integers(0, 3)) else draw(st.sampled_from(odd))
    )
    return model, given, options


def copied(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tree
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:accumulate=. the moments of BatchNorm")
@examples(20)
@hypothesis.given(fits())
def test_a_run_has_what_was_asked_for_or_a_sentence(drawn: Any) -> None:
    model, given, options = drawn
    options = {
        name: value.handed() if isinstance(value, Given) else value
        for name, value in options.items()
    }
    data, before = given.handed(), copied(given.parts)
    with case("fit"):
        run = attempt(dl.fit, model, data, **options, progress=False, users=True)
        unchanged(given.parts, before)
        if run.stopped == "finished" and options.get("steps") is None:
            assert len(run.history["loss"]) == options.get("epochs", 1)
            assert all(
                len(values) == len(run.history["seconds"]) for values in run.history.values()
            )
        for leaf in jax.tree.leaves((run.params, run.state)):
            assert np.isfinite(np.asarray(leaf, np.float32)).all()


def unchanged(parts: Any, before: Any) -> None:
    for part, other in zip(parts, before, strict=True):
        if isinstance(part, np.ndarray):
            np.testing.assert_array_equal(part, other)


def by_hand(loss: Any, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The loss of each example, in NumPy and float64."""
    outputs, targets = outputs.astype(np.float64), np.asarray(targets)
    if loss is losses.softmax_cross_entropy:
        labels = (
            targets
            if targets.shape == outputs.shape
            else np.eye(CLASSES)[targets.astype(int).reshape(len(outputs))]
        )
        shifted = outputs - outputs.max(-1, keepdims=True)
        return -(labels * (shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))).sum(-1)
    targets = targets.astype(np.float64).reshape(outputs.shape)
    error = np.abs(outputs - targets)
    return {
        losses.mean_squared_error: lambda: error**2,
        losses.huber: lambda: np.where(error <= 1, error**2 / 2, error - 0.5),
        losses.hinge: lambda: np.maximum(0, 1 - targets * outputs),
        losses.binary_cross_entropy: lambda: np.logaddexp(0, outputs) - targets * outputs,
    }[loss]().mean(-1)


@pytest.mark.slow
@examples(8)
@hypothesis.given(
    st.sampled_from(["linear", "normalised"]),
    st.sampled_from(LOSSES).flatmap(
        lambda loss: st.tuples(st.just(loss), data(loss, fitting=True))
    ),
    st.sampled_from([1, 3, 4, 5, 100]),
    st.sampled_from(["step", "epoch", "eager"]),
)
def test_what_is_measured_is_what_numpy_finds(
    name: str, drawn: Any, batch_size: int, way: Any
) -> None:
    loss, given = drawn
    model, (x, y, *more) = (
        MODELS["one output" if given.parts[1].shape[1:] == (1,) else name],
        given.parts,
    )
    params, state = model.init(
        jax.random.key(1), jax.ShapeDtypeStruct((1, FEATURES), jnp.float32)
    )
    with case("evaluate and predict"):
        inputs, before = given.handed()[0], copied(given.parts)
        outputs = attempt(
            dl.predict, model, params, state, inputs, batch_size=batch_size, compile=way
        )
        np.testing.assert_allclose(
            outputs, model.apply(params, state, x)[0], rtol=1e-5, atol=1e-5
        )
        measured = attempt(
            dl.evaluate,
            model,
            params,
            state,
            given.handed(),
            loss=loss,
            batch_size=batch_size,
            compile=way,
        )
        unchanged(given.parts, before)
        each = by_hand(loss, np.asarray(outputs), y)
        expected = np.average(each, weights=more[0] if more and more[0] is not None else None)
        np.testing.assert_allclose(measured["loss"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@examples(20)
@hypothesis.given(st.data())
def test_evaluate_and_predict_refuse_what_they_cannot_mean(draw: st.DataObject) -> None:
    model = draw.draw(st.sampled_from([*MODELS.values(), jnp.tanh, None, dl.Dense]))
    good = model if isinstance(model, dl.Layer) else dl.Dense(CLASSES)
    params, state = good.init(
        jax.random.key(1), jax.ShapeDtypeStruct((1, FEATURES), jnp.float32)
    )
    params = draw.draw(
        st.sampled_from(
            [params] * 6
            + [{}, None, 3, {"kernel": np.ones((2, 2), np.float32)}, {"dense_0": 1}, "a"]
        )
    )
    state = draw.draw(st.sampled_from([state] * 6 + [None, 3, {"a": np.ones(2)}]))
    given = draw.draw(data(draw.draw(st.sampled_from(LOSSES))))
    options = {
        name: draw.draw(OPTIONS[name] | absurd)
        for name in draw.draw(
            st.lists(
                st.sampled_from(["batch_size", "precision", "compile"]), max_size=2, unique=True
            )
        )
    }
    with case("predict, whatever it is given"):
        attempt(
            dl.predict,
            model,
            params,
            state,
            given.handed()[0] if given.whole == "tuple" else given.handed(),
            **options,
        )
    loss = draw.draw(st.sampled_from([None, *LOSSES]) | absurd)
    told = draw.draw(OPTIONS["metrics"] | absurd)
    with case("evaluate, whatever it is given"):
        attempt(
            dl.evaluate,
            model,
            params,
            state,
            given.handed(),
            loss=loss,
            metrics=told,
            users=True,
            **options,
        )
