"""Two players in one step: each update against the same one by hand, and against PyTorch."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl.core.keys import fold_in_name

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RNG = np.random.default_rng(0)
X = RNG.uniform(size=(23, 3, 2)).astype(np.float32)
LATENT = 4
GENERATOR = dl.Sequential(
    dl.Dense(5), jax.nn.tanh, dl.Dense(6), jax.nn.sigmoid, dl.Reshape((3, 2))
)
DISCRIMINATOR = dl.Sequential(dl.Flatten(), dl.Dense(7), jax.nn.tanh, dl.Dense(1))
ADAM = optax.adam(1e-2, b1=0.5)
SGD = optax.sgd(0.1)
STILL = optax.sgd(0.0)
# no bias in front of BatchNorm: its gradient is nothing but rounding, which Adam makes steps of
NORMALISED = dl.Adversarial(
    dl.Sequential(
        dl.Dense(5, use_bias=False),
        dl.BatchNorm(momentum=0.9),
        jax.nn.tanh,
        dl.Dense(6, use_bias=False),
        dl.Reshape((3, 2)),
    ),
    dl.Sequential(
        dl.Flatten(),
        dl.Dense(7, use_bias=False),
        dl.BatchNorm(momentum=0.9),
        jax.nn.tanh,
        dl.Dropout(0.3),
        dl.Dense(1),
    ),
    LATENT,
    ADAM,
    SGD,
)
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "validation": X[:9], "progress": False}


def players(
    generator_optimizer: Any = SGD,
    discriminator_optimizer: Any = SGD,
    loss: Any = dl.NonSaturating(),
) -> dl.Adversarial:
    return dl.Adversarial(
        GENERATOR, DISCRIMINATOR, LATENT, generator_optimizer, discriminator_optimizer, loss
    )


def close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    jax.tree.map(
        lambda u, v: np.testing.assert_allclose(u, v, rtol=tolerance, atol=tolerance), a, b
    )


def taken(
    step: dl.Adversarial, batch: dl.Batch
) -> tuple[dl.TrainState, dl.TrainState, dict[str, float]]:
    """The state before one step and after it, and the step's figures."""
    start = step.init(jax.random.key(0), batch)
    after, measured = jax.jit(step)(start, batch)
    return start, after, step.report(measured.sums, measured.gathered)


def codes(state: dl.TrainState, size: int) -> jax.Array:
    return jax.random.normal(
        fold_in_name(jax.random.fold_in(state.key, state.step), "codes"), (size, LATENT)
    )


def imagine(params: Any, z: Any) -> Any:
    return GENERATOR.apply(params, {}, z)[0]


def score(params: Any, x: Any) -> Any:
    return DISCRIMINATOR.apply(params, {}, x)[0][:, 0]


def entropy(scores: Any, label: float) -> Any:
    return optax.sigmoid_binary_cross_entropy(scores, jnp.full_like(scores, label)).mean()


def by_hand(optimizer: Any, gradient: Any, params: Any) -> Any:
    with jax.numpy_dtype_promotion("standard"):  # for optax's own arithmetic
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


