"""Generative adversarial networks: two players, two optimizers, one pure step."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxdl.compiling.target import tracing_population
from jaxdl.core.function import as_layer
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.data.source import Batch
from jaxdl.losses.weighted import weighted_sum
from jaxdl.ops.floating import as_floating, widest
from jaxdl.optim.learning_rate import estimated
from jaxdl.training.checks import check_count, check_optimizer
from jaxdl.training.data_checks import check_intensities
from jaxdl.training.finite import are_finite
from jaxdl.training.state import EvalState, Measured, TrainState, step_key
from jaxdl.training.step import EvaluationStep, PerExample, TrainingStep
from jaxdl.training.steps.adversarial_loss import AdversarialLoss, NonSaturating, Scores
from jaxdl.training.update import current_rate, in_shares, means, updated

FIGURES = ("discriminator_loss", "generator_loss", "real_score", "fake_score")


@dataclasses.dataclass(frozen=True)
class Adversarial(TrainingStep):
    """One update of the discriminator on real examples and fakes, and then one of the generator
    against the new discriminator.

    Codes z are drawn from N(0, I), one for each example of the batch; both updates are made of the
    same fakes G(z), which are computed once. Real examples and fakes are judged as two batches, so
    that statistics of one never mix with the other's; the discriminator's own state moves in its
    own update alone, to the mean of what the two make of it. Images in uint8 are read as x / 255: a
    generator of images ends in a sigmoid. Params, state and optimizer state are dicts of
    "generator" and "discriminator".

    Figures: `discriminator_loss`, `generator_loss` (over the steps that update it), and
    `real_score` and `fake_score`, the mean judgement of either kind before the update. Evaluation
    measures the same on held-out examples, with codes drawn from the run's key alike after each
    epoch. An example's weight counts in what concerns real examples; every fake counts alike.

    Source: Goodfellow et al., *Generative adversarial nets* (2014), algorithm 1.

    Args:
        generator: from codes [batch, latent] to fakes of the examples' shape.
        discriminator: from examples to scores [batch, 1] or [batch]: logits, or a critic's values.
        latent: the length of a code.
        generator_optimizer, discriminator_optimizer: of optax.
        loss: `NonSaturating()`, `Wasserstein()`, or another `AdversarialLoss`.
    """

    generator: Layer
    discriminator: Layer
    latent: int
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    loss: AdversarialLoss = dataclasses.field(default_factory=NonSaturating)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", as_layer(self.generator))
        object.__setattr__(self, "discriminator", as_layer(self.discriminator))
        check_count("latent", self.latent)
        check_optimizer(self.generator_optimizer)
        check_optimizer(self.discriminator_optimizer)

    def check(self, name: str, batch: Batch) -> None:
        check_intensities(name, batch.inputs)

    def init(self, key: Array, batch: Batch) -> TrainState:
        key = step_key(key)
        x = jax.eval_shape(as_floating, batch.inputs)
        generator, generator_state = self.generator.init(
            fold_in_name(key, "generator"),
            jax.ShapeDtypeStruct((batch.size, self.latent), x.dtype),
        )
        discriminator, discriminator_state = self.discriminator.init(
            fold_in_name(key, "discriminator"), x
        )
        optimizer_states = {
            "generator": self.generator_optimizer.init(generator),
            "discriminator": self.discriminator_optimizer.init(discriminator),
        }
        return TrainState(
            jnp.zeros((), jnp.int32),
            {"generator": generator, "discriminator": discriminator},
            {"generator": generator_state, "discriminator": discriminator_state},
            optimizer_states,
            key,
            estimate={name: estimated(each) for name, each in optimizer_states.items()},
        )

    def evaluation(self) -> EvaluationStep:
        return AdversarialEvaluation(self)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        generator = _player(state, "generator")
        discriminator = _player(state, "discriminator")
        key = jax.random.fold_in(state.key, state.step)
        fakes, pullback, generator_state = jax.vjp(
            lambda params: self.fakes(params, generator.state, batch, key, True),
            generator.params,
            has_aux=True,
        )
        discriminator, sums, finite = self._discriminator_update(
            discriminator, fakes, batch, key
        )

        def generator_update() -> tuple[_Player, Any, Array]:
            return self._generator_update(generator, discriminator, fakes, pullback, batch, key)

        if self.loss.critic_steps == 1:
            generator, sums["generator_loss"], also_finite = generator_update()
        else:
            nothing = jax.tree.map(jnp.zeros_like, sums["discriminator_loss"])
            due = (state.step + 1) % self.loss.critic_steps == 0
            generator, sums["generator_loss"], also_finite = lax.cond(
                due, generator_update, lambda: (generator, nothing, jnp.asarray(True))
            )
        after = _joined(state, generator._replace(state=generator_state), discriminator)
        return after, Measured(sums, {}, finite & also_finite)

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        del state
        scores = jax.ShapeDtypeStruct((batch.size,), jnp.float32)
        functions = {
            "real": self.loss.real,
            "fake": self.loss.fake,
            "generator": self.loss.generator,
        }
        return [
            (f"the loss's `{name}`", _of_scores(function), scores, ())
            for name, function in functions.items()
        ]

    def finite(self, measured: Measured) -> Array:
        assert measured.finite is not None
        return measured.finite

    def observe(self, state: TrainState) -> dict[str, Array]:
        optimizers = {
            "generator": self.generator_optimizer,
            "discriminator": self.discriminator_optimizer,
        }
        return {
            f"{name}_learning_rate": current_rate(
                optimizer, state.optimizer_state[name], (state.estimate or {}).get(name)
            )
            for name, optimizer in optimizers.items()
        }

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del gathered
        return means({name: sums[name] for name in FIGURES})

    def fakes(
        self, params: Params, state: State, batch: Batch, key: Array, train: bool
    ) -> tuple[Array, State]:
        """One fake for each example of a batch, and the generator's next state."""
        x = jax.eval_shape(as_floating, batch.inputs)
        z = jax.random.normal(fold_in_name(key, "codes"), (batch.size, self.latent), x.dtype)
        fakes, state = self.generator.apply(
            params, state, z, _mode(fold_in_name(key, "generator"), batch, train)
        )
        if fakes.shape != x.shape:
            raise ValueError(
                f"Adversarial: the generator gives shape {fakes.shape} for examples of shape "
                f"{x.shape} — end it with "
                f"Reshape({x.shape[1:]}), or give its last layers other sizes."
            )
        return fakes.astype(x.dtype), state

    def judged(
        self, params: Params, state: State, fakes: Array, batch: Batch, key: Array, train: bool
    ) -> tuple[Array, tuple[State, dict[str, Any]]]:
        """The discriminator's loss, its next state, and the figures of its judgement."""
        x = as_floating(batch.inputs)
        keys = jax.random.split(fold_in_name(key, "judging"), 2)

        def judge(x: Array, key: Array) -> tuple[Array, State]:
            return self._scores(params, state, x, _mode(key, batch, train))

        with tracing_population():
            (real, fake), states = jax.vmap(judge)(
                jnp.stack([x, fakes]), keys
            )  # two batches, in products of twice the size
        (shares, total) = in_shares(batch.example_weights())
        (fake_shares, count) = in_shares(_counted(batch))
        loss = weighted_sum(self.loss.real(real), shares)
        loss += weighted_sum(self.loss.fake(fake), fake_shares)
        if self.loss.penalty:
            slopes = self._slopes(params, state, x, fakes, batch, key, train)
            loss += self.loss.penalty * weighted_sum(jnp.square(slopes - 1), shares)
        sums = {
            "discriminator_loss": (loss * total, total),
            "real_score": (weighted_sum(self.loss.shown(real), shares) * total, total),
            "fake_score": (weighted_sum(self.loss.shown(fake), fake_shares) * count, count),
        }
        return loss, (_mean(states), sums)

    def fooled(
        self, params: Params, state: State, fakes: Array, batch: Batch, key: Array, train: bool
    ) -> Array:
        """The generator's loss: what the discriminator says of its fakes."""
        scores, _ = self._scores(
            params, state, fakes, _mode(fold_in_name(key, "fooling"), batch, train)
        )
        return weighted_sum(self.loss.generator(scores), in_shares(_counted(batch))[0])

    def _discriminator_update(
        self, player: "_Player", fakes: Array, batch: Batch, key: Array
    ) -> tuple["_Player", dict[str, Any], Array]:
        def objective(params: Params) -> Any:
            return self.judged(params, player.state, fakes, batch, key, True)

        (loss, (state, sums)), gradients = jax.value_and_grad(objective, has_aux=True)(
            player.params
        )
        params, optimizer_state = updated(
            self.discriminator_optimizer, gradients, player.optimizer_state, player.params, loss
        )
        after = _Player(params, state, optimizer_state, estimated(player.optimizer_state))
        scores = jnp.stack([total for total, _ in sums.values()]).sum()
        return after, sums, are_finite(loss + scores, gradients)

    def _generator_update(
        self,
        player: "_Player",
        discriminator: "_Player",
        fakes: Array,
        pullback: Any,
        batch: Batch,
        key: Array,
    ) -> tuple["_Player", Any, Array]:
        """The player after its update, its state as it was, the sums of its loss, and whether all
        was finite.
        """

        def objective(fakes: Array) -> Array:
            return self.fooled(
                discriminator.params, discriminator.state, fakes, batch, key, True
            )

        loss, gradient = jax.value_and_grad(objective)(fakes)
        (gradients,) = pullback(gradient)
        params, optimizer_state = updated(
            self.generator_optimizer, gradients, player.optimizer_state, player.params, loss
        )
        count = _counted(batch).sum()
        after = _Player(
            params, player.state, optimizer_state, estimated(player.optimizer_state)
        )
        return after, (loss * count, count), are_finite(loss, gradients)

    def _scores(
        self, params: Params, state: State, x: Array, mode: Mode
    ) -> tuple[Scores, State]:
        scores, state = self.discriminator.apply(params, state, x, mode)
        if scores.shape not in ((x.shape[0],), (x.shape[0], 1)):
            raise ValueError(
                f"Adversarial: the discriminator gives shape {scores.shape} for {x.shape[0]} "
                f"examples, expected one score each "
                "— end it with Dense(1)."
            )
        return scores.reshape(-1).astype(widest(scores.dtype)), state

    def _slopes(
        self,
        params: Params,
        state: State,
        x: Array,
        fakes: Array,
        batch: Batch,
        key: Array,
        train: bool,
    ) -> Scores:
        """‖∇D(x̂)‖₂ at a place between each example and a fake."""
        share = jax.random.uniform(
            fold_in_name(key, "between"), (x.shape[0],) + (1,) * (x.ndim - 1), x.dtype
        )
        mode = _mode(fold_in_name(key, "slopes"), batch, train)
        counted = _counted(batch)
        slopes = jax.grad(
            lambda x: weighted_sum(self._scores(params, state, x, mode)[0], counted)
        )(share * x + (1 - share) * fakes)
        squares = jnp.square(slopes.astype(widest(slopes.dtype))).sum(tuple(range(1, x.ndim)))
        flat = squares == 0
        return jnp.where(
            flat, 0, jnp.sqrt(jnp.where(flat, 1, squares))
        )  # the root's own slope at 0 is infinite


