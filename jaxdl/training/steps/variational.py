"""Variational autoencoders: training by the evidence lower bound."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Key

from jaxdl import losses
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Params, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.number import is_number
from jaxdl.data.source import Batch
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.weighted import weighted_sum
from jaxdl.models.autoencoder import VariationalAutoencoder, draw
from jaxdl.ops.floating import as_floating, widest
from jaxdl.optim.learning_rate import estimated
from jaxdl.training.arguments import check_function
from jaxdl.training.checks import check_optimizer
from jaxdl.training.data_checks import check_as_targets, check_intensities
from jaxdl.training.finite import are_finite
from jaxdl.training.state import EvalState, Measured, TrainState, step_key
from jaxdl.training.step import EvaluationStep, PerExample, TrainingStep
from jaxdl.training.update import current_rate, in_shares, means, updated

Likelihood = Callable[[Any, Any], Array]
"""log p(x | outputs) of each example in nats, [batch]."""
FIGURES = ("loss", "reconstruction", "kl")


def bernoulli_log_likelihood(
    logits: Float[Array, "batch *shape"], x: Float[Array, "batch *shape"]
) -> Float[Array, " batch"]:
    """Σ x log σ(y) + (1 − x) log σ(−y), of logits y; x in [0, 1] are 0 and 1, or grey values taken
    for probabilities.
    """
    return -_total(optax.sigmoid_binary_cross_entropy(logits, x))


def gaussian_log_likelihood(
    mean: Float[Array, "batch *shape"], x: Float[Array, "batch *shape"], scale: float = 1.0
) -> Float[Array, " batch"]:
    """log N(x; y, s² I) = −½ Σ ((x − y) / s)² − n log(s √(2π)), of means y and a scale s that is
    fixed.
    """
    return -_total(
        0.5 * jnp.square((x - mean) / scale) + np.log(scale) + 0.5 * np.log(2 * np.pi)
    )


def gaussian_divergence(
    mean: Float[Array, "batch latent"], log_variance: Float[Array, "batch latent"]
) -> Float[Array, " batch"]:
    """KL(N(μ, σ²) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²) of each example, in nats (Kingma and
    Welling, 2014, appendix B).
    """
    return 0.5 * _total(jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


@dataclasses.dataclass(frozen=True)
class Variational(TrainingStep):
    """One update by the gradient of L, the mean over the examples of − log p(x | z) + β KL(q(z | x)
    ‖ p(z)), z drawn once each.

    With β = 1 it estimates the negative evidence lower bound, in nats and summed over an example's
    numbers. Images in uint8 are read as x / 255. Figures: `loss`, `reconstruction` (− log p(x | z))
    and `kl`. Evaluation measures the same ones without dropout; it draws z too, from the run's key
    alike after each epoch: its loss is an unbiased estimate of the bound.

    Source: Kingma and Welling, *Auto-encoding variational Bayes* (2014), equation 10; β: Higgins et
    al., *beta-VAE* (2017).

    Args:
        model: encoder and decoder.
        optimizer: of optax.
        beta: β.
        likelihood: `likelihood(outputs, x) -> [batch]`, log p(x | z) in nats:
            `bernoulli_log_likelihood`, `gaussian_log_likelihood` (or a `functools.partial` with its
            scale), or one's own.
    """

    model: VariationalAutoencoder
    optimizer: optax.GradientTransformation
    beta: float = 1.0
    likelihood: Likelihood = bernoulli_log_likelihood

    def __post_init__(self) -> None:
        check_optimizer(self.optimizer)
        if not isinstance(self.model, VariationalAutoencoder):
            raise TypeError(
                f"Variational: model is a VariationalAutoencoder(encoder, decoder, latent), got "
                f"{self.model!r}."
            )
        check_function(
            "Variational: likelihood", self.likelihood, "likelihood(outputs, x) -> [batch]"
        )
        if is_batchwise(self.likelihood):
            raise TypeError(
                f"Variational: the bound is a mean over examples, so likelihood is of each, got "
                f"{self.likelihood!r}."
            )
        if not (isinstance(self.beta, Array) or (is_number(self.beta) and self.beta >= 0)):
            raise ValueError(
                f"Variational: beta weighs the divergence and is at least 0, got {self.beta!r}."
            )

    def check(self, name: str, batch: Batch) -> None:
        if not isinstance(batch.inputs, np.ndarray):
            raise ValueError(
                f"{name} inputs: Variational reads one array, got {type(batch.inputs).__name__}."
            )
        check_intensities(name, batch.inputs)
        if self.likelihood is bernoulli_log_likelihood and batch.inputs.dtype != np.uint8:
            check_as_targets(name, losses.binary_cross_entropy, batch.inputs)

    def init(self, key: Array, batch: Batch) -> TrainState:
        params, state = self.model.init(
            fold_in_name(key, "init"), jax.eval_shape(as_floating, batch.inputs)
        )
        step = jnp.zeros((), jnp.int32)
        optimizer_state = self.optimizer.init(params)
        return TrainState(
            step,
            params,
            state,
            optimizer_state,
            step_key(key),
            estimate=estimated(optimizer_state),
        )

    def evaluation(self) -> EvaluationStep:
        return VariationalEvaluation(self)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Measured]:
        key = jax.random.fold_in(state.key, state.step)
        shares, total = in_shares(batch.example_weights())

        def objective(params: Params) -> Any:
            mode = Train(fold_in_name(key, "model"), batch.mask)
            terms, new = self.terms(
                params, state.state, batch.inputs, fold_in_name(key, "code"), mode
            )
            sums = {name: weighted_sum(term, shares) for name, term in terms.items()}
            return sums["loss"], (sums, new)

        gradients, (sums, new) = jax.grad(objective, has_aux=True)(state.params)
        params, optimizer_state = updated(
            self.optimizer, gradients, state.optimizer_state, state.params, sums["loss"]
        )
        finite = are_finite(sums["loss"], gradients)
        figures = {name: (value * total, total) for name, value in sums.items()}
        state = state._replace(
            step=state.step + 1,
            params=params,
            state=new,
            optimizer_state=optimizer_state,
            estimate=estimated(state.optimizer_state),
        )
        return state, Measured(figures, {}, finite)

    def per_example(self, state: TrainState, batch: Batch) -> Sequence[PerExample]:
        x = jax.eval_shape(as_floating, batch.inputs)
        outputs, _ = jax.eval_shape(self.model.apply, state.params, state.state, x)
        return (("likelihood", self.likelihood, outputs, x),)

    def finite(self, measured: Measured) -> Array:
        assert measured.finite is not None
        return measured.finite

    def observe(self, state: TrainState) -> dict[str, Array]:
        return {
            "learning_rate": current_rate(self.optimizer, state.optimizer_state, state.estimate)
        }

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        del gathered
        return means({name: sums[name] for name in FIGURES})

    def terms(
        self, params: Params, state: State, x: Any, key: Key[Array, ""], mode: Mode
    ) -> tuple[dict[str, Float[Array, " batch"]], State]:
        """The loss of each example and its two terms, with codes drawn from the key; and the
        model's next state.
        """
        x = as_floating(x)
        (mean, log_variance), state = self.model.encode(params, state, x, mode)
        outputs, state = self.model.decode_latent(
            params, state, draw(key, mean, log_variance), mode
        )
        if jax.tree.structure(outputs).num_leaves == 1 and outputs.shape != x.shape:
            raise ValueError(
                f"Variational: the decoder gives shape {outputs.shape} for inputs of shape "
                f"{x.shape} — end it with "
                f"Reshape({x.shape[1:]})."
            )
        likelihood = self.likelihood(outputs, x)
        if likelihood.shape != x.shape[:1]:
            raise ValueError(
                f"Variational: the likelihood returned shape {likelihood.shape} for {x.shape[0]} "
                f"examples — return "
                "log p(x | z) of each, [batch], summed over the example's own numbers."
            )
        reconstruction = -likelihood
        divergence = gaussian_divergence(mean, log_variance)
        return {
            "loss": reconstruction + self.beta * divergence,
            "reconstruction": reconstruction,
            "kl": divergence,
        }, state


@dataclasses.dataclass(frozen=True)
class VariationalEvaluation(EvaluationStep):
    """Estimates the bound of a `Variational` in evaluation."""

    of: Variational

    def __call__(self, state: EvalState, batch: Batch) -> Measured:
        key = state.batch_key()
        terms, _ = self.of.terms(state.params, state.state, batch.inputs, key, Eval())
        weights = batch.example_weights()
        sums = {
            name: (weighted_sum(term, weights), weights.sum()) for name, term in terms.items()
        }
        return Measured(sums, {})

    def report(self, sums: dict[str, Any], gathered: dict[str, Any]) -> dict[str, Any]:
        return self.of.report(sums, gathered)


def _total(values: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    return values.astype(widest(values.dtype)).sum(axis=tuple(range(1, values.ndim)))
