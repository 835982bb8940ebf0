"""Losses of real-valued outputs."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxdl.losses.operands import (
    Sequences,
    Setting,
    check_setting,
    over_examples,
    pair,
    vectors,
)

SMALLEST_TARGET = 1e-7
"""Of a percentage error, as in Keras."""

NORM_MARGIN = 1e-16
"""Of a squared norm: vectors shorter than 1e-8 count as that long, as in PyTorch."""


def mean_squared_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Mean squared error, `mean (outputs - targets)²`.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: of the same shape and any real dtype; a trailing axis of length 1 may be missing on
            one side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: Bishop, *Pattern recognition and machine learning* (2006), section 3.1.1.

    Example:
        >>> outputs = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        >>> mean_squared_error(outputs, jnp.array([[0.0, 2.0], [3.0, 2.0]]))
        Array([0.5, 2. ], dtype=float32)
    """
    outputs, targets, valid = pair("mean_squared_error", outputs, targets)
    each = optax.squared_error(outputs, targets)
    return over_examples(each, valid)


def mean_absolute_error(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Mean absolute error, `mean |outputs - targets|`.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: of the same shape and any real dtype; a trailing axis of length 1 may be missing on
            one side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: Koenker, Bassett, *Regression quantiles* (1978), for the median.
    """
    outputs, targets, valid = pair("mean_absolute_error", outputs, targets)
    errors = outputs - targets
    # At 0 its derivative is 0, where that of jnp.abs is 1.
    each = jnp.maximum(errors, -errors)
    return over_examples(each, valid)


def huber(
    outputs: Sequences, targets: Sequences, *, delta: Setting = 1.0
) -> Float[Array, " batch"]:
    """Huber's loss of the error e: `½ e²` where `|e| <= delta`, and `delta (|e| - ½ delta)` beyond.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: of the same shape and any real dtype; a trailing axis of length 1 may be missing on
            one side.
        delta: where the parabola turns into a line, in the targets' unit; positive.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: Huber, *Robust estimation of a location parameter* (1964).
    """
    delta = check_setting("huber", "delta", delta, least=0)
    outputs, targets, valid = pair("huber", outputs, targets)
    each = optax.huber_loss(outputs, targets, delta=delta)
    return over_examples(each, valid)


def cosine_distance(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Cosine distance, `1 - x·y / (|x| |y|)` over the last axis.

    A vector shorter than 1e-8 counts as that long, so that the distance of a zero vector is 1 and
    its gradient finite.

    Args:
        outputs: x, vectors `[batch, ..., features]` or `Padded`, floating.
        targets: y, vectors of the same shape.

    Returns:
        The loss of each example, `[batch]`, from 0 to 2, in at least float32; axes between are
        averaged.

    Raises:
        ValueError: the shapes differ or have no feature axis, or the outputs are not floating.

    Source: Salton, Wong, Yang, *A vector space model for automatic indexing* (1975).
    """
    outputs, targets, valid = vectors("cosine_distance", outputs, targets)
    each = optax.cosine_distance(outputs, targets, epsilon=NORM_MARGIN)
    return over_examples(each, valid)


def log_cosh(outputs: Sequences, targets: Sequences) -> Float[Array, " batch"]:
    """Log-cosh loss of the error e, `log cosh e`: near ½ e² for small errors, `|e| - log 2` for
    large ones.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: of the same shape and any real dtype; a trailing axis of length 1 may be missing on
            one side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: Chen et al., *Log hyperbolic cosine loss improves variational auto-encoder* (2019).
    """
    outputs, targets, valid = pair("log_cosh", outputs, targets)
    each = optax.log_cosh(outputs, targets)
    return over_examples(each, valid)


def mean_absolute_percentage_error(
    outputs: Sequences, targets: Sequences
) -> Float[Array, " batch"]:
    """Mean absolute percentage error, `100 mean |outputs - targets| / |targets|`, in percent.

    Targets nearer to 0 than 1e-7 count as that far, as in Keras; in training a target of 0 is
    refused.

    Args:
        outputs: predictions, `[batch, ...]` or `Padded`, floating.
        targets: other than 0, of the same shape and any real dtype; a trailing axis of length 1 may
            be missing on one side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: de Myttenaere et al., *Mean absolute percentage error for regression models* (2016).

    Example:
        >>> mean_absolute_percentage_error(jnp.array([1.5, 8.0]), jnp.array([1, 10]))
        Array([50., 20.], dtype=float32)
    """
    name = "mean_absolute_percentage_error"
    outputs, targets, valid = pair(name, outputs, targets)
    errors = outputs - targets
    sizes = jnp.maximum(jnp.abs(targets), SMALLEST_TARGET)
    # At 0 its derivative is 0, where that of jnp.abs is 1.
    each = 100 * jnp.maximum(errors, -errors) / sizes
    return over_examples(each, valid)


def mean_squared_logarithmic_error(
    outputs: Sequences, targets: Sequences
) -> Float[Array, " batch"]:
    """Mean squared logarithmic error, `mean (log(1 + outputs) - log(1 + targets))²`.

    Outputs below 0 count as 0, as in Keras, and have no gradient: let the model end in an
    activation such as `jax.nn.softplus`.

    Args:
        outputs: predictions of at least 0, `[batch, ...]` or `Padded`, floating.
        targets: of at least 0, of the same shape and any real dtype; a trailing axis of length 1
            may be missing on one side.

    Returns:
        The loss of each example, `[batch]`, in at least float32.

    Raises:
        ValueError: the shapes differ, or the outputs are not floating.

    Source: as scikit-learn and Keras define it.
    """
    name = "mean_squared_logarithmic_error"
    outputs, targets, valid = pair(name, outputs, targets)
    outputs = jnp.log1p(jnp.maximum(outputs, 0))
    targets = jnp.log1p(jnp.maximum(targets, 0))
    each = optax.squared_error(outputs, targets)
    return over_examples(each, valid)