@dataclasses.dataclass(frozen=True)
class AdversarialEvaluation(EvaluationStep):
    """Measures the figures of an `Adversarial` in evaluation."""

    of: Adversarial

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        key = state.batch_key()
        generator = (state.params["generator"], state.state["generator"])
        discriminator = (state.params["discriminator"], state.state["discriminator"])
        fakes, _ = self.of.fakes(*generator, batch, key, False)
        _, (_, sums) = self.of.judged(*discriminator, fakes, batch, key, False)
        loss = self.of.fooled(*discriminator, fakes, batch, key, False)
        count = _counted(batch).sum()
        return Measured({**sums, "generator_loss": (loss * count, count)}, {})

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self.of.report(sums, gathered)


class _Player(NamedTuple):
    params: Params
    state: State
    optimizer_state: Any
    estimate: Any


def _player(state: TrainState, name: str) -> _Player:
    return _Player(
        state.params[name],
        state.state[name],
        state.optimizer_state[name],
        (state.estimate or {}).get(name),
    )


def _joined(state: TrainState, generator: _Player, discriminator: _Player) -> TrainState:
    """The state one step on, of what the two players have become."""
    params, states, optimizers, estimates = (
        {"generator": ours, "discriminator": theirs}
        for ours, theirs in zip(generator, discriminator, strict=True)
    )
    return TrainState(state.step + 1, params, states, optimizers, state.key, estimate=estimates)


def _of_scores(function: Callable[[Array], Array]) -> Callable[[Array, Any], Array]:
    """The function as one of scores and targets, of which there are none."""
    return functools.wraps(function)(lambda scores, _: function(scores))


def _mode(key: Array, batch: Batch, train: bool) -> Mode:
    return Train(key, batch.mask) if train else Eval()


def _counted(batch: Batch) -> Array:
    """[batch]: 1 for each fake, 0 for those that stand where rows only fill up a smaller batch."""
    return batch._replace(weights=None).example_weights()


def _mean(states: State) -> State:
    """The mean of two states; of numbers that have none, such as counts, the latter."""
    return jax.tree.map(
        lambda s: s.mean(0) if jnp.issubdtype(s.dtype, jnp.floating) else s[1], states
    )
