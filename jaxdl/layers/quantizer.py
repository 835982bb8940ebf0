"""Vector quantization: the layer in the middle of a VQ-VAE."""

import dataclasses

import jax.numpy as jnp
from jax import Array, lax

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.inputs import as_arrays, scale_images
from jaxdl.core.layer import LOSSES, Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded, map_values
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.dense import Embedding
from jaxdl.layers.initializers import Initializer, VarianceScaling
from jaxdl.ops.floating import DType, widest

codebook_uniform: Initializer = VarianceScaling(1.0, "fan_in", "uniform", -1, -2)


@dataclasses.dataclass(frozen=True)
class VectorQuantizer(Layer):
    """y = e_k with k = argmin_j ‖x − e_j‖², the nearest of the rows of a codebook: [batch, ...,
    features] to the same.

    In training the gradient passes straight through, dy/dx = 1, and an example's loss grows by
    (`codebook` and `commitment` in the history)

        mean(‖sg(x) − e_k‖²) + commitment · mean(‖x − sg(e_k)‖²)

    over its vectors, where sg holds its argument constant: the first moves the codes to the
    vectors, and the second the vectors to their codes. Squares are summed over the features. With
    `decay` the codes are moving averages of their vectors instead, and the first is left out:

        N_k ← γ N_k + (1 − γ) n_k,  m_k ← γ m_k + (1 − γ) Σ x,  e_k = m_k / N_k

    over the n_k vectors of the batch whose nearest code is k, with Laplace smoothing of N
    (`ops.codebook.averaged`). Of `Padded` sequences the steps before the end count, and of a batch
    the examples that the mode's mask counts. A vector that is not finite has no code: its index is
    −1, and y is NaN.

    Source: van den Oord et al., *Neural discrete representation learning* (2017), equations 1 to 3
    and appendix A.1.

    Parameters: `embedding` e [codes, features]. With `decay` there are none, and the state is
    `embedding`, `counts` N [codes] and `sums` m [codes, features].

    Args:
        codes: how many there are.
        commitment: β, the weight of the second term.
        decay: γ, such as 0.99, or None for codes that the optimizer moves.
        epsilon: of the smoothing, in numbers of vectors.
        embedding_init: from `dl.initializers`; by default U(−√(3 / features), √(3 / features)).
        dtype: of the output; None is the input's own. Distances are taken in at least float32.
        param_dtype: of the stored codes and averages.

    Raises:
        LayerError: an argument is invalid, or an input has another number of features than at init.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.VectorQuantizer(3)
    >>> params = {"embedding": jnp.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])}
    >>> x = jnp.array([[0.9, 0.8], [0.1, 0.2]])
    >>> layer.indices(params, {}, x)
    Array([1, 0], dtype=int32)
    >>> layer.apply(params, {}, x)[0]
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """

    codes: int
    _: dataclasses.KW_ONLY
    commitment: float | Array = 0.25
    decay: float | Array | None = None
    epsilon: float | Array = 1e-5
    embedding_init: Initializer = codebook_uniform
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        name = "VectorQuantizer"
        arguments.check_positive(name, codes=self.codes)
        arguments.check_non_negative(name, commitment=self.commitment, epsilon=self.epsilon)
        if self.decay is not None:
            arguments.check_probability(name, decay=self.decay)
        arguments.check_fields(self)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        name = "VectorQuantizer"
        shape = (self.codes, inputs.features(name, x))
        inputs.check_floating(name, x, self.dtype)
        embedding = parameters.draw(
            name, "embedding_init", self.embedding_init, key, shape, self.param_dtype
        )
        if self.decay is None:
            return {"embedding": embedding}, {}
        counts = jnp.ones(self.codes, self.param_dtype)
        return {}, {"embedding": embedding, "counts": counts, "sums": jnp.copy(embedding)}

    def apply(
        self,
        params: Params,
        state: State,
        x: PyTree,
        mode: Mode = Eval(),
    ) -> tuple[PyTree, State]:
        steps = x.mask if isinstance(x, Padded) else None
        values = self._values(x.with_zero_padding().values if isinstance(x, Padded) else x)
        codebook = self._codebook(params, state, values)
        index = _nearest(values, codebook)
        codes = self._looked_up(codebook, index, values.dtype)
        y = codes
        if isinstance(mode, Train):
            # The difference is 0, so that y is the code to the last bit.
            y = lax.stop_gradient(codes) + (values - lax.stop_gradient(values))
            losses = self._losses(values, self._looked_up(codebook, index, None), steps)
            state = self._moved(state, values, index, steps, mode)
            state = {**state, **({LOSSES: losses} if losses else {})}
        return Padded(y, x.lengths) if isinstance(x, Padded) else y, state

    def decode(
        self,
        params: Params,
        state: State,
        cache: Cache,
        x: PyTree,
        span: Span,
    ) -> tuple[PyTree, Cache]:
        """Applies the layer to these steps; nothing is cached."""
        del span
        return self.apply(params, state, x)[0], cache

    def indices(self, params: Params, state: State, x: PyTree) -> PyTree:
        """The index k of the nearest code of each vector.

        Args:
            params, state: of the layer.
            x: [batch, ..., features], as `apply` is given it.

        Returns:
            [batch, ...] int32, `Padded` where x is.

        Raises:
            LayerError: the input does not fit the layer.
        """

        def of_values(values: Array) -> Array:
            values = self._values(values)
            return _nearest(values, self._codebook(params, state, values))

        return map_values(of_values, _prepared(x, self.dtype))

    def lookup(self, params: Params, state: State, indices: PyTree) -> PyTree:
        """The codes of indices, such as those that a prior over them has drawn.

        Args:
            params, state: of the layer.
            indices: [batch, ...] of an integer dtype.

        Returns:
            [batch, ..., features], `Padded` where the indices are; NaN for an index that is none.

        Raises:
            LayerError: the indices are no integers.
        """
        codebook = self._stored(params, state)
        return map_values(
            lambda values: self._looked_up(codebook, values, self.dtype), as_arrays(indices)
        )

    def _values(self, x: PyTree) -> Array:
        inputs.features("VectorQuantizer", x)
        return inputs.as_computed("VectorQuantizer", x, self.dtype)

    def _stored(self, params: Params, state: State) -> Array:
        tree = params if self.decay is None else state
        parameters.check_shapes("VectorQuantizer", tree, embedding=(self.codes, None))
        return jnp.asarray(tree["embedding"])

    def _codebook(self, params: Params, state: State, x: Array) -> Array:
        codebook = self._stored(params, state)
        inputs.check_features("VectorQuantizer", x, codebook.shape[1])
        return codebook

    def _looked_up(self, codebook: Array, index: Array, dtype: DType | None) -> Array:
        count, features = codebook.shape
        table = Embedding(count, features, dtype=dtype)
        return table.forward({"embedding": codebook}, index)

    def _losses(self, x: Array, codes: Array, steps: Array | None) -> dict[str, Array]:
        """The losses of each example, by name."""
        wide = widest(x.dtype, codes.dtype)
        x = x.astype(wide)
        codes = codes.astype(wide)
        mask = inputs.vectors_that_count("VectorQuantizer", x, steps, None)
        losses = {}
        if self.decay is None:
            losses["codebook"] = _mean_square(lax.stop_gradient(x) - codes, mask)
        if not arguments.is_zero(self.commitment):
            far = _mean_square(x - lax.stop_gradient(codes), mask)
            losses["commitment"] = self.commitment * far
        return losses

    def _moved(
        self,
        state: State,
        x: Array,
        index: Array,
        steps: Array | None,
        mode: Train,
    ) -> State:
        """The next state: the averages one batch on."""
        mask = inputs.vectors_that_count("VectorQuantizer", x, steps, mode.mask)
        if self.decay is None:
            return state
        features = x.shape[-1]
        parameters.check_shapes(
            "VectorQuantizer", state, counts=(self.codes,), sums=(self.codes, features)
        )
        old = ops.codebook.Averages(state["embedding"], state["counts"], state["sums"])
        new = ops.codebook.averaged(
            old,
            ops.linear.rows(x),
            index.reshape(-1),
            self.decay,
            self.epsilon,
            None if mask is None else mask.reshape(-1),
            mode.across,
        )
        return new._asdict()


def _prepared(x: PyTree, dtype: DType | None) -> PyTree:
    try:
        return scale_images(as_arrays(x), dtype)
    except ValueError as error:
        raise LayerError("VectorQuantizer", str(error)) from None


def _nearest(x: Array, codebook: Array) -> Array:
    """The index of the nearest code of each vector, [batch, ...]."""
    return ops.codebook.nearest(ops.linear.rows(x), codebook).reshape(x.shape[:-1])


def _mean_square(x: Array, mask: Array | None) -> Array:
    """The mean of ‖x‖² over the vectors of each example, or over those that count: [batch]."""
    squares = jnp.square(x).sum(-1).reshape(len(x), -1)
    if mask is None:
        return squares.mean(1)
    mask = mask.reshape(len(x), -1)
    counted = mask.sum(1, dtype=x.dtype)
    return jnp.where(mask, squares, 0).sum(1) / jnp.maximum(counted, 1)
