"""Every loss of `Padded` outputs: that of each sequence alone without its padding, or refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.losses.checks import check_targets

BATCH, TIME, SIZE = 4, 5, 3
LENGTHS = np.array([5, 2, 3, 1], np.int32)
VALID = np.arange(TIME) < LENGTHS[:, None]
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(BATCH, TIME, SIZE)).astype(np.float32)
POSITIVE = RANDOM.uniform(1, 2, X.shape).astype(np.float32)
NUMBERS = RANDOM.integers(0, SIZE, (BATCH, TIME)).astype(np.int32)
BINARY = RANDOM.integers(0, 2, X.shape).astype(np.int32)
SIGNS = 2 * BINARY - 1
SHARES = RANDOM.dirichlet(np.ones(SIZE), (BATCH, TIME)).astype(np.float32)
PAIR = {"first": X, "second": POSITIVE}
CASES = {
    losses.binary_cross_entropy: (X, BINARY),
    losses.binary_cross_entropy_from_probabilities: (1 / (1 + np.exp(-X)), BINARY),
    losses.focal: (X, BINARY),
    losses.hinge: (X, SIGNS),
    losses.squared_hinge: (X, SIGNS),
    losses.multiclass_hinge: (X, NUMBERS),
    losses.softmax_cross_entropy: (X, NUMBERS),
    losses.kl_divergence: (np.log(SHARES[::-1]), SHARES),
    losses.dice: (X, NUMBERS),
    losses.ctc: (X, np.ones((BATCH, 1), np.int32)),
    losses.cosine_distance: (X, POSITIVE),
    losses.huber: (X, POSITIVE),
    losses.log_cosh: (X, POSITIVE),
    losses.mean_absolute_error: (X, POSITIVE),
    losses.mean_squared_error: (X, POSITIVE),
    losses.mean_absolute_percentage_error: (X, POSITIVE),
    losses.mean_squared_logarithmic_error: (np.abs(X), POSITIVE),
    losses.poisson_negative_log_likelihood: (X, POSITIVE),
    losses.gaussian_negative_log_likelihood: ({"mean": X, "log_variance": POSITIVE}, POSITIVE),
    losses.contrastive: (PAIR, BINARY[..., 0]),
    losses.cosine_embedding: (PAIR, SIGNS[..., 0]),
    losses.margin_ranking: (PAIR, SIGNS),
    losses.triplet_margin: ({"anchor": X, "positive": X + 1, "negative": POSITIVE}, NUMBERS),
}
BATCHWISE = [losses.info_nce, losses.nt_xent]


def padded(values):
    """With NaN, or a label that no class has, behind the ends."""
    bad = np.nan if values.dtype.kind == "f" else 99
    valid = VALID.reshape(*VALID.shape, *[1] * (values.ndim - 2))
    return dl.Padded(np.where(valid, values, bad).astype(values.dtype), LENGTHS)


def is_sequence(node):
    return isinstance(node, dl.Padded)


def test_every_loss_is_in_the_table():
    given = {
        value
        for value in vars(losses).values()
        if callable(value) and not inspect.isclass(value) and value is not losses.batchwise
    }
    assert given == {*CASES, *BATCHWISE}


@pytest.mark.sampled
@pytest.mark.parametrize("loss", CASES, ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("padded_targets", [True, False])
def test_padding_changes_neither_value_nor_gradient(loss, padded_targets):
    outputs, targets = CASES[loss]
    sequences = jax.tree.map(padded, outputs)
    wanted = padded(targets) if targets.shape[1] == TIME else targets
    if not padded_targets and is_sequence(wanted):
        wanted = wanted.values

    def total(values):
        given = jax.tree.map(
            lambda sequence, values: dl.Padded(values, sequence.lengths),
            sequences, values, is_leaf=is_sequence,
        )  # fmt: skip
        return loss(given, wanted).sum()

    values = jax.tree.map(lambda leaf: leaf.values, sequences, is_leaf=is_sequence)
    alone = [
        loss(
            jax.tree.map(lambda leaf, i=i: leaf[i : i + 1, : LENGTHS[i]], outputs),
            targets[i : i + 1, : LENGTHS[i]],
        )[0]
        for i in range(BATCH)
    ]
    np.testing.assert_allclose(loss(sequences, wanted), alone, rtol=1e-5, atol=1e-6)
    for leaf in jax.tree.leaves(jax.grad(total)(values)):
        assert np.isfinite(leaf).all()
        assert not np.asarray(leaf)[~VALID].any()
    check_targets(loss, jax.eval_shape(lambda x: x, sequences), wanted, sequences)


@pytest.mark.parametrize("loss", BATCHWISE, ids=repr)
def test_batchwise_losses_refuse_padded_sequences(loss):
    with pytest.raises(ValueError, match="of Padded sequences pool the steps first"):
        loss(jax.tree.map(padded, PAIR), jnp.zeros(BATCH))


@pytest.mark.slow
def test_steps_within_the_lengths_of_all_parts_count():
    shorter = np.minimum(LENGTHS, 2)
    outputs = (dl.Padded(X, LENGTHS), dl.Padded(POSITIVE, shorter))
    targets = SIGNS[..., 0]
    value = losses.cosine_embedding(outputs, targets)
    cut = losses.cosine_embedding(
        (dl.Padded(X, shorter), dl.Padded(POSITIVE, shorter)), targets
    )
    np.testing.assert_array_equal(value, cut)
    with pytest.raises(ValueError, match="give Padded sequences of vectors"):
        losses.triplet_margin((dl.Padded(X[..., 0], LENGTHS),) * 3)