@functools.cache
def reference() -> dl.Run:
    return dl.train(NORMALISED, X, compile="epoch", **OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_both_updates_are_those_by_hand(smoothing: float) -> None:
    step = players(ADAM, SGD, dl.NonSaturating(smoothing))
    before, after, figures = taken(step, dl.Batch(X[:8], ()))
    generator, discriminator = before.params["generator"], before.params["discriminator"]
    z = codes(before, 8)
    fakes = imagine(generator, z)

    def judging(params: Any) -> Any:
        return entropy(score(params, X[:8]), 1 - smoothing) + entropy(score(params, fakes), 0)

    loss, gradient = jax.value_and_grad(judging)(discriminator)
    judge = by_hand(SGD, gradient, discriminator)
    close(after.params["discriminator"], judge)
    fooling, gradient = jax.value_and_grad(
        lambda params: entropy(score(judge, imagine(params, z)), 1)
    )(generator)
    close(after.params["generator"], by_hand(ADAM, gradient, generator))
    expected = {
        "discriminator_loss": loss,
        "generator_loss": fooling,
        "real_score": jax.nn.sigmoid(score(discriminator, X[:8])).mean(),
        "fake_score": jax.nn.sigmoid(score(discriminator, fakes)).mean(),
    }
    assert list(figures) == list(expected)
    close(figures, expected)


@pytest.mark.slow
def test_each_update_changes_only_its_own_player() -> None:
    batch = dl.Batch(X[:8], ())
    before, both, _ = taken(players(), batch)
    _, judged, _ = taken(players(generator_optimizer=STILL), batch)
    _, fooled, _ = taken(players(discriminator_optimizer=STILL), batch)
    for state, still in ((judged, "generator"), (fooled, "discriminator")):
        jax.tree.map(np.testing.assert_array_equal, state.params[still], before.params[still])
    jax.tree.map(
        np.testing.assert_array_equal,
        judged.params["discriminator"],
        both.params["discriminator"],
    )
    for state, moved in ((judged, "discriminator"), (fooled, "generator")):
        changed = jax.tree.map(
            lambda a, b: float(jnp.abs(a - b).max()), state.params[moved], before.params[moved]
        )
        assert min(jax.tree.leaves(changed)) > 0
    gradient = jax.grad(
        lambda p: entropy(
            score(before.params["discriminator"], imagine(p, codes(before, 8))), 1
        )
    )
    close(
        fooled.params["generator"],
        by_hand(SGD, gradient(before.params["generator"]), before.params["generator"]),
    )


def torch_players(params: Any) -> tuple[Any, Any, Any]:
    """The same two players in PyTorch, and what lays their weights out as ours."""
    import torch
    from torch import nn

    generator = nn.Sequential(nn.Linear(LATENT, 5), nn.Tanh(), nn.Linear(5, 6), nn.Sigmoid())
    discriminator = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1))
    for name, player in (("generator", generator), ("discriminator", discriminator)):
        for index, layer in enumerate(part for part in player if isinstance(part, nn.Linear)):
            ours = params[name][f"dense_{index}"]
            layer.weight.data = torch.tensor(np.asarray(ours["kernel"]).T.copy())
            layer.bias.data = torch.tensor(np.asarray(ours["bias"]).copy())

    def laid_out(player: Any) -> Any:
        linear = [part for part in player if isinstance(part, nn.Linear)]
        return {
            f"dense_{i}": {
                "kernel": part.weight.detach().numpy().T,
                "bias": part.bias.detach().numpy(),
            }
            for i, part in enumerate(linear)
        }

    return generator, discriminator, laid_out


@pytest.mark.slow
def test_three_steps_are_those_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    from torch.nn.functional import binary_cross_entropy_with_logits as entropy

    step = players(ADAM, ADAM)
    state = step.init(jax.random.key(0), dl.Batch(X[:8], ()))
    generator, discriminator, laid_out = torch_players(state.params)
    optimizers = [
        torch.optim.Adam(player.parameters(), 1e-2, (0.5, 0.999))
        for player in (generator, discriminator)
    ]
    real, ones, zeros = torch.tensor(X[:8].reshape(8, 6)), torch.ones(8, 1), torch.zeros(8, 1)
    for _ in range(3):
        fakes = generator(torch.tensor(np.asarray(codes(state, 8))))
        optimizers[1].zero_grad()
        (
            entropy(discriminator(real), ones) + entropy(discriminator(fakes.detach()), zeros)
        ).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        entropy(discriminator(fakes), ones).backward()
        optimizers[0].step()
        state, _ = jax.jit(step)(state, dl.Batch(X[:8], ()))
    close(
        state.params,
        {"generator": laid_out(generator), "discriminator": laid_out(discriminator)},
        1e-4,
    )


