"""Class weights as sample weights: of class numbers, of one-hot and soft labels, of arrays and of streams."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.training.class_weights import class_weights_of

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(4)
X = RNG.normal(size=(43, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 43).astype(np.int32)
SOFT = RNG.dirichlet([1, 1, 1], 43).astype(np.float32)
TABLE = [1.0, 5.0, 0.5]
fit = functools.partial(
    dl.fit,
    dl.Dense(3),
    loss=losses.softmax_cross_entropy,
    optimizer=optax.adam(0.1),
    metrics={"accuracy": metrics.accuracy},
    epochs=2,
    progress=False,
)
arrays = functools.partial(fit, batch_size=10, shuffle=False)


def same(run, other):
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(run.history[name], other.history[name], rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        run.params,
        other.params,
    )


def without_metrics_of(run, weighted):
    """A run with sample weights, which weigh the metrics too, with those of the other."""
    weighted.history["accuracy"] = run.history["accuracy"]
    return weighted


def test_soft_labels_weigh_their_mean_weight():
    run = arrays((X, SOFT), class_weight=dict(enumerate(TABLE)))
    weighted = arrays((X, SOFT, SOFT @ np.array(TABLE, np.float32)))
    same(run, without_metrics_of(run, weighted))
    plain = arrays((X, SOFT))
    assert run.history["accuracy"][0] != 0
    assert not np.allclose(run.history["loss"], plain.history["loss"])


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.float32])
def test_one_hot_labels_weigh_as_class_numbers_do(dtype):
    one_hot = np.eye(3, dtype=dtype)[Y]
    same(arrays((X, one_hot), class_weight=TABLE), arrays((X, Y), class_weight=TABLE))


def test_soft_labels_that_are_made_in_training_are_weighed():
    def smoothed(key, inputs, targets):
        return inputs, 0.8 * jax.nn.one_hot(targets, 3) + 0.2 / 3

    soft = (0.8 * np.eye(3)[Y] + 0.2 / 3).astype(np.float32)
    run = arrays((X, Y), class_weight=TABLE, augment=smoothed)
    same(run, arrays((X, soft), class_weight=TABLE))


@pytest.mark.sampled
@pytest.mark.parametrize("labels", [SOFT, Y], ids=["soft", "numbers"])
@pytest.mark.parametrize("way", ["step", "epoch"])
def test_a_stream_has_the_weights_of_arrays(labels, way):
    batches = [(X[i : i + 10], labels[i : i + 10]) for i in range(0, 43, 10)]
    run = fit(batches, class_weight=TABLE, compile=way)
    same(run, arrays((X, labels), class_weight=TABLE))


def test_a_stream_may_show_a_class_later_that_has_a_weight():
    batches = [(X[:4], np.zeros(4, int)), (X[4:8], np.full(4, 2))]
    assert np.isfinite(fit(batches, class_weight=TABLE).history["loss"]).all()


@pytest.mark.parametrize(
    ("data", "weights", "message"),
    [
        (
            [(X[:4], Y[:4])],
            {0: 1.0, 2: 1.0},
            "class 1 has no weight, and a stream may have any",
        ),
        (
            [(X[:4], np.zeros(4, int)), (X[4:8], np.full(4, 2))],
            [1.0, 2.0],
            "data: batch 2 of epoch 1: class_weight: class 2 has examples and no weight",
        ),
        ([(X[:4], SOFT[:4])], [1.0, 2.0], "labels are over 3 classes, and 2 have weights"),
        ((X, SOFT), [1.0, 2.0], "class 2 has examples and no weight"),
        ((X, 0.5 * SOFT), TABLE, "class_weight: .* do not sum to 1 over the classes"),
        ((X, np.ones((43, 3), int)), TABLE, "one class label, or one-hot or soft labels"),
        ((X, np.ones(43, np.float32)), TABLE, "class labels of an integer dtype, got float32"),
    ],
)
def test_labels_that_have_no_weight_are_refused(data, weights, message):
    with pytest.raises(ValueError, match=message):
        fit(data, class_weight=weights)


def test_no_class_with_weight_is_refused_for_soft_labels():
    labels = np.eye(3, dtype=np.float32)[np.zeros(43, int)]
    with pytest.raises(
        ValueError, match="with those of their classes, are 0, so that none counts"
    ):
        arrays((X, labels), class_weight=[0.0, 1.0, 1.0])


def test_a_step_refuses_distributions_over_other_classes():
    with pytest.raises(
        ValueError, match=r"targets of shape \(2, 4\) are no labels of 3 classes"
    ):
        class_weights_of((1.0, 2.0, 3.0), jnp.zeros((2, 4)))
