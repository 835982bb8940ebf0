"""Negative log-likelihoods of targets under the distributions that outputs are parameters of."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.operands import Sequences, over_examples, pair
from jaxdl.losses.several import parts_of

GAUSSIAN = ("mean", "log_variance")


def poisson_negative_log_likelihood(
    log_rates: Sequences, counts: Sequences
) -> Float[Array, " batch"]:
    """Negative log-likelihood of Poisson counts, `exp x - y x + log y!`, x the log of the rate.

    Args:
        log_rates: x, `[batch, ...]` or `Padded`, floating. -inf is a rate of 0.
        counts: y, of at least 0, of the same shape and any real dtype; a trailing axis of length 1
            may be missing on one side.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: the shapes differ, or the log-rates are not floating.

    Source: Cameron, Trivedi, *Regression analysis of count data* (1998), section 3.2.

    Example:
        >>> poisson_negative_log_likelihood(jnp.array([0.0]), jnp.array([2])).round(4)
        Array([1.6931], dtype=float32)
    """
    x, y, valid = pair("poisson_negative_log_likelihood", log_rates, counts)
    # Otherwise 0 · -inf is NaN.
    finite = jnp.where(y == 0, 0, x)
    each = jnp.exp(x) - y * finite + jax.scipy.special.gammaln(y + 1)
    return over_examples(each, valid)


def gaussian_negative_log_likelihood(
    outputs: PyTree, targets: Sequences
) -> Float[Array, " batch"]:
    """Negative log-likelihood of a Gaussian whose mean and variance are outputs,
    `½ (log 2π + s + (y - μ)² exp(-s))`, with s the log of the variance.

    Every element has a mean and a variance of its own.

    Args:
        outputs: μ and s, each `[batch, ...]` or `Padded`, floating: a dict of "mean" and
            "log_variance", a tuple in this order, or one array `[batch, 2, ...]`, as of `Dense(2)`.
        targets: y, of their shape and any real dtype; a trailing axis of length 1 may be missing on
            one side.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32.

    Raises:
        ValueError: there are no such parts, the shapes differ, or the outputs are not floating.

    Source: Nix, Weigend, *Estimating the mean and variance of the target probability distribution*
    (1994).

    Example:
        >>> outputs = {"mean": jnp.array([1.0]), "log_variance": jnp.array([0.0])}
        >>> gaussian_negative_log_likelihood(outputs, jnp.array([3.0])).round(4)
        Array([2.9189], dtype=float32)
    """
    name = "gaussian_negative_log_likelihood"
    mean, log_variance = parts_of(name, outputs, GAUSSIAN)
    mean, y, valid = pair(name, mean, targets)
    s, _, _ = pair(name, log_variance, targets)
    squares = jnp.square((y - mean) * jnp.exp(-s / 2))
    each = 0.5 * (math.log(2 * math.pi) + s + squares)
    return over_examples(each, valid)