@pytest.mark.slow
def test_the_gradient_penalty_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    step = players(loss=dl.Wasserstein(penalty=10.0, critic_steps=1))
    before, after, figures = taken(step, dl.Batch(X[:8], ()))
    generator, critic, laid_out = torch_players(before.params)
    key = jax.random.fold_in(before.key, before.step)
    share = torch.tensor(
        np.asarray(jax.random.uniform(fold_in_name(key, "between"), (8, 1, 1))).reshape(8, 1)
    )
    optimizers = [torch.optim.SGD(player.parameters(), 0.1) for player in (generator, critic)]
    real, fakes = (
        torch.tensor(X[:8].reshape(8, 6)),
        generator(torch.tensor(np.asarray(codes(before, 8)))),
    )
    between = (share * real + (1 - share) * fakes.detach()).requires_grad_()
    (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    loss = (
        critic(fakes.detach()).mean()
        - critic(real).mean()
        + 10 * ((slopes.norm(dim=1) - 1) ** 2).mean()
    )
    loss.backward()
    optimizers[1].step()
    optimizers[0].zero_grad()
    (-critic(fakes).mean()).backward()
    optimizers[0].step()
    assert figures["discriminator_loss"] == pytest.approx(loss.item(), rel=1e-4)
    close(
        after.params,
        {"generator": laid_out(generator), "discriminator": laid_out(critic)},
        1e-4,
    )


@pytest.mark.slow
def test_the_generator_waits_for_its_turn() -> None:
    step = players(ADAM, ADAM, dl.Wasserstein(critic_steps=3))
    state = step.init(jax.random.key(0), dl.Batch(X[:8], ()))
    moved = []
    for _ in range(6):
        after, measured = jax.jit(step)(state, dl.Batch(X[:8], ()))
        pairs = zip(
            *(jax.tree.leaves(s.params["generator"]) for s in (state, after)), strict=True
        )
        moved.append(any(bool((a != b).any()) for a, b in pairs))
        assert float(measured.sums["generator_loss"][1]) == (8 if moved[-1] else 0)
        state = after
    assert moved == [False, False, True] * 2
    assert int(state.optimizer_state["generator"][0].count) == 2
    assert int(state.optimizer_state["discriminator"][0].count) == 6


def test_a_critic_that_is_flat_has_finite_gradients() -> None:
    step = players(loss=dl.Wasserstein(critic_steps=1))
    start = step.init(jax.random.key(0), dl.Batch(X[:8], ()))
    start = start._replace(
        params=start.params
        | {"discriminator": jax.tree.map(jnp.zeros_like, start.params["discriminator"])}
    )
    after, measured = jax.jit(step)(start, dl.Batch(X[:8], ()))
    assert bool(step.finite(measured))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [dl.NonSaturating(), dl.Wasserstein(critic_steps=1)], ids=["plain", "wasserstein"]
)
def test_rows_that_fill_up_do_not_count(loss: Any) -> None:
    mask = np.arange(8) < 5
    fill = [np.where(mask[:, None, None], X[:8], value) for value in (0.0, 1e3)]
    step = dl.Adversarial(
        NORMALISED.generator, NORMALISED.discriminator, LATENT, SGD, SGD, loss
    )
    (_, a, figures), (_, b, others) = (
        taken(step, dl.Batch(inputs, (), None, mask)) for inputs in fill
    )
    close((a.params, a.state), (b.params, b.state))
    close(figures, others)
    before, after, figures = taken(players(), dl.Batch(fill[1], (), None, mask))
    fakes = imagine(before.params["generator"], codes(before, 8)[:5])
    gradient = jax.grad(lambda p: entropy(score(p, X[:5]), 1) + entropy(score(p, fakes), 0))
    judge = by_hand(
        SGD, gradient(before.params["discriminator"]), before.params["discriminator"]
    )
    close(after.params["discriminator"], judge)
    assert figures["fake_score"] == pytest.approx(
        float(jax.nn.sigmoid(score(before.params["discriminator"], fakes)).mean()), rel=1e-5
    )


@pytest.mark.slow
def test_weights_count_for_real_examples_alone() -> None:
    weights = RNG.uniform(size=8).astype(np.float32)
    before, after, _ = taken(players(), dl.Batch(X[:8], (), weights))
    fakes = imagine(before.params["generator"], codes(before, 8))

    def judging(params: Any) -> Any:
        real = optax.sigmoid_binary_cross_entropy(score(params, X[:8]), jnp.ones(8))
        return (weights * real).sum() / weights.sum() + entropy(score(params, fakes), 0)

    before = before.params["discriminator"]
    close(after.params["discriminator"], by_hand(SGD, jax.grad(judging)(before), before))


