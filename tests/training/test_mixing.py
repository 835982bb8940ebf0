"""Losses and metrics that mix the examples of a batch are told from those of one example at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.training.mixing import mixes_examples

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 40).astype(np.int32)
OUTPUTS = jax.ShapeDtypeStruct((32, 3), jnp.float32)
REAL = RNG.normal(size=(40, 3)).astype(np.float32)


def centred(outputs, targets):
    """An error of outputs whose mean over the batch is taken off."""
    return ((outputs - outputs.mean(0, keepdims=True)) ** 2).mean(-1)


def rank(outputs, targets):
    """Of how many targets in the batch an output is more like than of its own."""
    likeness = outputs @ jax.nn.one_hot(targets, 3).T
    return (likeness > jnp.diag(likeness)[:, None]).sum(-1).astype(jnp.float32)


MIXING = {
    "centred": (centred, REAL),
    "contrastive": (lambda o, t: -jnp.diag(jax.nn.log_softmax(o @ t.T)), REAL),
    "neighbour": (lambda o, t: ((o - jnp.roll(t, 1, 0)) ** 2).mean(-1), REAL),
    "scaled by the largest": (lambda o, t: (o**2).mean(-1) / o.max(), REAL),
    "share of each class": (
        lambda o, t: (
            losses.softmax_cross_entropy(o, t)
            / (t[:, None] == t[None]).sum(-1).astype(jnp.float32)
        ),
        Y,
    ),
    "ranked": (lambda o, t: jnp.argsort(jnp.argsort(o[:, 0])).astype(jnp.float32), REAL),
    "metric": (rank, Y),
}
APART = {
    "squared": (lambda o, t: ((o - t) ** 2).mean(-1), REAL),
    "cross-entropy": (
        lambda o, t: -jnp.take_along_axis(jax.nn.log_softmax(o), t[:, None], 1)[:, 0],
        Y,
    ),
    "with a maximum of the batch taken off": (
        lambda o, t: (
            jax.nn.logsumexp(o - o.max(), axis=-1)
            - jnp.take_along_axis(o - o.max(), t[:, None], 1)[:, 0]
        ),
        Y,
    ),
    "of probabilities": (
        lambda o, t: -(t * jnp.log(o) + (1 - t) * jnp.log1p(-o)).mean(-1),
        (REAL > 0).astype(np.float32),
    ),
    "of counts": (lambda o, t: (o - jnp.abs(t) * jnp.log(o)).sum(-1), REAL),
    "not finite": (lambda o, t: jnp.log(-o).sum(-1), REAL),
    "through bfloat16": (
        lambda o, t: (
            o.astype(jnp.bfloat16) - o.max().astype(jnp.bfloat16) + o.max().astype(jnp.bfloat16)
        ).sum(-1),
        REAL,
    ),
    "by example in a loop": (
        lambda o, t: jax.lax.map(lambda pair: ((pair[0] - pair[1]) ** 2).sum(), (o, t)),
        REAL,
    ),
    "by vmap": (jax.vmap(lambda o, t: jnp.sort(o - t)[0]), REAL),
    "of one length alone": (lambda o, t: o.reshape(32, 3).sum(-1), REAL),
    "a library's": (functools.partial(losses.huber, delta=2.0), REAL),
    "a library's metric": (metrics.accuracy, Y),
    "optax's": (optax.softmax_cross_entropy_with_integer_labels, Y),
    "random": (lambda o, t: o.sum(-1) + jax.random.normal(jax.random.key(0), (len(o),)), REAL),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_is_found(name):
    function, targets = MIXING[name]
    assert mixes_examples(function, OUTPUTS, targets)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", APART)
def test_what_does_not_is_let_pass(name):
    function, targets = APART[name]
    assert not mixes_examples(function, OUTPUTS, targets)


@pytest.mark.slow
def test_sequences_trees_and_what_is_too_large():
    tagged = {
        "a": jax.ShapeDtypeStruct((32, 7, 3), jnp.bfloat16),
        "b": jax.ShapeDtypeStruct((32,), jnp.int32),
    }
    labels = (jax.ShapeDtypeStruct((32, 7), jnp.int32),)

    def apart(outputs, targets):
        return outputs["a"].sum((1, 2)) + (targets[0].sum(1) + outputs["b"]).astype(
            jnp.bfloat16
        )

    assert not mixes_examples(apart, tagged, labels)
    assert mixes_examples(lambda o, t: apart(o, t) * o["a"][-1].sum(), tagged, labels)
    calls = []
    large = jax.ShapeDtypeStruct((64, 2**10, 2**11), jnp.float32)
    assert not mixes_examples(lambda o, t: calls.append(o), large, large)
    assert not calls


@pytest.mark.slow
def test_a_masked_loss_reads_the_rows_that_count_alone():
    def sound(outputs, targets, *, mask):
        return jnp.mean(
            (outputs - jnp.mean(outputs, where=mask[:, None])) ** 2, where=mask[:, None]
        )

    def forgetful(outputs, targets, *, mask):
        return jnp.mean((outputs - outputs.mean()) ** 2, where=mask[:, None])

    assert not mixes_examples(losses.batchwise(sound), OUTPUTS, REAL, masked=True)
    assert mixes_examples(losses.batchwise(forgetful), OUTPUTS, REAL, masked=True)
    with pytest.raises(
        ValueError,
        match="data: loss 'forgetful' is batchwise and changes with rows where its mask is False",
    ):
        fit(loss=losses.batchwise(forgetful))


def fit(data=(X, Y), loss=centred, **options):
    settings = {"optimizer": optax.sgd(0.1), "batch_size": 32, "progress": False}
    return dl.fit(dl.Dense(3), data, loss=loss, **(settings | options))


STREAM = [(X[:32], Y[:32]), (X[32:], Y[32:])]
DECLARE = "mixes the examples of a batch, so that rows that only fill up a smaller batch would count — declare it, losses.batchwise"
FULL = (X[:32], Y[:32])


@pytest.mark.parametrize("data", [(X, Y), STREAM], ids=["arrays", "stream"])
def test_filled_batches_of_a_loss_that_mixes_are_refused_with_the_ways_out(data):
    with pytest.raises(
        ValueError,
        match=f"data: loss 'centred' {DECLARE}.*, or leave smaller batches out by drop_last=True",
    ):
        fit(data)
    assert len(fit(data, drop_last=True).history["loss"]) == 1
    assert len(fit(FULL).history["loss"]) == 1


def test_parts_of_a_batch_are_refused():
    message = "data: loss 'centred' mixes the examples of a batch, so that each part of a batch would be a batch to it — declare"
    with pytest.raises(ValueError, match=message):
        fit(FULL, accumulate=4)
    with pytest.raises(ValueError, match=r"the `mask` of the rows that count\.$"):
        fit(STREAM, accumulate=4, drop_last=True)


@pytest.mark.slow
def test_evaluation_and_populations_refuse_it_too():
    with pytest.raises(ValueError, match=f"validation: loss 'centred' {DECLARE}"):
        fit(drop_last=True, validation=(X, Y))
    run = fit(FULL)
    with pytest.raises(ValueError, match=f"data: loss 'centred' {DECLARE}"):
        dl.evaluate(dl.Dense(3), run.params, run.state, (X, Y), loss=centred, batch_size=32)
    options = {"optimizer": optax.sgd(0.1), "batch_size": 32, "progress": False}
    with pytest.raises(ValueError, match=DECLARE):
        dl.fit_many(dl.Dense(3), (X, Y), seeds=2, loss=centred, **options)
    runs = dl.fit_many(
        dl.Dense(3), (X, Y), seeds=2, loss=losses.softmax_cross_entropy, **options
    )
    with pytest.raises(ValueError, match=DECLARE):
        runs.evaluate((X, Y), loss=centred, batch_size=32)


def test_metrics_that_mix():
    options = {"loss": losses.softmax_cross_entropy, "metrics": {"rank": rank}}
    with pytest.raises(
        ValueError,
        match=r"data: metric 'rank' mixes the examples of a batch.*write a Metric, which gathers",
    ):
        fit(**options)
    one, four = (fit(FULL, accumulate=count, **options).history["rank"] for count in (1, 4))
    assert one == four  # metrics are of all parts at once


@pytest.mark.slow
def test_likelihoods_and_losses_of_two_players():
    model = dl.models.VariationalAutoencoder(dl.Dense(4), dl.Dense(6), 2)

    def likelihood(outputs, x):
        return -((outputs - x.mean(0, keepdims=True)) ** 2).sum(-1)

    class Relative(dl.NonSaturating):
        def real(self, scores):
            return jax.nn.softplus(scores.mean() - scores)

    players = (dl.Dense(6), dl.Dense(1), 2, optax.sgd(0.01), optax.sgd(0.01))
    steps = {
        "likelihood": dl.Variational(model, optax.sgd(0.01), likelihood=likelihood),
        "the loss's `real`": dl.Adversarial(*players, Relative()),
    }
    for name, step in steps.items():
        with pytest.raises(
            ValueError,
            match=f"data: {name} mixes the examples of a batch.*let it give each example a number",
        ):
            dl.train(step, X, batch_size=32, progress=False)
        assert (
            dl.train(step, X, batch_size=32, drop_last=True, progress=False).stopped
            == "finished"
        )
    with pytest.raises(
        ValueError, match=r"the likelihood returned shape \(\) for 32 examples — return log p"
    ):
        dl.train(
            dl.Variational(
                model, optax.sgd(0.01), likelihood=lambda o, x: -((o - x) ** 2).sum()
            ),
            X,
            progress=False,
        )
    with pytest.raises(
        TypeError, match="the bound is a mean over examples, so likelihood is of each"
    ):
        dl.Variational(
            model, optax.sgd(0.01), likelihood=losses.batchwise(lambda o, t, *, mask: o)
        )
