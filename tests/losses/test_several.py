"""Losses of several outputs, of likelihoods, maps and whole batches, against PyTorch, Keras, optax and scikit-learn."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.core.padded import Padded
from jaxdl.losses.checks import check_targets

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
A, P, N = RNG.normal(size=(3, 6, 4)).astype(np.float32)
SIGNS = np.array([1, -1, -1, 1, 1, -1])
ALL = jnp.ones(6, jnp.bool_)
near = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)


def gradient(loss, outputs, targets):
    return jax.jit(jax.grad(lambda x: loss(x, targets).sum()))(outputs)


def of_keras(function, targets, outputs, **arguments):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return np.asarray(function(targets, outputs, **arguments))


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


# --- several outputs ------------------------------------------------------------------------------------------------


def torch_triplet(functional, a, p, n, y):
    return functional.triplet_margin_loss(a, p, n, margin=0.7, reduction="none")


def torch_cosine(functional, a, p, n, y):
    return functional.cosine_embedding_loss(a, p, y, margin=0.2, reduction="none")


def torch_ranking(functional, a, p, n, y):
    each = functional.margin_ranking_loss(a, p, y[:, None], margin=0.5, reduction="none")
    return each.mean(1)


SEVERAL = {
    "triplet": (functools.partial(losses.triplet_margin, margin=0.7), 3, torch_triplet),
    "cosine": (functools.partial(losses.cosine_embedding, margin=0.2), 2, torch_cosine),
    "ranking": (functools.partial(losses.margin_ranking, margin=0.5), 2, torch_ranking),
}
NAMES = {2: ("first", "second"), 3: ("anchor", "positive", "negative")}


@pytest.mark.parametrize("name", SEVERAL)
def test_losses_of_several_outputs_equal_pytorch(name):
    torch = pytest.importorskip("torch")
    loss, count, oracle = SEVERAL[name]
    outputs = (A, P, N)[:count]
    targets = np.repeat(SIGNS[:, None], 4, 1) if name == "ranking" else SIGNS
    tensors = [torch.tensor(x, requires_grad=True) for x in (A, P, N)]
    expected = oracle(torch.nn.functional, *tensors, torch.tensor(SIGNS))
    near(jax.jit(loss)(outputs, targets), expected.detach().numpy())
    expected.sum().backward()
    slopes = gradient(loss, outputs, targets)
    for slope, tensor in zip(slopes, tensors, strict=False):
        np.testing.assert_allclose(slope, tensor.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SEVERAL)
def test_parts_come_by_name_by_place_or_along_an_axis(name):
    loss, count, _ = SEVERAL[name]
    outputs = (A, P, N)[:count]
    targets = np.repeat(SIGNS[:, None], 4, 1) if name == "ranking" else SIGNS
    expected = loss(outputs, targets)
    by_name = dict(zip(NAMES[count], outputs, strict=True))
    for given in (by_name, list(outputs), np.stack(outputs, axis=1)):
        np.testing.assert_array_equal(loss(given, targets), expected)
    wrong = re.escape(
        f"expected outputs of {count} parts — a dict with the keys '{NAMES[count][0]}', "
    )
    for given in ({"a": A}, (A,), A[:, :1], Padded(np.stack(outputs, 1), np.full(6, count))):
        with pytest.raises(ValueError, match=wrong):
            loss(given, targets)


def test_contrastive_loss_is_the_equation_and_has_a_gradient_at_0():
    together = np.array([1, 0, 0, 1, 1, 0])
    distance = np.linalg.norm(A - P, axis=1)
    apart = np.maximum(0, 3 - distance) ** 2
    expected = np.where(together == 1, distance**2, apart) / 2
    loss = functools.partial(losses.contrastive, margin=3.0)
    near(loss((A, P), together), expected)
    slope, _ = gradient(loss, (A, A), together)
    np.testing.assert_array_equal(slope, np.zeros((6, 4)))


def test_vectors_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"triplet_margin: the parts of the outputs are tuple"):
        losses.triplet_margin((A, P, N[:, :3]))
    with pytest.raises(ValueError, match="cosine_embedding: outputs of shape"):
        losses.cosine_embedding((A, P), np.ones((6, 4)))


def test_a_siamese_network_learns_by_triplets():
    images = RNG.normal(size=(30, 3, 5)).astype(np.float32)
    images[:, 1, 0] = images[:, 0, 0]
    run = dl.fit(
        dl.Map(dl.Dense(2)),
        (images, np.zeros(30)),
        loss=losses.triplet_margin,
        optimizer=optax.adam(0.05),
        batch_size=8,
        epochs=12,
        progress=False,
    )
    assert run.history["loss"][-1] < 0.8 * run.history["loss"][0]


# --- likelihoods ------------------------------------------------------------------------------------------------------


def test_gaussian_likelihood_equals_pytorch():
    torch = pytest.importorskip("torch")
    expected = torch.nn.functional.gaussian_nll_loss(
        torch.tensor(A),
        torch.tensor(N),
        torch.tensor(np.exp(P)),
        full=True,
        reduction="none",
    ).mean(1)
    for outputs in ({"mean": A, "log_variance": P}, (A, P), np.stack([A, P], 1)):
        near(losses.gaussian_negative_log_likelihood(outputs, N), expected)


@pytest.mark.slow
def test_gaussian_likelihood_of_sequences_is_the_mean_over_their_steps():
    lengths = np.array([4, 1, 2, 3, 4, 2], np.int32)
    broken = [np.where(np.arange(4) < lengths[:, None], x, np.nan) for x in (A, P)]
    padded = tuple(Padded(x.astype(np.float32), lengths) for x in broken)
    each = 0.5 * (np.log(2 * np.pi) + P + (N - A) ** 2 * np.exp(-P))
    expected = [row[:length].mean() for row, length in zip(each, lengths, strict=True)]
    near(losses.gaussian_negative_log_likelihood(padded, N), expected)
    total = lambda x: losses.gaussian_negative_log_likelihood(x, N).sum()  # noqa: E731
    slopes = jax.grad(total, allow_int=True)(padded)
    assert all(np.isfinite(x.values).all() for x in slopes)


def test_a_network_learns_the_variance():
    inputs = RNG.normal(size=(200, 1)).astype(np.float32)
    noise = RNG.normal(size=200).astype(np.float32)
    run = dl.fit(
        dl.Dense(2),
        (inputs, inputs[:, 0] + 0.5 * noise),
        loss=losses.gaussian_negative_log_likelihood,
        optimizer=optax.adam(0.05),
        batch_size=50,
        epochs=60,
        progress=False,
    )
    assert float(run.params["bias"][1]) == pytest.approx(np.log(0.25), abs=0.3)


def test_poisson_likelihood_equals_pytorch_s_distribution():
    torch = pytest.importorskip("torch")
    counts = RNG.integers(0, 9, (6, 4))
    poisson = torch.distributions.Poisson(torch.tensor(np.exp(A)))
    expected = -poisson.log_prob(torch.tensor(counts)).mean(1)
    near(losses.poisson_negative_log_likelihood(A, counts), expected)
    impossible = jnp.array([-jnp.inf, -jnp.inf])
    loss = losses.poisson_negative_log_likelihood
    near(loss(impossible, jnp.array([0, 1])), [0, np.inf])
    np.testing.assert_array_equal(gradient(loss, impossible[:1], jnp.array([0])), [0])


# --- hinges, relative errors and maps -----------------------------------------------------------------------------------


def test_losses_equal_keras(keras):
    positive = np.exp(A), np.exp(P)
    near(
        losses.mean_absolute_percentage_error(A, P),
        of_keras(keras.losses.mean_absolute_percentage_error, P, A),
    )
    near(
        losses.mean_squared_logarithmic_error(*positive),
        of_keras(keras.losses.mean_squared_logarithmic_error, positive[1], positive[0]),
    )
    near(losses.log_cosh(A, P), of_keras(keras.losses.log_cosh, P, A))
    signs = np.sign(P)
    near(losses.squared_hinge(A, signs), of_keras(keras.losses.squared_hinge, signs, A))


def test_multiclass_hinge_equals_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    labels = np.array([0, 1, 2, 3, 1, 0])
    weights = np.array([1, 2, 0.5, 1, 3, 1])
    expected = sklearn.hinge_loss(labels, A, sample_weight=weights)
    each = losses.multiclass_hinge(A, labels)
    assert np.average(each, weights=weights) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(
        ValueError, match=r"multiclass_hinge: labels of shape \(6, 4\) are one-hot"
    ):
        losses.multiclass_hinge(A, np.eye(4, dtype=np.int32)[labels])


MAP = RNG.normal(size=(3, 5, 4, 3)).astype(np.float32)
MAP_LABELS = RNG.integers(0, 3, (3, 5, 4))
ONE_HOT = np.eye(3, dtype=np.float32)[MAP_LABELS]


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_dice_of_classes_is_the_equation(smoothing):
    p = np.exp(MAP) / np.exp(MAP).sum(-1, keepdims=True)
    overlap = (p * ONE_HOT).sum((1, 2))
    sizes = (p + ONE_HOT).sum((1, 2))
    expected = (1 - (2 * overlap + smoothing) / (sizes + smoothing)).mean(-1)
    loss = functools.partial(losses.dice, smoothing=smoothing)
    for labels in (MAP_LABELS, MAP_LABELS[..., None], ONE_HOT):
        near(loss(MAP, labels), expected)


def test_dice_of_one_column_equals_keras(keras):
    logits, labels = MAP[..., :1], ONE_HOT[..., :1]
    p = 1 / (1 + np.exp(-logits))
    expected = [
        of_keras(keras.losses.dice, labels[i : i + 1], p[i : i + 1]).item() for i in range(3)
    ]
    loss = functools.partial(losses.dice, smoothing=1e-7)
    near(loss(logits, labels), expected)
    near(loss(logits, labels[..., 0]), expected)
    near(loss(logits, labels.astype(np.int32)), expected)


@pytest.mark.slow
def test_dice_counts_the_steps_within_the_lengths():
    lengths = np.array([5, 2, 3], np.int32)
    real = np.arange(5) < lengths[:, None]
    logits = np.where(real[..., None], MAP[:, :, 0], np.float32(np.nan))
    got = losses.dice(Padded(logits, lengths), MAP_LABELS[:, :, 0])
    expected = [
        losses.dice(MAP[i : i + 1, :n, 0], MAP_LABELS[i : i + 1, :n, 0])[0]
        for i, n in enumerate(lengths)
    ]
    near(got, expected)


# --- losses of a whole batch --------------------------------------------------------------------------------------------


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.slow
def test_info_nce_equals_pytorch_s_cross_entropy_over_the_batch():
    torch = pytest.importorskip("torch")
    entropy = functools.partial(torch.nn.functional.cross_entropy, reduction="none")
    similarities = torch.tensor(unit(A) @ unit(P).T / 0.3)
    own = torch.arange(6)
    loss = functools.partial(losses.info_nce, temperature=0.3)
    near(loss((A, P), None), entropy(similarities, own))
    both = (entropy(similarities, own) + entropy(similarities.T, own)) / 2
    near(loss((A, P), None, symmetric=True), both)


@pytest.mark.slow
def test_nt_xent_equals_optax():
    embeddings = jnp.concatenate([A, P])
    labels = jnp.tile(jnp.arange(6), 2)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        expected = optax.losses.ntxent(embeddings, labels, temperature=0.4)
    each = losses.nt_xent((A, P), None, temperature=0.4)
    assert each.shape == (6,)
    assert float(each.mean()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.sampled
@pytest.mark.parametrize("loss", [losses.info_nce, losses.nt_xent], ids=repr)
def test_rows_that_only_fill_a_batch_change_nothing(loss):
    mask = jnp.array([True, True, False, True, False, True])
    kept = np.flatnonzero(mask)
    for filler in (0.0, 7.0, np.nan):
        first, second = (np.where(mask[:, None], x, np.float32(filler)) for x in (A, P))
        each = loss((first, second), None, mask)
        near(each[kept], loss((A[kept], P[kept]), None))
        np.testing.assert_array_equal(each[~mask], [0, 0])
        slopes = jax.grad(lambda x, m: loss(x, None, m).sum())((first, second), mask)
        assert np.isfinite(np.stack(slopes)).all()
        assert not np.stack(slopes)[:, ~mask].any()


def test_what_losses_of_a_batch_refuse():
    with pytest.raises(
        ValueError, match=r"nt_xent: temperature is a finite number of at least"
    ):
        losses.nt_xent((A, P), None, temperature=0.0)
    with pytest.raises(ValueError, match=r"info_nce: .* expected one vector an example"):
        losses.info_nce((A[:, None], P[:, None]), None)


@pytest.mark.sampled
@pytest.mark.parametrize("loss", [losses.info_nce, losses.nt_xent], ids=repr)
def test_a_network_trains_on_views_with_a_smaller_last_batch(loss):
    views = RNG.normal(size=(20, 2, 5)).astype(np.float32)
    views[:, 1, :2] = views[:, 0, :2]
    run = dl.fit(
        dl.Map(dl.Dense(3)),
        (views, np.zeros(20), np.ones(20, np.float32)),
        loss=loss,
        optimizer=optax.adam(0.05),
        batch_size=8,
        epochs=10,
        progress=False,
    )
    assert run.history["loss"][-1] < run.history["loss"][0]


# --- targets that are refused -------------------------------------------------------------------------------------------


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "message"),
    [
        (losses.mean_absolute_percentage_error, struct(2), np.array([1.0, 0]), "1 of 2 targets are 0, the first"),
        (losses.mean_squared_logarithmic_error, struct(2), np.array([1.0, -1]), "1 of 2 targets lie below 0"),
        (losses.poisson_negative_log_likelihood, struct(2), np.array([1, -1]), "1 of 2 targets lie below 0"),
        (losses.squared_hinge, struct(2), np.array([1, 0]), "1 of 2 targets are neither -1 nor"),
        (losses.cosine_embedding, (struct(2, 3), struct(2, 3)), np.array([1, 0]), "neither -1 nor"),
        (losses.margin_ranking, struct(2, 2), np.array([1, 0]), "neither -1 nor"),
        (losses.contrastive, struct(2, 2, 3), np.array([1, 2]), "1 of 2 targets lie outside 0…1"),
        (losses.multiclass_hinge, struct(2, 3), np.array([1, 3]), "1 of 2 labels lie outside 0…2"),
        (losses.dice, struct(2, 4, 3), np.full((2, 4), 3), "8 of 8 labels lie outside 0…2"),
        (losses.dice, struct(2, 4, 1), np.full((2, 4), 3), "8 of 8 targets lie outside 0…1"),
        (losses.gaussian_negative_log_likelihood, struct(2, 2), np.array([np.nan, 0]), "1 of 2 targets are NaN"),
    ],
)  # fmt: skip
def test_targets_that_a_loss_cannot_mean_are_refused(loss, outputs, targets, message):
    with pytest.raises(ValueError, match=rf"{loss.__name__}: .*{message}"):
        check_targets(loss, outputs, targets)