@pytest.mark.slow
def test_real_examples_and_fakes_are_two_batches() -> None:
    discriminator = dl.Sequential(dl.Flatten(), dl.BatchNorm(momentum=0.5), dl.Dense(1))
    step = dl.Adversarial(GENERATOR, discriminator, LATENT, SGD, SGD)
    before, after, figures = taken(step, dl.Batch(X[:8], ()))
    mode, params, state = (
        dl.Train(jax.random.key(9)),
        before.params["discriminator"],
        before.state["discriminator"],
    )
    fakes = imagine(before.params["generator"], codes(before, 8))
    (real, one), (fake, other) = (
        discriminator.apply(params, state, x, mode) for x in (X[:8], fakes)
    )
    assert figures["real_score"] == pytest.approx(float(jax.nn.sigmoid(real).mean()), rel=1e-5)
    assert figures["fake_score"] == pytest.approx(float(jax.nn.sigmoid(fake).mean()), rel=1e-5)
    close(after.state["discriminator"], jax.tree.map(lambda a, b: (a + b) / 2, one, other))


@pytest.mark.slow
def test_every_pass_draws_from_a_key_of_its_own() -> None:
    keys: list[Any] = []

    @dataclasses.dataclass(frozen=True)
    class Spy(dl.Layer):
        def init(self, key: Any, x: Any) -> Any:
            return {}, {}

        def apply(self, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
            if isinstance(mode, dl.Train):
                jax.debug.callback(
                    lambda data: keys.append(tuple(data.tolist())),
                    jax.random.key_data(mode.key),
                )
            return x, state

    step = dl.Adversarial(
        dl.Sequential(GENERATOR, Spy()), dl.Sequential(DISCRIMINATOR, Spy()), LATENT, SGD, SGD
    )
    state = step.init(jax.random.key(0), dl.Batch(X[:8], ()))
    for _ in range(2):
        state, _ = jax.jit(step)(state, dl.Batch(X[:8], ()))
    jax.effects_barrier()
    assert len(keys) == len(set(keys)) == 2 * 4  # imagining, judging twice, fooling


@pytest.mark.slow
def test_the_history_holds_both_players() -> None:
    run = reference()
    names = ["discriminator_loss", "generator_loss", "real_score", "fake_score"]
    figures = {*names, *(f"validation_{name}" for name in names)}
    assert set(run.history) == figures | {
        "generator_learning_rate",
        "discriminator_learning_rate",
        "seconds",
    }
    assert set(run.params) == set(run.state) == {"generator", "discriminator"}
    assert run.history["generator_learning_rate"] == pytest.approx([1e-2] * 3)
    assert run.history["discriminator_learning_rate"] == pytest.approx([0.1] * 3)
    assert (run.best, run.stopped) == (None, "finished")


@pytest.mark.slow
def test_each_player_has_the_rate_of_its_last_update() -> None:
    """The generator makes one update for two of the discriminator: two in an epoch of five steps."""
    line = optax.linear_schedule(1e-3, 0.0, 20)
    step = players(optax.sgd(line), optax.contrib.prodigy(line), dl.Wasserstein(critic_steps=2))
    run = dl.train(step, X[:20], batch_size=4, progress=False)
    np.testing.assert_allclose(run.history["generator_learning_rate"], [line(1)], rtol=1e-6)
    shorter = dl.train(step, X[:20], batch_size=4, steps=4, progress=False)
    estimate = shorter.train_state.optimizer_state["discriminator"].estim_lr
    np.testing.assert_allclose(
        run.history["discriminator_learning_rate"], [estimate * line(4)], rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("eager", marks=pytest.mark.once), "step", "auto"])
def test_ways_give_the_same_numbers(way: Any) -> None:
    epochs = 1 if way == "eager" else 3
    a, b = reference(), dl.train(NORMALISED, X, compile=way, **OPTIONS | {"epochs": epochs})
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_allclose(
            a.history[name][:epochs], b.history[name], rtol=1e-3, err_msg=name
        )
    if epochs == 3:
        close((a.params, a.state), (b.params, b.state), 1e-3)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_from_one_compilation() -> None:
    from jaxdl.training import program

    first = reference()
    before = program.epoch_loop._cache_size()
    again = dl.train(NORMALISED, X, compile="epoch", **OPTIONS)
    assert program.epoch_loop._cache_size() == before
    jax.tree.map(
        np.testing.assert_array_equal, (first.params, first.state), (again.params, again.state)
    )
    assert (
        first.history["validation_generator_loss"] == again.history["validation_generator_loss"]
    )


