"""`train`, populations, augmentation, sequences and `generate`: a result, or a sentence."""

from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl import data, losses, models
from jaxdl.data import augment
from tests.fuzz.outcome import attempt, case, examples
from tests.fuzz.strategies import absurd, arguments, arrays, filled
from tests.fuzz.test_fit import OPTIMIZERS, Given, unchanged
from tests.fuzz.test_fit import OPTIONS as FIT_OPTIONS

KEY = jax.random.key(0)
AUTOENCODERS = (dl.models.mlp(2, 3), dl.Sequential(dl.Dense(2), dl.Dense(4)), dl.Dense(3))
CODER = models.VariationalAutoencoder(dl.Dense(4), dl.Dense(3), latent=2)
STEPS = {
    dl.Reconstruction: {
        "model": st.sampled_from(AUTOENCODERS),
        "loss": st.sampled_from(
            [
                losses.mean_squared_error,
                losses.binary_cross_entropy,
                losses.softmax_cross_entropy,
            ]
        ),
        "optimizer": st.sampled_from([optax.adam(1e-2), optax.sgd(0.1)]),
        "corrupt": st.sampled_from(
            [
                None,
                lambda key, x: x + 0.1 * jax.random.normal(key, x.shape),
                lambda key, x: x[:, :2],
            ]
        ),
    },
    dl.Variational: {
        "model": st.just(CODER),
        "optimizer": st.sampled_from([optax.adam(1e-2), optax.sgd(1e-3)]),
        "beta": st.sampled_from([1.0, 0, 0.5]),
        "likelihood": st.sampled_from(
            [dl.bernoulli_log_likelihood, dl.gaussian_log_likelihood]
        ),
    },
}
TRAINED = (
    "epochs",
    "steps",
    "batch_size",
    "validation",
    "early_stopping",
    "callbacks",
    "seed",
    "shuffle",
    "new_shapes",
    "compile",
)
TRAIN_OPTIONS = {name: FIT_OPTIONS[name] for name in (*TRAINED, "steps_per_epoch")}


@st.composite
def unlabelled(draw: Any) -> Any:
    """Inputs as `train` takes them."""
    n = draw(st.sampled_from([1, 2, 5, 8, 8, 8, 0]))
    x = np.abs(filled((n, 3), np.float32)) % 1
    kinds = [
        x,
        x,
        x,
        (x,),
        (x, None),
        (x, None, np.ones(n, np.float32)),
        {"a": x},
        [x],
        x.astype(np.float64),
        x * 300,
        x - 5,
    ]
    kinds += [
        x.astype(np.uint8),
        x.astype(int),
        x.astype(str),
        x * np.nan,
        x[:, :2],
        x[0] if n else x,
        x.tolist(),
        lambda: [x, x],
    ]
    kinds += [dl.Padded(x[..., None], np.full(n, 2, np.int32)), (x, x, x), None, iter([x])]
    return draw(st.sampled_from(kinds))


@pytest.mark.slow
@examples(12)
@hypothesis.given(st.data())
def test_train(draw: st.DataObject) -> None:
    kind = draw.draw(st.sampled_from(list(STEPS)))
    options = {**draw.draw(arguments(STEPS[kind]))}
    for name in list(STEPS[kind])[: 3 if kind is dl.Reconstruction else 2]:
        options.setdefault(name, draw.draw(STEPS[kind][name]))
    told = draw.draw(arguments(TRAIN_OPTIONS))
    told = {
        name: value.handed() if isinstance(value, Given) else value
        for name, value in told.items()
    }
    given = draw.draw(unlabelled())
    before = given.copy() if isinstance(given, np.ndarray) else None
    with case("train"):
        step = attempt(kind, **options)
        run = attempt(dl.train, step, given, **told, progress=False, users=True)
        if before is not None:
            unchanged([given], [before])
        if run.stopped == "finished" and told.get("steps") is None:
            assert len(run.history["loss"]) == told.get("epochs", 1)


