"""Vector quantization: the nearest code of a vector, and a codebook of moving averages."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered, product_sharding


class Averages(NamedTuple):
    """A codebook of moving averages.

    Args:
        embedding: [codes, features].
        counts: [codes], the average number of vectors in a batch that are nearest to each code.
        sums: [codes, features], the average of their sums.
    """

    embedding: Array
    counts: Array
    sums: Array


def nearest(
    x: Float[Array, "rows features"],
    embedding: Float[Array, "codes features"],
) -> Int[Array, " rows"]:
    """argmin_k ‖x − e_k‖², of equally near codes the first; −1 for a row that is not finite.

    ‖x − e‖² − ‖x‖² = ‖e‖² − 2 x·e in at least float32, where x and e are first moved by the mean
    of all codes: the squares of a common offset, in whose rounding errors the distances would
    vanish, do not occur. No array of [rows, codes, features] is made.

    Args:
        x: the vectors.
        embedding: e, the codes.
    """
    wide = widest(x.dtype, embedding.dtype)
    codes = gathered(lax.stop_gradient(embedding).astype(wide))
    rows = lax.stop_gradient(x).astype(wide)
    centre = codes.mean(0, keepdims=True)
    codes = codes - centre
    products = jnp.matmul(rows - centre, codes.T, precision=lax.Precision.HIGHEST)
    distances = jnp.square(codes).sum(1)[None] - 2 * products
    index = jnp.argmin(distances, axis=1).astype(jnp.int32)
    return jnp.where(jnp.isfinite(rows).all(1), index, -1)


def averaged(
    old: Averages,
    x: Float[Array, "rows features"],
    index: Int[Array, " rows"],
    decay: float | Float[Array, ""],
    epsilon: float | Float[Array, ""],
    mask: Bool[Array, " rows"] | None = None,
    across: str | None = None,
) -> Averages:
    """The codebook one batch on.

        N_k ← γ N_k + (1 − γ) n_k,  m_k ← γ m_k + (1 − γ) Σ x over the rows of code k,
        e_k = m_k / N̂_k  with  N̂_k = (N_k + ε) / (n + K ε) · n,  n = Σ_k N_k

    Without a row that counts nothing moves. Source: van den Oord et al., *Neural discrete
    representation learning* (2017), appendix A.1; N̂ is N with Laplace smoothing, which keeps a code
    that is not used finite.

    Args:
        old: the averages before.
        x: the vectors.
        index: of the code of each, as `nearest` returns it.
        decay: γ.
        epsilon: ε.
        mask: the rows that count, or None if all do.
        across: the mapped axis along which the batch is sharded; n_k and Σ x are those of all
            shards.
    """
    wide = widest(x.dtype, old.sums.dtype)
    number = old.counts.shape[0]
    is_of_code = index[:, None] == jnp.arange(number, dtype=index.dtype)[None]
    if mask is not None:
        is_of_code = is_of_code & mask[:, None]
    # A row of no code may be NaN, which a product with 0 would spread.
    rows = jnp.where(is_of_code.any(1, keepdims=True), lax.stop_gradient(x).astype(wide), 0)
    found = is_of_code.astype(wide)
    frequencies = found.sum(0)
    totals = jnp.matmul(
        found.T,
        rows,
        precision=lax.Precision.HIGHEST,
        out_sharding=product_sharding(found.T, rows),
    )
    if across is not None:
        frequencies, totals = lax.psum((frequencies, totals), across)
    new_counts = decay * old.counts.astype(wide) + (1 - decay) * frequencies
    new_sums = decay * old.sums.astype(wide) + (1 - decay) * totals
    size = new_counts.sum()
    smoothed = (new_counts + epsilon) / (size + number * epsilon) * size
    new = Averages(new_sums / smoothed[:, None], new_counts, new_sums)
    has_rows = frequencies.sum() > 0
    moved = [
        jnp.where(has_rows, leaf.astype(stored.dtype), stored)
        for leaf, stored in zip(new, old, strict=True)
    ]
    return Averages(*moved)