@pytest.mark.slow
def test_early_stopping_watches_either_player() -> None:
    stopping = dl.EarlyStopping(monitor="validation_real_score", mode="max", patience=2)
    run = dl.train(players(STILL, STILL), X, early_stopping=stopping, **OPTIONS | {"epochs": 9})
    assert len(run.history["real_score"]) == 3
    with pytest.raises(
        ValueError,
        match="the history will have no 'validation_loss' to monitor, only discriminator_loss",
    ):
        dl.train(players(), X, early_stopping=dl.EarlyStopping(), **OPTIONS)


@pytest.mark.slow
@pytest.mark.once
def test_a_generator_learns_where_examples_lie() -> None:
    examples = (2 + 0.1 * RNG.normal(size=(512, 2))).astype(np.float32)
    generator = dl.Sequential(dl.Dense(16), jax.nn.relu, dl.Dense(2))
    discriminator = dl.Sequential(dl.Dense(16), jax.nn.relu, dl.Dense(1))
    optimizer = optax.adam(3e-3, b1=0.5)
    step = dl.Adversarial(generator, discriminator, LATENT, optimizer, optimizer)
    run = dl.train(step, examples, epochs=40, batch_size=64, progress=False)
    z = jax.random.normal(jax.random.key(1), (500, LATENT))
    fakes = generator.apply(run.params["generator"], {}, z)[0]
    np.testing.assert_allclose(fakes.mean(0), [2, 2], atol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_convolutional_pair_lowers_for_every_platform(platform: str) -> None:
    from jaxdl import models

    pair = models.conv_generator(4, 2, size=2), models.conv_discriminator(2, 4)
    step = dl.Adversarial(*pair, LATENT, ADAM, ADAM, dl.Wasserstein())
    batch = dl.Batch(jnp.zeros((2, 8, 8, 1), jnp.uint8), ())
    state = jax.eval_shape(lambda key: step.init(key, batch), jax.random.key(0))
    text = jax.jit(step).trace(state, batch).lower(lowering_platforms=(platform,)).as_text()
    assert ("stablehlo.convolution" in text) == (platform != "cpu")


CASES: dict[str, tuple[Any, str]] = {
    "shape": (
        lambda: dl.train(
            dl.Adversarial(dl.Dense(6), DISCRIMINATOR, LATENT, SGD, SGD), X, **OPTIONS
        ),
        r"the generator gives shape \(8, 6\) for examples of shape \(8, 3, 2\) — end it with Reshape\(\(3, 2\)\)",
    ),
    "scores": (
        lambda: dl.train(
            dl.Adversarial(
                GENERATOR, dl.Sequential(dl.Flatten(), dl.Dense(2)), LATENT, SGD, SGD
            ),
            X,
            **OPTIONS,
        ),
        r"the discriminator gives shape \(8, 2\) for 8 examples, expected one score each",
    ),
    "whole numbers": (
        lambda: dl.train(players(), np.ones((4, 3, 2), np.int32), progress=False),
        "expected floating-point numbers, or images in uint8, got int32",
    ),
    "optimizer": (
        lambda: players(generator_optimizer=0.1),
        "optimizer: expected an optax optimizer, got 0.1",
    ),
    "latent": (
        lambda: dl.Adversarial(GENERATOR, DISCRIMINATOR, 0, SGD, SGD),
        "latent is a whole number of at least 1, got 0",
    ),
    "smoothing": (lambda: dl.NonSaturating(1.0), "smoothing is taken from the target 1"),
    "critic steps": (
        lambda: dl.Wasserstein(critic_steps=0),
        "critic_steps is a whole number of at least 1, got 0",
    ),
    "penalty": (lambda: dl.Wasserstein(penalty=-1.0), "penalty is at least 0, got -1.0"),
}


@pytest.mark.sampled(3)
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(case: str) -> None:
    make, message = CASES[case]
    with pytest.raises((ValueError, TypeError), match=message):
        make()