SWEEPS = {
    "seeds": st.sampled_from([1, 2, [3, 4], (0,), [], [1, 1], 0, [-1], [2**40]]),
    "combine": st.sampled_from(["grid", "zip"]),
    "halving": st.sampled_from([(), (1,), [1], [5], [0], [2, 1]]),
    "monitor": st.sampled_from([None, "loss", "validation_loss", "accuracy"]),
    "at_a_time": st.sampled_from([None, 1, 2, 100, 0]),
    "devices": st.sampled_from([None, jax.local_devices(), []]),
    "epochs": st.sampled_from([1, 2, 3]),
    "batch_size": st.sampled_from([3, 8, 100]),
    "validation": st.sampled_from([None, 0.25, 2.0]),
    "clip_norm": st.sampled_from([None, 1.0]),
    "learning_rate": st.sampled_from([None, 0.1, dl.optim.Cosine(0.1), dl.optim.Cosine]),
}
OVER = (
    *(
        {},
        {"learning_rate": [0.1, 0.01]},
        {"learning_rate": []},
        {"delta": [0.5, 1.0]},
        {"nothing": [1]},
        {"features": [2, 3]},
    ),
    *(
        {"dropout": [0.1, 0.5]},
        {"dropout": [2.0]},
        {"learning_rate": ["a"]},
        {"peak": [0.1, 0.2]},
    ),
)


@pytest.mark.slow
@examples(12)
@hypothesis.given(st.data())
def test_populations(draw: st.DataObject) -> None:
    options = draw.draw(arguments(SWEEPS, spoil=False))
    model = draw.draw(
        st.sampled_from(
            [
                dl.Dense(3),
                dl.Dense(3),
                lambda dropout: dl.Sequential(dl.Dropout(dropout), dl.Dense(3)),
                lambda features: dl.Dense(features),
            ]
        )
    )
    over = draw.draw(st.sampled_from(OVER))
    optimizer = draw.draw(st.sampled_from([*OPTIMIZERS, optax.sgd, optax.sgd]))
    x = filled((8, 3), np.float32)
    with case("populations"):
        runs = attempt(
            dl.sweep,
            model,
            (x, x),
            over,
            loss=losses.huber,
            optimizer=optimizer,
            progress=False,
            users=True,
            **options,
        )
        assert len(runs)


AUGMENT = {
    augment.flip: {},
    augment.crop: {
        "padding": st.integers(0, 3),
        "mode": st.sampled_from(["reflect", "constant"]),
    },
    augment.cutout: {"size": st.integers(0, 8)},
    augment.mixup: {"alpha": st.sampled_from([0.2, 1.0, 1e-3])},
}
IMAGES = arrays(
    st.tuples(*[st.integers(0, 4)] * 4) | st.lists(st.integers(1, 4), max_size=5).map(tuple)
)


@pytest.mark.slow
@examples(60)
@hypothesis.given(st.sampled_from(list(AUGMENT)), IMAGES, st.data())
def test_augmentation(function: Any, images: np.ndarray, draw: st.DataObject) -> None:
    options = draw.draw(arguments(AUGMENT[function]))
    more = (
        [images.reshape(len(images), -1) if images.ndim > 1 and images.size else images]
        if function is augment.mixup
        else []
    )
    with case("augmentation"):
        y = attempt(
            jax.eval_shape,
            lambda key, x, *more: function(key, x, *more, **options),
            KEY,
            *jax.tree.map(jnp.asarray, [images, *more]),
        )
        leaf = jax.tree.leaves(y)[0]
        assert leaf.shape == images.shape
        assert leaf.dtype == jnp.asarray(images).dtype


SEQUENCES = st.lists(st.integers(0, 5), max_size=4).map(
    lambda lengths: [np.arange(n, dtype=np.int32) for n in lengths]
)


