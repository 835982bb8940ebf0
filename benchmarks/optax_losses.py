"""The losses of the peers that bring none of their own: optax's, of one batch, in float32."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def cross_entropy(logits: Array, labels: Array) -> Float[Array, " batch"]:
    """One output is the logit of a binary label; more are classes, of which each token of a window
    has one.
    """
    logits = logits.astype(jnp.float32)
    if logits.shape[-1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses if losses.ndim == 1 else losses.mean(1)


def judged(real: Array, fake: Array) -> Float[Array, ""]:
    """The discriminator's loss, of its scores."""
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    losses = optax.sigmoid_binary_cross_entropy(real, jnp.ones_like(real))
    return (losses + optax.sigmoid_binary_cross_entropy(fake, jnp.zeros_like(fake))).mean()


def fooled(fake: Array) -> Float[Array, ""]:
    """The generator's loss, of the scores of its fakes."""
    fake = fake.astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(fake, jnp.ones_like(fake)).mean()
