"""Contrastive losses of a whole batch, which tell each example from all others.

They are declared `batchwise`. An example's weight counts its own value; as another's negative it
counts as every example does.
"""

import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.losses.batchwise import batchwise
from jaxdl.losses.operands import Setting, check_setting
from jaxdl.losses.regression import NORM_MARGIN
from jaxdl.losses.several import PAIR, vectors_of

SMALLEST_TEMPERATURE = float(np.finfo(np.float32).tiny)


@batchwise
def info_nce(
    outputs: PyTree,
    targets: object,
    *,
    mask: Bool[Array, " batch"],
    temperature: Setting = 0.07,
    symmetric: bool = False,
) -> Float[Array, " batch"]:
    """InfoNCE, `-log (exp(s_ii / τ) / Σ_j exp(s_ij / τ))`, s_ij the cosine of x_i and z_j.

    Every other example of the batch is a negative. It is the loss of CLIP where it is symmetric.

    Args:
        outputs: x and z, vectors `[batch, features]`: a dict of "first" and "second", a tuple in
            this order, or one array `[batch, 2, features]`.
        targets: are not read; any array of data.
        mask: which rows count; others are nobody's negatives.
        temperature: τ.
        symmetric: whether the mean with the same loss of z and x is taken.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32; 0 where the mask is
        False.

    Raises:
        ValueError: there are no such parts, their shapes differ, or they are not floating.

    Source: van den Oord, Li, Vinyals, *Representation learning with contrastive predictive coding*
    (2018), equation 4; Radford et al., *Learning transferable visual models from natural language
    supervision* (2021), section 2.3.
    """
    del targets
    name = "info_nce"
    tau = check_setting(name, "temperature", temperature, least=SMALLEST_TEMPERATURE)
    first, second = _unit_rows(name, outputs, mask)
    similarities = _products(first, second) / tau
    own = jnp.arange(len(mask), dtype=jnp.int32)
    counted = mask[None] | (own[:, None] == own[None])
    each = _cross_entropies(similarities, counted, own)
    if symmetric:
        back = _cross_entropies(similarities.T, counted, own)
        each = (each + back) / 2
    return jnp.where(mask, each, 0)


@batchwise
def nt_xent(
    outputs: PyTree,
    targets: object,
    *,
    mask: Bool[Array, " batch"],
    temperature: Setting = 0.5,
) -> Float[Array, " batch"]:
    """NT-Xent of two views of each example, the loss of SimCLR.

        l_ij = -log (exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ))

    over all 2 batch views, s the cosine and j the other view of i; an example's loss is the mean of
    its two.

    Args:
        outputs: the views, vectors `[batch, features]`: a dict of "first" and "second", a tuple in
            this order, or one array `[batch, 2, features]`.
        targets: are not read; any array of data.
        mask: which rows count; others are nobody's negatives.
        temperature: τ.

    Returns:
        The loss of each example, `[batch]`, in nats, in at least float32; 0 where the mask is
        False.

    Raises:
        ValueError: there are no such parts, their shapes differ, or they are not floating.

    Source: Chen, Kornblith, Norouzi, Hinton, *A simple framework for contrastive learning of visual
    representations* (2020), equation 1.
    """
    del targets
    name = "nt_xent"
    tau = check_setting(name, "temperature", temperature, least=SMALLEST_TEMPERATURE)
    views = jnp.concatenate(_unit_rows(name, outputs, mask))
    similarities = _products(views, views) / tau
    batch = len(mask)
    own = jnp.arange(2 * batch, dtype=jnp.int32)
    other = (own + batch) % (2 * batch)
    both = jnp.concatenate([mask, mask])
    is_other = own[None] == other[:, None]
    counted = (both[None] | is_other) & (own[None] != own[:, None])
    each = _cross_entropies(similarities, counted, other)
    mean = each.reshape(2, batch).mean(axis=0)
    return jnp.where(mask, mean, 0)


def _unit_rows(
    name: str, outputs: PyTree, mask: Bool[Array, " batch"]
) -> tuple[Float[Array, "batch features"], ...]:
    """The two parts, each row of length 1, and 0 where the mask is False."""
    parts = vectors_of(name, outputs, PAIR)
    if parts[0].ndim != 2:
        raise ValueError(
            f"{name}: the parts of the outputs have shape {parts[0].shape}, expected one vector "
            "an example, [batch, features]."
        )
    return tuple(_of_length_one(jnp.where(mask[:, None], part, 0)) for part in parts)


def _of_length_one(rows: Float[Array, "batch features"]) -> Float[Array, "batch features"]:
    """Rows of length 1; those shorter than 1e-8 count as that long."""
    squares = jnp.square(rows).sum(axis=-1, keepdims=True)
    return rows * lax.rsqrt(jnp.maximum(squares, NORM_MARGIN))


def _products(
    first: Float[Array, "n features"], second: Float[Array, "m features"]
) -> Float[Array, "n m"]:
    """The products of all pairs of rows, in the full precision of their dtype."""
    return jnp.matmul(first, second.T, precision=lax.Precision.HIGHEST)


def _cross_entropies(
    similarities: Float[Array, "n m"], counted: Bool[Array, "n m"], labels: Array
) -> Float[Array, " n"]:
    """The softmax cross-entropy of each row, over the columns that count for it."""
    logits = jnp.where(counted, similarities, -jnp.inf)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