@pytest.mark.slow
@examples(80)
@hypothesis.given(st.data())
def test_sequences(draw: st.DataObject) -> None:
    sequences = draw.draw(
        SEQUENCES
        | st.sampled_from(
            [None, 3, [1, 2], [[1, 2], [3]], "abc", [np.zeros(2), np.zeros((2, 2))], ["a"]]
        )
    )
    keep = draw.draw(st.sampled_from(["first", "last"]) | absurd)
    length = draw.draw(st.integers(1, 6) | absurd)
    which = draw.draw(st.sampled_from(["pad", "buckets", "windows", "random"]))
    with case("sequences"):
        if which == "pad":
            padded = attempt(data.pad, sequences, length, keep)
            assert padded.values.shape[:2] == (len(sequences), length)
            kept = [
                sequence[:length]
                if keep == "first"
                else sequence[max(len(sequence) - length, 0) :]
                for sequence in sequences
            ]
            for row, end, sequence in zip(padded.values, padded.lengths, kept, strict=True):
                np.testing.assert_array_equal(row[:end], sequence)
        elif which == "buckets":
            boundaries = draw.draw(st.sampled_from([(4, 8), [3], (), (2, 1), (0,)]) | absurd)
            targets = draw.draw(
                st.sampled_from(
                    [
                        np.zeros(len(sequences) if isinstance(sequences, list) else 1),
                        np.zeros(2),
                        None,
                    ]
                )
            )
            options = draw.draw(
                arguments(
                    {
                        "longest": st.none() | st.integers(0, 9),
                        "keep": st.just(keep),
                        "seed": st.integers(0, 3),
                    }
                )
            )
            buckets = attempt(
                data.Buckets, sequences, targets, length, boundaries=boundaries, **options
            )
            drawn = [row for inputs, _ in buckets for row in inputs.lengths]
            assert len(drawn) == len(sequences)
        else:
            ids = draw.draw(
                st.sampled_from(
                    [
                        np.arange(20),
                        np.arange(2),
                        np.zeros((2, 2)),
                        np.zeros(9),
                        [1, 2, 3, 4],
                        None,
                        np.array(2**40),
                    ]
                )
            )
            kind, options = (data.windows, {"stride": st.none() | st.integers(0, 4)})
            if which == "random":
                kind, options = (
                    data.RandomWindows,
                    {"batch_size": st.integers(0, 4), "seed": st.integers(0, 3)},
                )
            told = draw.draw(arguments(options))
            if which == "random":
                told.setdefault("batch_size", 2)
            made = attempt(kind, ids, length, **told)
            inputs, targets = made if which == "windows" else attempt(next, attempt(iter, made))
            assert inputs.shape == targets.shape
            np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


LANGUAGE = (
    models.gpt(5, layers=1, heads=1, features=4, context=8),
    dl.Sequential(dl.Embedding(5, 4), dl.GRU(3), dl.Dense(5)),
    dl.Sequential(dl.Embedding(5, 4), dl.GRU(3, sequence=False), dl.Dense(5)),
    dl.Sequential(dl.Embedding(5, 4), dl.Bidirectional(dl.GRU(3)), dl.Dense(5)),
    dl.Embedding(5, 5),
)
GENERATE = {
    "steps": st.integers(0, 4),
    "key": st.just(KEY),
    "temperature": st.sampled_from([1.0, 0, 0.5]),
    "top_k": st.none() | st.integers(1, 9),
    "top_p": st.none() | st.sampled_from([0.5, 1.0, 1e-6]),
    "stop": st.none() | st.integers(0, 4),
}


@pytest.mark.slow
@examples(8)
@hypothesis.given(
    st.sampled_from(LANGUAGE),
    arguments(GENERATE),
    arrays(st.lists(st.integers(0, 3), max_size=3).map(tuple)) | st.just(np.ones((2, 3), int)),
)
def test_generate(model: Any, told: dict[str, Any], prompt: np.ndarray) -> None:
    told = {"key": KEY, "steps": 2} | told
    params, state = model.init(KEY, jax.ShapeDtypeStruct((1, 2), jnp.int32))
    with case("generate"):
        tokens = attempt(dl.generate, model, params, state, prompt, **told)
        values = tokens.values if isinstance(tokens, dl.Padded) else tokens
        assert values.shape == (len(prompt), prompt.shape[1] + told["steps"])
        np.testing.assert_array_equal(values[:, : prompt.shape[1]], prompt)
