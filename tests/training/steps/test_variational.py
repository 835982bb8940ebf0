"""The evidence lower bound: its terms against closed forms and PyTorch, its step against the gradient by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.models.autoencoder import VariationalAutoencoder, draw

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(23, 3, 2)).astype(np.float32)
OPTIMIZER = optax.adam(1e-2)
ENCODER = dl.Sequential(dl.Flatten(), dl.Dense(7), jax.nn.tanh)
DECODER = dl.Sequential(
    dl.Dense(7), jax.nn.tanh, dl.Dropout(0.2), dl.Dense(6), dl.Reshape((3, 2))
)
MODEL = VariationalAutoencoder(ENCODER, DECODER, latent=2)
PLAIN = VariationalAutoencoder(
    dl.Sequential(dl.Flatten(), dl.Dense(7, use_bias=False), jax.nn.tanh),
    dl.Sequential(dl.Dense(6, use_bias=False), dl.Reshape((3, 2))),
    2,
)
STEP = dl.Variational(MODEL, OPTIMIZER)
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "validation": X[:9], "progress": False}


@functools.cache
def reference() -> dl.Run:
    return dl.train(STEP, X, compile="epoch", **OPTIONS)


def moments() -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32), jnp.asarray(
        RNG.normal(size=(4, 3)), jnp.float32
    )


def test_the_divergence_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.distributions import Normal, kl_divergence

    mean, log_variance = moments()
    q = Normal(
        torch.tensor(np.asarray(mean)), torch.tensor(np.exp(np.asarray(log_variance) / 2))
    )
    expected = kl_divergence(q, Normal(0.0, 1.0)).sum(1).numpy()
    np.testing.assert_allclose(dl.gaussian_divergence(mean, log_variance), expected, rtol=1e-5)
    assert float(dl.gaussian_divergence(jnp.zeros((1, 5)), jnp.zeros((1, 5)))[0]) == 0


@pytest.mark.slow
def test_the_divergence_is_the_mean_log_ratio_over_draws() -> None:
    mean, log_variance = moments()
    keys = jax.random.split(jax.random.key(0), 20_000)
    z = jax.vmap(lambda key: draw(key, mean, log_variance))(keys)
    scale = jnp.exp(log_variance / 2)
    q = jax.scipy.stats.norm.logpdf(z, mean[None], scale[None]).sum(-1)
    p = jax.scipy.stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(
        dl.gaussian_divergence(mean, log_variance), (q - p).mean(0), rtol=0.02
    )
    np.testing.assert_allclose(z.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(z.std(0), scale, rtol=0.02)


def test_likelihoods_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.distributions import Bernoulli, Normal

    outputs = RNG.normal(size=(5, 3, 2)).astype(np.float32)
    binary = (X[:5] > 0.5).astype(np.float32)
    expected = (
        Bernoulli(logits=torch.tensor(outputs))
        .log_prob(torch.tensor(binary))
        .sum((1, 2))
        .numpy()
    )
    np.testing.assert_allclose(
        dl.bernoulli_log_likelihood(jnp.asarray(outputs), jnp.asarray(binary)),
        expected,
        rtol=1e-5,
    )
    expected = (
        Normal(torch.tensor(outputs), 0.3).log_prob(torch.tensor(X[:5])).sum((1, 2)).numpy()
    )
    given = dl.gaussian_log_likelihood(jnp.asarray(outputs), jnp.asarray(X[:5]), scale=0.3)
    np.testing.assert_allclose(given, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, pytest.param(4.0, marks=pytest.mark.once)])
def test_a_step_descends_the_bound_and_rows_that_fill_up_do_not_count(beta: float) -> None:
    step = dl.Variational(PLAIN, OPTIMIZER, beta)
    batch = dl.Batch(
        np.where(np.arange(8)[:, None, None] < 5, X[:8], 1e9), (), None, np.arange(8) < 5
    )
    start = step.init(jax.random.key(0), batch)
    after, measured = jax.jit(step)(start, batch)
    noise = codes(start, 8)[:5]

    def bound(params: Any) -> tuple[Any, Any]:
        h = jnp.tanh(X[:5].reshape(5, 6) @ params["encoder"]["dense_0"]["kernel"])
        both = h @ params["posterior"]["kernel"] + params["posterior"]["bias"][None]
        mean, scale = both[:, :2], jnp.exp(both[:, 2:] / 2)
        y = (mean + scale * noise) @ params["decoder"]["dense_0"]["kernel"]
        x = X[:5].reshape(5, 6)
        reconstruction = (
            -(x * jax.nn.log_sigmoid(y) + (1 - x) * jax.nn.log_sigmoid(-y)).sum(1).mean()
        )
        kl = (0.5 * (mean**2 + scale**2 - 1 - 2 * jnp.log(scale))).sum(1).mean()
        return reconstruction + beta * kl, (reconstruction, kl)

    (loss, (reconstruction, kl)), gradients = jax.value_and_grad(bound, has_aux=True)(
        start.params
    )
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = OPTIMIZER.update(gradients, OPTIMIZER.init(start.params), start.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after.params,
        optax.apply_updates(start.params, updates),
    )
    figures = step.report(measured.sums, {})
    np.testing.assert_allclose(
        [figures[n] for n in ("loss", "reconstruction", "kl")],
        [loss, reconstruction, kl],
        rtol=1e-5,
    )


def codes(state: dl.TrainState, size: int, name: str | None = None) -> jax.Array:
    """The noise that a step, or an evaluation, draws."""
    from jaxdl.core.keys import fold_in_name

    key = state.key if name is None else fold_in_name(state.key, name)
    key = jax.random.fold_in(key, state.step)
    return jax.random.normal(key if name else fold_in_name(key, "code"), (size, 2))


@pytest.mark.slow
def test_the_history_holds_the_bound_and_its_terms() -> None:
    history = reference().history
    names = {"loss", "reconstruction", "kl"}
    assert set(history) == names | {f"validation_{name}" for name in names} | {
        "learning_rate",
        "seconds",
    }
    for prefix in ("", "validation_"):
        total = np.add(history[f"{prefix}reconstruction"], history[f"{prefix}kl"])
        np.testing.assert_allclose(history[f"{prefix}loss"], total, rtol=1e-5)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.slow
def test_evaluation_draws_the_same_codes_after_every_epoch_without_dropout() -> None:
    step = dl.Variational(MODEL, optax.sgd(0.0))
    run = dl.train(step, X, **OPTIONS)
    assert len(set(run.history["validation_loss"])) == 1
    assert len(set(run.history["loss"])) == 3
    (mean, log_variance), _ = MODEL.encode(run.params, run.state, X[:9])
    noise = jnp.concatenate(
        [codes(run.train_state._replace(step=jnp.int32(i)), 8, "evaluation") for i in range(2)]
    )[:9]
    logits, _ = MODEL.decode_latent(
        run.params, run.state, mean + jnp.exp(log_variance / 2) * noise
    )
    expected = (
        dl.gaussian_divergence(mean, log_variance)
        - dl.bernoulli_log_likelihood(logits, jnp.asarray(X[:9]))
    ).mean()
    np.testing.assert_allclose(run.history["validation_loss"][0], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("eager", marks=pytest.mark.once), "step", "auto"])
def test_ways_give_the_same_numbers(way: Any) -> None:
    a, b = reference(), dl.train(STEP, X, compile=way, **OPTIONS)
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_allclose(a.history[name], b.history[name], rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-3, atol=1e-5), a.params, b.params
    )


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_from_one_compilation() -> None:
    from jaxdl.training import program

    first = reference()
    before = program.epoch_loop._cache_size()
    again = dl.train(STEP, X, compile="epoch", **OPTIONS)
    assert program.epoch_loop._cache_size() == before
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert first.history["validation_loss"] == again.history["validation_loss"]
    other = dl.train(STEP, X, compile="epoch", seed=1, **OPTIONS)
    assert first.history["loss"] != other.history["loss"]


@pytest.mark.slow
def test_early_stopping_watches_the_bound_of_held_out_data() -> None:
    rising = optax.sgd(lambda count: jnp.where(count < 6, 1e-2, -1e-1))
    stopping = dl.EarlyStopping(patience=2)
    run = dl.train(
        dl.Variational(MODEL, rising), X, early_stopping=stopping, **OPTIONS | {"epochs": 30}
    )
    assert run.stopped.startswith("early stopping")
    assert run.best is not None
    assert run.best.value == min(run.history["validation_loss"])


@pytest.mark.slow
def test_numbers_that_are_no_probabilities_want_another_likelihood() -> None:
    with pytest.raises(
        ValueError, match=r"data inputs: binary_cross_entropy: .* lie outside 0…1"
    ):
        dl.train(STEP, 3 * X, progress=False)
    step = dl.Variational(
        MODEL, OPTIMIZER, likelihood=functools.partial(dl.gaussian_log_likelihood, scale=0.5)
    )
    run = dl.train(step, 3 * X, **OPTIONS)
    assert run.history["loss"][-1] < run.history["loss"][0]


def test_what_does_not_fit_is_refused() -> None:
    flat = VariationalAutoencoder(ENCODER, dl.Dense(6), 2)
    with pytest.raises(
        ValueError,
        match=r"the decoder gives shape \(8, 6\) for inputs of shape \(8, 3, 2\) — end it with Reshape",
    ):
        dl.train(dl.Variational(flat, OPTIMIZER), X, **OPTIONS)
    with pytest.raises(
        ValueError, match="beta weighs the divergence and is at least 0, got -1"
    ):
        dl.Variational(MODEL, OPTIMIZER, beta=-1.0)
    with pytest.raises(
        ValueError, match="expected floating-point numbers, or images in uint8, got int32"
    ):
        dl.train(STEP, np.ones((4, 3, 2), np.int32), progress=False)
