"""Losses of two players."""

import abc
import dataclasses

import jax
from jaxtyping import Array, Float

from jaxdl.training.checks import check_count

Scores = Float[Array, " batch"]


class AdversarialLoss(abc.ABC):
    """What the two players minimise, as functions of the discriminator's scores, [batch] to
    [batch]; a hashable value.

    `penalty` is what the gradient penalty weighs, and `critic_steps` how many updates the
    discriminator makes for one of the generator.
    """

    penalty: float = 0.0
    critic_steps: int = 1

    @abc.abstractmethod
    def real(self, scores: Scores) -> Scores:
        """The discriminator's loss on real examples."""

    @abc.abstractmethod
    def fake(self, scores: Scores) -> Scores:
        """The discriminator's loss on fakes."""

    @abc.abstractmethod
    def generator(self, scores: Scores) -> Scores:
        """The generator's loss on its fakes."""

    @abc.abstractmethod
    def shown(self, scores: Scores) -> Scores:
        """What the history holds of scores."""


@dataclasses.dataclass(frozen=True)
class NonSaturating(AdversarialLoss):
    """Scores are logits of being real: the discriminator minimises − log D(x) − log(1 − D(G(z))),
    the generator − log D(G(z)).

    The history holds probabilities. Source: Goodfellow et al., *Generative adversarial nets*
    (2014), section 3; smoothing: Salimans et al., *Improved techniques for training GANs* (2016),
    section 3.4.

    Args:
        smoothing: the discriminator's target for real examples is 1 − smoothing; that for fakes
            stays 0.
    """

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(
                f"NonSaturating: smoothing is taken from the target 1, in [0, 1), got "
                f"{self.smoothing!r}."
            )

    def real(self, scores: Scores) -> Scores:
        return jax.nn.softplus(-scores) + self.smoothing * scores

    def fake(self, scores: Scores) -> Scores:
        return jax.nn.softplus(scores)

    def generator(self, scores: Scores) -> Scores:
        return jax.nn.softplus(-scores)

    def shown(self, scores: Scores) -> Scores:
        return jax.nn.sigmoid(scores)


@dataclasses.dataclass(frozen=True)
class Wasserstein(AdversarialLoss):
    """The critic minimises D(G(z)) − D(x) + λ (‖∇D(x̂)‖₂ − 1)², the generator − D(G(z)).

    x̂ lies on the line from an example to a fake, at a place drawn uniformly. The critic must not
    mix examples, as BatchNorm
    does: give it LayerNorm, or none. Source: Gulrajani et al., *Improved training of Wasserstein
    GANs* (2017), algorithm 1.

    Args:
        penalty: λ.
        critic_steps: updates of the critic for one of the generator.
    """

    penalty: float = 10.0
    critic_steps: int = 5

    def __post_init__(self) -> None:
        check_count("critic_steps", self.critic_steps)
        if not self.penalty >= 0:
            raise ValueError(f"Wasserstein: penalty is at least 0, got {self.penalty!r}.")

    def real(self, scores: Scores) -> Scores:
        return -scores

    def fake(self, scores: Scores) -> Scores:
        return scores

    def generator(self, scores: Scores) -> Scores:
        return -scores

    def shown(self, scores: Scores) -> Scores:
        return scores
