"""Losses against optax, PyTorch and Keras, in every dtype, at the extremes, and under every shape that fits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import losses
from jaxdl.core.padded import Padded

pytestmark = pytest.mark.usefixtures("quickly_compiled")

F32 = jnp.float32


def float32(values):
    return np.asarray(values, np.float32)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(seed, high, *shape):
    return np.random.default_rng(seed).integers(0, high, size=shape).astype(np.int32)


def distributions(seed, *shape):
    powers = np.exp(normal(seed, *shape))
    return powers / powers.sum(-1, keepdims=True)


def gradient(loss, outputs, targets):
    return jax.jit(jax.grad(lambda x, y: loss(x, y).sum()))(outputs, targets)


def sigmoid(x):
    return (1 / (1 + np.exp(-x))).astype(np.float32)


# loss, outputs, targets, per-element oracle in optax; shapes [5, 3, 4], or [5, 3, classes]
LOGITS, OTHER, ZERO_ONE = normal(0, 5, 3, 4), normal(1, 5, 3, 4), integers(2, 2, 5, 3, 4)
NUMBERS, SOFT = integers(3, 4, 5, 3), distributions(4, 5, 3, 4)
CASES = {
    "mean_squared_error": (losses.mean_squared_error, LOGITS, OTHER, optax.squared_error),
    "mean_absolute_error": (
        losses.mean_absolute_error,
        LOGITS,
        OTHER,
        lambda x, y: jnp.abs(x - y),
    ),
    "huber": (losses.huber, 2 * LOGITS, OTHER, optax.huber_loss),
    "huber, delta": (
        functools.partial(losses.huber, delta=0.3),
        LOGITS,
        OTHER,
        functools.partial(optax.huber_loss, delta=0.3),
    ),
    "binary": (
        losses.binary_cross_entropy,
        LOGITS,
        ZERO_ONE,
        optax.sigmoid_binary_cross_entropy,
    ),
    "binary, probabilities": (
        losses.binary_cross_entropy_from_probabilities,
        sigmoid(LOGITS),
        ZERO_ONE,
        lambda p, y: optax.sigmoid_binary_cross_entropy(jnp.log(p) - jnp.log(1 - p), y),
    ),
    "softmax, numbers": (
        losses.softmax_cross_entropy,
        LOGITS,
        NUMBERS,
        optax.softmax_cross_entropy_with_integer_labels,
    ),
    "softmax, soft": (losses.softmax_cross_entropy, LOGITS, SOFT, optax.softmax_cross_entropy),
    "softmax, smoothed": (
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.1),
        LOGITS,
        NUMBERS,
        lambda x, y: optax.softmax_cross_entropy(
            x, optax.smooth_labels(jax.nn.one_hot(y, 4), 0.1)
        ),
    ),
    "softmax, soft, smoothed": (
        functools.partial(losses.softmax_cross_entropy, label_smoothing=0.3),
        LOGITS,
        SOFT,
        lambda x, y: optax.softmax_cross_entropy(x, optax.smooth_labels(y, 0.3)),
    ),
    "hinge": (
        losses.hinge,
        LOGITS,
        2 * ZERO_ONE - 1,
        lambda x, y: optax.hinge_loss(x, y.astype(F32)),
    ),
    "focal": (losses.focal, LOGITS, ZERO_ONE, optax.sigmoid_focal_loss),
    "focal, settings": (
        functools.partial(losses.focal, alpha=0.25, gamma=1.5),
        LOGITS,
        ZERO_ONE,
        functools.partial(optax.sigmoid_focal_loss, alpha=0.25, gamma=1.5),
    ),
    "log_cosh": (losses.log_cosh, LOGITS, OTHER, optax.log_cosh),
    "percentage": (
        losses.mean_absolute_percentage_error,
        LOGITS,
        OTHER,
        lambda x, y: 100 * jnp.abs(x - y) / jnp.abs(y),
    ),
    "logarithmic": (
        losses.mean_squared_logarithmic_error,
        np.exp(LOGITS),
        np.exp(OTHER),
        lambda x, y: optax.squared_error(jnp.log1p(x), jnp.log1p(y)),
    ),
    "poisson": (
        losses.poisson_negative_log_likelihood,
        LOGITS,
        ZERO_ONE,
        lambda x, y: jnp.exp(x) - y.astype(x.dtype) * x,
    ),
    "squared hinge": (
        losses.squared_hinge,
        LOGITS,
        2 * ZERO_ONE - 1,
        lambda x, y: jnp.square(optax.hinge_loss(x, y.astype(x.dtype))),
    ),
    "multiclass hinge": (
        losses.multiclass_hinge,
        LOGITS,
        NUMBERS,
        optax.losses.multiclass_hinge_loss,
    ),
    "kl": (losses.kl_divergence, np.log(distributions(5, 5, 3, 4)), SOFT, optax.kl_divergence),
    "cosine": (losses.cosine_distance, LOGITS, OTHER, optax.cosine_distance),
}
ELEMENTWISE = {
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "binary",
    "binary, probabilities",
    "hinge",
    "focal",
    "log_cosh",
    "percentage",
    "logarithmic",
    "poisson",
    "squared hinge",
}
case = pytest.mark.parametrize("name", CASES)


@pytest.mark.sampled(5)
@case
def test_is_the_mean_of_optax_over_the_axes_after_the_batch(name):
    loss, outputs, targets, oracle = CASES[name]
    got = jax.jit(loss)(outputs, targets)
    assert got.shape == (5,)
    assert got.dtype == F32
    expected = np.asarray(jax.jit(oracle)(outputs, targets))
    np.testing.assert_allclose(got, expected.reshape(5, -1).mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.sampled(5)
@case
def test_gradient_is_that_of_optax(name):
    loss, outputs, targets, oracle = CASES[name]
    expected = jax.jit(jax.grad(lambda x, y: oracle(x, y).reshape(5, -1).mean(1).sum()))(
        outputs, targets
    )
    np.testing.assert_allclose(gradient(loss, outputs, targets), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.sampled(3)
@case
def test_jit_equals_eager_and_vmap_equals_a_loop(name):
    loss, outputs, targets, _ = CASES[name]
    eager = loss(outputs, targets)
    np.testing.assert_allclose(jax.jit(loss)(outputs, targets), eager, rtol=1e-6, atol=1e-7)
    models = np.stack([outputs, outputs * np.float32(0.9)])
    together = jax.jit(jax.vmap(loss, in_axes=(0, None)))(models, targets)
    np.testing.assert_allclose(
        together, [loss(model, targets) for model in models], rtol=1e-5, atol=1e-6
    )


@pytest.mark.sampled(3)
@case
def test_an_example_does_not_know_the_others(name):
    loss, outputs, targets, _ = CASES[name]
    order = np.array([3, 1, 4, 0, 2])
    compiled = jax.jit(loss)
    np.testing.assert_allclose(
        compiled(outputs[order], targets[order]),
        compiled(outputs, targets)[order],
        rtol=1e-6,
        atol=1e-7,
    )


@pytest.mark.sampled(3)
@case
def test_half_precision_is_computed_in_float32(name):
    loss, outputs, targets, _ = CASES[name]
    for dtype in (jnp.bfloat16, jnp.float16):
        half = outputs.astype(dtype)
        got = jax.jit(loss)(half, targets)
        assert got.dtype == F32
        np.testing.assert_allclose(
            got, jax.jit(loss)(half.astype(np.float32), targets), rtol=1e-6, atol=1e-7
        )
        assert jax.eval_shape(jax.grad(lambda x: loss(x, targets).sum()), half).dtype == dtype


@pytest.mark.sampled(3)
@case
def test_float64_is_kept(name):
    loss, outputs, targets, oracle = CASES[name]
    with jax.enable_x64(True):
        wide, labels = (
            outputs.astype(np.float64),
            targets.astype(np.float64) if targets.dtype == F32 else targets,
        )
        got = jax.jit(loss)(wide, targets)
        assert got.dtype == jnp.float64
        if name != "hinge":
            expected = np.asarray(jax.jit(oracle)(wide, labels)).reshape(5, -1).mean(1)
            np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(ELEMENTWISE))
@pytest.mark.parametrize(
    "shapes", [((6,), (6, 1)), ((6, 1), (6,)), ((6, 2, 1), (6, 2)), ((1,), (1, 1))]
)
def test_one_trailing_axis_of_length_one_may_be_missing(name, shapes):
    loss, outputs, targets, _ = CASES[name]
    left, right = (
        values.ravel()[: np.prod(s)].reshape(s)
        for values, s in zip((outputs, targets), shapes, strict=True)
    )
    got = jax.jit(loss)(left, right)
    assert got.shape == shapes[0][:1]
    expected = jax.jit(loss)(left.ravel(), right.ravel())  # a loss of single numbers
    np.testing.assert_allclose(
        got, np.asarray(expected).reshape(*shapes[0][:1], -1).mean(1), rtol=1e-6
    )


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int32])
@pytest.mark.parametrize("loss", [losses.mean_squared_error, losses.binary_cross_entropy])
def test_targets_of_any_real_dtype_are_cast(loss, dtype):
    outputs, targets = normal(0, 6, 2), integers(1, 2, 6, 2)
    np.testing.assert_array_equal(
        loss(outputs, targets.astype(dtype)), loss(outputs, targets.astype(np.float32))
    )


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int32])
def test_class_numbers_of_any_whole_dtype(dtype):
    outputs, labels = normal(0, 6, 2), integers(1, 2, 6)
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
    np.testing.assert_array_equal(
        losses.softmax_cross_entropy(outputs, labels.astype(dtype)), expected
    )
    np.testing.assert_array_equal(
        losses.softmax_cross_entropy(outputs, labels.astype(dtype)[:, None]), expected
    )


def test_whole_one_hot_labels_equal_class_numbers():
    one_hot = np.eye(4, dtype=np.int32)[NUMBERS]
    np.testing.assert_allclose(
        losses.softmax_cross_entropy(LOGITS, one_hot),
        losses.softmax_cross_entropy(LOGITS, NUMBERS),
        rtol=1e-6,
    )


@pytest.mark.slow
def test_equal_pytorch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, y = torch.tensor(LOGITS), torch.tensor(OTHER)
    flat, numbers = x.reshape(15, 4), torch.tensor(NUMBERS).reshape(15).long()
    binary, log_p = torch.tensor(ZERO_ONE).float(), torch.tensor(LOGITS).log_softmax(-1)
    each = {"reduction": "none"}
    expected = {
        (losses.mean_squared_error, "x", "y"): functional.mse_loss(x, y, **each),
        (losses.mean_absolute_error, "x", "y"): functional.l1_loss(x, y, **each),
        (functools.partial(losses.huber, delta=0.7), "x", "y"): functional.huber_loss(
            x, y, delta=0.7, **each
        ),
        (losses.binary_cross_entropy, "x", "b"): functional.binary_cross_entropy_with_logits(
            x, binary, **each
        ),
        (
            losses.binary_cross_entropy_from_probabilities,
            "p",
            "b",
        ): functional.binary_cross_entropy(torch.tensor(sigmoid(LOGITS)), binary, **each),
        (losses.softmax_cross_entropy, "x", "n"): functional.cross_entropy(
            flat, numbers, **each
        ),
        (
            functools.partial(losses.softmax_cross_entropy, label_smoothing=0.2),
            "x",
            "n",
        ): functional.cross_entropy(flat, numbers, label_smoothing=0.2, **each),
        (losses.softmax_cross_entropy, "x", "s"): functional.cross_entropy(
            flat, torch.tensor(SOFT).reshape(15, 4), **each
        ),
        (losses.kl_divergence, "l", "s"): functional.kl_div(
            log_p, torch.tensor(SOFT), **each
        ).sum(-1),
        (losses.cosine_distance, "x", "y"): 1 - functional.cosine_similarity(x, y, dim=-1),
    }
    given = {
        "x": LOGITS,
        "y": OTHER,
        "b": ZERO_ONE,
        "n": NUMBERS,
        "s": SOFT,
        "p": sigmoid(LOGITS),
        "l": log_p.numpy(),
    }
    for (loss, outputs, targets), values in expected.items():
        got = loss(given[outputs], given[targets])
        np.testing.assert_allclose(
            got, values.numpy().reshape(5, -1).mean(1), rtol=2e-5, atol=1e-6, err_msg=str(loss)
        )


EXTREMES = [0.0, -0.0, 1e-30, 1.0, -1.0, 88.0, -88.0, 1e4, -1e4, 3e18, -3e18]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    "loss",
    [
        losses.binary_cross_entropy,
        losses.focal,
        functools.partial(losses.focal, alpha=0.25, gamma=0.5),
        losses.mean_squared_error,
        losses.mean_absolute_error,
        losses.huber,
        lambda x, y: losses.hinge(x, 2 * y - 1),
    ],
)
def test_loss_and_gradient_are_finite_at_extreme_outputs(loss, label):
    outputs = np.array(EXTREMES, np.float32)
    targets = np.full(outputs.shape, label, np.int32)
    assert np.isfinite(jax.jit(loss)(outputs, targets)).all()
    assert np.isfinite(gradient(loss, outputs, targets)).all()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("form", ["numbers", "one-hot"])
def test_softmax_cross_entropy_is_finite_at_extreme_logits(form, smoothing):
    logits = np.array([[a, b, 0.0] for a in EXTREMES for b in EXTREMES], np.float32)
    labels = np.arange(len(logits)) % 3
    targets = labels if form == "numbers" else np.eye(3, dtype=np.float32)[labels]
    loss = functools.partial(losses.softmax_cross_entropy, label_smoothing=smoothing)
    assert np.isfinite(jax.jit(loss)(logits, targets)).all()
    slopes = gradient(loss, logits, targets)
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(slopes.sum(-1), 0, atol=1e-6)


def test_a_class_ruled_out_by_minus_infinity_costs_nothing():
    logits = np.array([[0.0, -np.inf, 0.0]], np.float32)
    for labels in (np.array([0]), np.array([[1.0, 0.0, 0.0]], np.float32)):
        loss = jax.jit(losses.softmax_cross_entropy)
        np.testing.assert_allclose(loss(logits, labels), np.log([2]), rtol=1e-6)
        np.testing.assert_allclose(
            gradient(loss, logits, labels), [[-0.5, 0.0, 0.5]], atol=1e-6
        )


def test_probabilities_of_zero_and_one_are_clipped_as_keras_clips_them():
    p, y = np.array([0, 0, 1, 1, 1e-6, 1 - 1e-6], np.float32), np.array([0, 1, 0, 1, 1, 1])
    got = jax.jit(losses.binary_cross_entropy_from_probabilities)(p, y)
    np.testing.assert_allclose(got[:4], [1e-7, 16.118, 15.942, 1.19e-7], rtol=1e-2)
    slopes = gradient(losses.binary_cross_entropy_from_probabilities, p, y)
    np.testing.assert_allclose(slopes, [0, 0, 0, 0, -1e6, -1], rtol=1e-5)


def test_probabilities_equal_keras_at_the_ends(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    p, y = (
        np.array([[0.0], [0.0], [1.0], [1.0], [0.3]], np.float32),
        np.array([[0], [1], [0], [1], [1]], np.float32),
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = np.asarray(keras.losses.binary_crossentropy(y, p))
    np.testing.assert_allclose(
        losses.binary_cross_entropy_from_probabilities(p, y), expected, rtol=1e-5, atol=2e-8
    )


def test_kl_divergence_of_impossible_classes_is_finite():
    log_p, y = np.array([[0, -np.inf], [-np.inf, 0]], np.float32), np.eye(2, dtype=np.float32)
    np.testing.assert_array_equal(jax.jit(losses.kl_divergence)(log_p, y), [0.0, 0.0])
    np.testing.assert_array_equal(gradient(losses.kl_divergence, log_p, y), -y)


def test_cosine_distance_from_a_zero_vector_is_one_and_has_a_gradient():
    x = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]], np.float32)
    y = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0], [-1, -1, -1]], np.float32)
    np.testing.assert_allclose(jax.jit(losses.cosine_distance)(x, y), [1, 1, 1, 2], rtol=1e-6)
    assert np.isfinite(gradient(losses.cosine_distance, x, y)).all()


SMOOTHED = jax.jit(functools.partial(losses.softmax_cross_entropy, label_smoothing=0.3))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4), st.integers(0, 3))
def test_softmax_cross_entropy_equals_the_equation_in_float64(row, label):
    x = np.array(row, np.float64)
    log_p = x - x.max() - np.log(np.exp(x - x.max()).sum())
    y = 0.7 * np.eye(4)[label] + 0.3 / 4
    loss = SMOOTHED(x[None].astype(np.float32), np.array([label]))
    np.testing.assert_allclose(loss[0], -(y * log_p).sum(), rtol=1e-4, atol=1e-4)


def log_softmax(x):
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def second(loss, outputs, targets):
    """The diagonal of the second derivative of a loss of one value an example, forward over reverse."""
    slope = jax.grad(lambda x: loss(x, targets).sum())
    return jax.jit(lambda x: jax.jvp(slope, (x,), (jnp.ones_like(x),))[1])(outputs)


def forward(loss, outputs, targets):
    """The derivative of a loss of one value an example, in forward mode."""
    return jax.jit(lambda x: jax.jvp(lambda x: loss(x, targets), (x,), (jnp.ones_like(x),))[1])(
        outputs
    )


LABELS = {
    "numbers": (np.array([2, 1, 2]), np.eye(4)[[2, 1, 2]], 0.0),
    "one-hot": (np.eye(4, dtype=np.float32)[[2, 1, 2]], np.eye(4)[[2, 1, 2]], 0.0),
    "soft": (float32([[0, 0.5, 0.5, 0]] * 3), np.array([[0, 0.5, 0.5, 0]] * 3), 0.0),
    "smoothed": (np.array([2, 1, 2]), 0.9 * np.eye(4)[[2, 1, 2]] + 0.025, 0.1),
}


@pytest.mark.sampled
@pytest.mark.parametrize("form", LABELS)
def test_first_and_second_derivatives_of_softmax_cross_entropy_are_those_of_the_closed_form(
    form,
):
    targets, y, smoothing = LABELS[form]
    ruled_out = (
        -1e4 if smoothing else -np.inf
    )  # smoothed, a class that is ruled out costs infinity
    logits = float32([[ruled_out, 0, 1, 0.5], [0, 20, -3, ruled_out], [1e4, -1e4, 0, 3]])
    loss = functools.partial(losses.softmax_cross_entropy, label_smoothing=smoothing)
    log_p = log_softmax(logits.astype(np.float64))
    p = np.exp(log_p)
    expected = -np.where(y == 0, 0, y * np.where(y == 0, 0, log_p)).sum(-1)
    np.testing.assert_allclose(loss(logits, targets), expected, rtol=1e-6, atol=1e-6)
    in_reverse = jax.jit(jax.jacrev(loss))(logits, targets)
    forwards = jax.jit(jax.jacfwd(loss))(logits, targets)
    curvature = jax.jit(jax.hessian(lambda x: loss(x, targets).sum()))(logits)
    for i in range(3):
        np.testing.assert_allclose(in_reverse[i, i], (p - y)[i], atol=1e-6)
        np.testing.assert_allclose(forwards[i, i], (p - y)[i], atol=1e-6)
        np.testing.assert_allclose(
            curvature[i, :, i], np.diag(p[i]) - np.outer(p[i], p[i]), atol=1e-6
        )


def test_softmax_cross_entropy_has_the_derivative_by_soft_labels_too():
    logits, y = normal(0, 3, 4), float32([[0, 1, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 1]])
    by_labels = jax.grad(lambda y: losses.softmax_cross_entropy(logits, y).sum())(y)
    np.testing.assert_allclose(by_labels, -log_softmax(logits.astype(np.float64)), rtol=1e-5)


def focal_by_hand(x, y, alpha, gamma):
    """Value, slope and curvature of the focal loss by s = ±x, in float64."""
    sign = np.where(y == 1, 1, -1)
    s = sign * x.astype(np.float64)
    log_p, p, q = -np.logaddexp(0, -s), 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(s))
    a = np.where(y == 1, alpha, 1 - alpha) * q**gamma
    slope = a * (gamma * p * log_p - q)
    curvature = a * p * (-gamma * (gamma * p * log_p - q) + gamma * q * log_p + gamma * q + q)
    return -a * log_p, sign * slope, curvature


@pytest.mark.sampled
@pytest.mark.parametrize("label", [0, 1])
def test_derivatives_of_binary_losses_are_those_of_the_closed_form(label):
    x = float32([0, -0.0, 0.3, -2, 5, -5, 20, -20, 60, -60])
    y = np.full(x.shape, label)
    for gamma, alpha in ((0.0, 0.5), (0.5, 0.25), (2.0, 0.5)):
        value, slope, curvature = focal_by_hand(x, y, alpha, gamma)
        loss = functools.partial(losses.focal, alpha=alpha, gamma=gamma)
        if gamma == 0:
            value, slope, curvature, loss = (
                2 * value,
                2 * slope,
                2 * curvature,
                losses.binary_cross_entropy,
            )
        near = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-7)
        near(jax.jit(loss)(x, y), value)
        near(gradient(loss, x, y), slope)
        near(forward(loss, x, y), slope)
        near(second(loss, x, y), curvature)


@pytest.mark.sampled
@pytest.mark.parametrize("loss", [losses.binary_cross_entropy, losses.focal])
def test_an_infinite_logit_that_is_right_costs_nothing(loss):
    x, y = np.array([-np.inf, np.inf, 0.0], np.float32), np.array([0, 1, 1])
    assert not np.asarray(jax.jit(loss)(x, y))[:2].any()
    for derivative in (gradient, forward, second):
        got = np.asarray(derivative(loss, x, y))
        assert not got[:2].any()
        assert np.isfinite(got).all()
    assert np.isinf(np.asarray(jax.jit(loss)(-x, y))[:2]).all()


DERIVATIVES = {
    "mean_squared_error": (losses.mean_squared_error, lambda e: 2 * e, lambda e: 2 + 0 * e),
    "mean_absolute_error": (losses.mean_absolute_error, np.sign, lambda e: 0 * e),
    "huber": (losses.huber, lambda e: np.clip(e, -1, 1), lambda e: 1.0 * (abs(e) < 1)),
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_of_errors_are_those_of_the_closed_form(name):
    loss, slope, curvature = DERIVATIVES[name]
    x, y = float32([0.5, -0.25, 3, -1e4, 1e9, 2]), float32([0, 0, 1, 1, 0, 2])
    e = x.astype(np.float64) - y
    np.testing.assert_allclose(gradient(loss, x, y), slope(e), rtol=1e-6)
    np.testing.assert_allclose(forward(loss, x, y), slope(e), rtol=1e-6)
    np.testing.assert_allclose(second(loss, x, y), curvature(e), rtol=1e-6)


def test_derivatives_of_kl_divergence_with_classes_ruled_out():
    log_p, y = (
        float32([[-np.inf, -1, -0.5], [-1e4, -2, -3]]),
        float32([[0, 0.3, 0.7], [0, 1, 0]]),
    )
    forwards = jax.jit(jax.jacfwd(losses.kl_divergence))(log_p, y)
    for i in range(2):
        np.testing.assert_array_equal(forwards[i, i], -y[i])
    assert not np.asarray(
        jax.jit(jax.hessian(lambda x: losses.kl_divergence(x, y).sum()))(log_p)
    ).any()


# --- sequences of different lengths -------------------------------------------------------------------------------

LENGTHS = np.array([3, 1, 2, 0, 2], np.int32)


def broken_behind(values):
    """The values with NaN, or labels that no class has, behind the lengths."""
    behind = np.arange(values.shape[1]) >= LENGTHS[:, None]
    wrong = np.nan if np.issubdtype(values.dtype, np.floating) else -1
    return np.where(
        behind.reshape(*behind.shape, *[1] * (values.ndim - 2)),
        np.asarray(wrong, values.dtype),
        values,
    )


@pytest.mark.sampled(6)
@case
@pytest.mark.parametrize("lengths_of", ["outputs", "targets", "both"])
def test_of_padded_sequences_each_example_is_the_mean_over_its_steps(name, lengths_of):
    loss, outputs, targets, oracle = CASES[name]
    steps = np.asarray(jax.jit(oracle)(outputs, targets)).reshape(5, 3, -1).mean(-1)
    expected = [row[:n].mean() if n else 0 for row, n in zip(steps, LENGTHS, strict=True)]
    y = broken_behind(targets)
    y = y if lengths_of == "outputs" else Padded(y, LENGTHS)

    def total(x):
        each = loss(x if lengths_of == "targets" else Padded(x, LENGTHS), y)
        return each.sum(), each

    slopes, each = jax.jit(jax.grad(total, has_aux=True))(broken_behind(outputs))
    np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6)
    within = np.arange(3) < LENGTHS[:, None]
    shares = np.where(within, 3 / np.maximum(LENGTHS, 1)[:, None], 0)[
        ..., None
    ]  # of what was divided by three steps
    np.testing.assert_allclose(
        slopes, gradient(loss, outputs, targets) * shares, rtol=1e-4, atol=1e-6
    )


def test_padded_outputs_of_one_value_a_step_need_no_last_axis():
    x, y = normal(0, 5, 3), normal(1, 5, 3)
    got = losses.mean_squared_error(Padded(x, LENGTHS), y[..., None])
    np.testing.assert_allclose(
        got, losses.mean_squared_error(Padded(x[..., None], LENGTHS), y), rtol=1e-6
    )
    np.testing.assert_allclose(got[1], (x[1, 0] - y[1, 0]) ** 2, rtol=1e-6)


@pytest.mark.slow
def test_full_lengths_are_no_padding():
    full = np.full(5, 3, np.int32)
    for loss, outputs, targets, _ in CASES.values():
        np.testing.assert_allclose(
            loss(Padded(outputs, full), targets), loss(outputs, targets), rtol=1e-6, atol=1e-7
        )


@pytest.mark.slow
def test_arrays_of_foreign_byte_order_are_converted():
    labels = np.array([0, 2, 1, 1], np.int32)
    one_hot = np.eye(3, dtype=np.float32)[labels]
    outputs = distributions(0, 4, 3)
    of_classes = [losses.softmax_cross_entropy]
    of_vectors = [
        losses.mean_squared_error,
        losses.mean_absolute_error,
        losses.huber,
        losses.binary_cross_entropy,
        losses.binary_cross_entropy_from_probabilities,
        losses.focal,
        losses.hinge,
        losses.kl_divergence,
        losses.cosine_distance,
        losses.softmax_cross_entropy,
    ]
    cases = [(loss, labels) for loss in of_classes] + [(loss, one_hot) for loss in of_vectors]
    for loss, targets in cases:
        foreign = outputs.astype(outputs.dtype.newbyteorder(">"))
        expected = loss(outputs, targets)
        np.testing.assert_array_equal(loss(foreign, targets), expected)
        foreign_targets = targets.astype(targets.dtype.newbyteorder(">"))
        np.testing.assert_array_equal(loss(outputs, foreign_targets), expected)
    lengths = np.array([3, 1, 2, 3])
    sequences = Padded(outputs, lengths.astype(np.int32))
    foreign = Padded(outputs.astype(">f4"), lengths.astype(">i4"))
    np.testing.assert_array_equal(
        losses.mean_squared_error(foreign, one_hot.astype(">f8")),
        losses.mean_squared_error(sequences, one_hot),
    )
