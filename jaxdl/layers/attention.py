"""Multi-head attention, of a sequence to itself or to another."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.dense import lecun_normal, zeros
from jaxdl.layers.initializers import Initializer
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import linear
from jaxdl.ops.sharding import gather_unless_divisible

_NAME = "MultiHeadAttention"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attend:
    """The input of `MultiHeadAttention` to another sequence, or with a mask.

    Args:
        queries: [batch, queries, features], or `Padded`: the sequence that attends.
        keys_values: [batch, keys, features], or `Padded`: the sequence that is attended to; None is
            the queries themselves.
        mask: bool, [queries, keys] or [batch | 1, heads | 1, queries, keys], True where a query
            attends to a key; None is True everywhere. It applies in addition to `causal` and the
            lengths of `Padded`.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.MultiHeadAttention(2)
    >>> x = dl.Attend(jnp.ones((1, 3, 4)), keys_values=jnp.ones((1, 5, 6)))
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> layer.apply(params, state, x)[0].shape
    (1, 3, 4)
    """

    queries: Any
    keys_values: Any = None
    mask: Any = None

    @property
    def source(self) -> PyTree:
        """The sequence that is attended to."""
        return self.queries if self.keys_values is None else self.keys_values


@dataclasses.dataclass(frozen=True)
class MultiHeadAttention(Layer):
    """y = [h₁ … hₙ] O + b, with hᵢ = softmax(q kᵀ / √width) v in each head: [batch, time, inputs]
    to [batch, time, features].

    q, k and v are x Q, x K and x V with their biases, split into heads of features / heads. Of
    `Padded` sequences only the steps within the lengths are read; attention to another sequence, or
    with a mask, takes an `Attend`. A query that attends to no key has zeros for its heads. Source:
    Vaswani et al., 2017, section 3.2.2; rotary positions: Su et al., 2021; fewer key/value
    heads: Ainslie et al., 2023.

    Parameters: `query`, `key`, `value` and `out`, each with `kernel` and `bias` as in `Dense`. Flax
    and Keras have the features as two axes, heads and width; PyTorch's `in_proj_weight` is the
    first three, transposed and concatenated.

    Args:
        heads: n.
        causal: whether step i attends only to the steps 0 … i.
        kv_heads: the number of heads of k and v, each shared by heads / kv_heads of q; None is as
            many as q.
        rotary: whether q and k are rotated by their positions (`ops.attention.rotary`).
        dropout: the probability that a weight is dropped in training.
        flash: whether a kernel of the device that never forms the weights may be used, so that
            memory grows with the length and not with its square (`ops.attention.attention`); it has
            no second derivatives and no forward mode.
        use_bias: whether biases are added.
        features: the size of an output, and of all heads of q together; None is that of the
            queries.
        kernel_init, out_kernel_init, bias_init: from `dl.initializers`; `out_kernel_init` is that
            of `out`.
        dtype: of the computation; None is the input's own.
        param_dtype: of the stored parameters.

    Raises:
        LayerError: an argument is invalid, the heads do not divide the features, or an input is not
            [batch, time, features], has other features than at init, or a mask of another shape.
    """

    heads: int
    causal: bool = False
    kv_heads: int | None = None
    rotary: bool = False
    dropout: float | Array = 0.0
    flash: bool = False
    use_bias: bool = True
    features: int | None = None
    kernel_init: Initializer = lecun_normal
    out_kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.check_positive(_NAME, heads=self.heads)
        for name in ("kv_heads", "features"):
            if getattr(self, name) is not None:
                arguments.check_positive(_NAME, **{name: getattr(self, name)})
        if self.heads % self._kv_heads:
            raise LayerError(
                _NAME,
                f"kv_heads is a divisor of the {self.heads} heads that share them, got "
                f"{self.kv_heads}.",
            )
        arguments.check_probability(_NAME, dropout=self.dropout)
        arguments.check_fields(self)

    @property
    def _kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        attend = _as_attend(x)
        inputs.check_floating(_NAME, attend.queries, self.dtype)
        in_features = attend.queries.shape[-1]
        features = self._out_features(in_features)
        source_features = attend.source.shape[-1]
        shapes = {
            "query": (in_features, features),
            "key": (source_features, self._kv_features(features)),
            "value": (source_features, self._kv_features(features)),
            "out": (features, features),
        }
        params = {
            name: self._draw(name, fold_in_name(key, name), shape)
            for name, shape in shapes.items()
        }
        return params, {}

    def _draw(self, name: str, key: Array, shape: tuple[int, int]) -> Params:
        kernel_init = "out_kernel_init" if name == "out" else "kernel_init"
        return parameters.draw_affine(self, key, shape, kernel_init)

    def _out_features(self, in_features: int) -> int:
        features = in_features if self.features is None else self.features
        if features % self.heads:
            raise LayerError(
                _NAME,
                f"{features} features cannot be split among {self.heads} heads — choose features "
                f"that are a multiple of them.",
            )
        if self.rotary and features // self.heads % 2:
            raise LayerError(
                _NAME,
                f"rotary positions turn pairs of features, and {features} features in {self.heads} "
                f"heads leave an odd number — "
                "choose fewer heads or more features.",
            )
        return features

    def _kv_features(self, features: int) -> int:
        return features // self.heads * self._kv_heads

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        attend = _as_attend(x)
        queries = self._values(attend.queries)
        source = queries if attend.keys_values is None else self._values(attend.keys_values)
        mask = _mask(attend, self.heads)
        query, key, value = self._project(params, queries, source, jnp.zeros((), jnp.int32))
        is_training = isinstance(mode, Train)
        heads = ops.attention.attention(
            query,
            key,
            value,
            mask,
            causal=self.causal,
            dropout=self.dropout if is_training else 0.0,
            dropout_key=mode.key if is_training else None,
            flash=self.flash,
        )
        y = self._output(params, heads)
        if isinstance(attend.queries, Padded):
            y = Padded(y, attend.queries.lengths)
        return y, state

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[Array, Cache]:
        """Reads the next steps; the cache has `key` and `value`, [batch, max_length, kv_heads,
        width].

        Raises:
            LayerError: the attention is not causal, or x is an `Attend` or `Padded`.
        """
        del state
        if not self.causal:
            raise LayerError(
                _NAME,
                "without causal=True a step attends to those after it, and cannot be read before "
                "they are.",
            )
        if isinstance(x, Attend):
            raise LayerError(
                _NAME,
                "only self attention without a mask reads a sequence step by step.",
            )
        refuse_padded(_NAME, x)
        x = self._values(x)
        query, key, value = self._project(params, x, x, span.start)
        if not cache:
            rest = ((0, 0), (0, span.max_length - x.shape[1]), (0, 0), (0, 0))
            cache = {"key": jnp.pad(key, rest), "value": jnp.pad(value, rest)}
            heads = ops.attention.attention(query, key, value, causal=True, flash=self.flash)
            return self._output(params, heads), cache
        start = (0, span.start, 0, 0)
        cache = {
            "key": lax.dynamic_update_slice(cache["key"], key, start),
            "value": lax.dynamic_update_slice(cache["value"], value, start),
        }
        steps = jnp.arange(span.max_length, dtype=jnp.int32)
        mask = steps[None] <= _positions(span.start, x.shape[1])[:, None]
        heads = ops.attention.attention(query, cache["key"], cache["value"], mask[None, None])
        return self._output(params, heads), cache

    def _values(self, x: PyTree) -> Array:
        """The values in the dtype of the computation, with zeros for padding: the caller's may be
        infinite, and 0 · ∞ is NaN.
        """
        if not isinstance(x, Padded):
            return inputs.as_computed(_NAME, x, self.dtype)
        values = inputs.as_computed(_NAME, x.values, self.dtype)
        return jnp.where(x.mask[..., None], values, 0)

    def _project(
        self, params: Params, queries: Array, source: Array, start: Array
    ) -> tuple[Array, Array, Array]:
        """q, k and v of the steps from `start` on, [batch, time, heads, width]."""
        _check_parameters(self, params, queries, source)
        source = source.astype(queries.dtype)
        query = self._split(params["query"], queries, self.heads)
        key = self._split(params["key"], source, self._kv_heads)
        value = self._split(params["value"], source, self._kv_heads)
        if self.rotary:
            query = ops.attention.rotary(query, _positions(start, query.shape[1]))
            key = ops.attention.rotary(key, _positions(start, key.shape[1]))
        return query, key, value

    def _split(self, params: Params, x: Array, heads: int) -> Array:
        """A dense layer of x, split into heads."""
        y = linear(x, params["kernel"], params.get("bias"))
        y = gather_unless_divisible(y, self._kv_heads)
        return y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads)

    def _output(self, params: Params, heads: Array) -> Array:
        batch, time, count, width = heads.shape
        out = params["out"]
        return linear(heads.reshape(batch, time, count * width), out["kernel"], out.get("bias"))


def _check_parameters(
    layer: MultiHeadAttention, params: Params, queries: Array, source: Array
) -> None:
    for name, x in (("query", queries), ("key", source), ("value", source)):
        part = parameters.lookup(_NAME, params, name)
        parameters.check_shapes(_NAME, part, kernel=(None, None))
        inputs.check_features(_NAME, x, part["kernel"].shape[0])
    features = layer._out_features(queries.shape[-1])
    kv_features = layer._kv_features(features)
    kernels = {
        "query": (None, features),
        "key": (None, kv_features),
        "value": (None, kv_features),
        "out": (features, features),
    }
    for name, kernel in kernels.items():
        part = parameters.lookup(_NAME, params, name)
        bias = kernel[1:] if layer.use_bias else None
        parameters.check_shapes(_NAME, part, kernel=kernel, bias=bias)


def _positions(start: Array, steps: int) -> Array:
    return start + jnp.arange(steps, dtype=jnp.int32)


def _as_attend(x: PyTree) -> Attend:
    """The input as an `Attend`, whose sequences are checked."""
    attend = x if isinstance(x, Attend) else Attend(x)
    for sequence in (attend.queries, attend.keys_values):
        if sequence is not None:
            inputs.check_sequences(_NAME, sequence)
            inputs.features(_NAME, sequence)
    return attend


def _mask(attend: Attend, heads: int) -> Array | None:
    """The mask and the lengths, [batch | 1, heads | 1, queries | 1, keys] bool; None if all keys
    are attended to.
    """
    source = attend.source
    within = source.mask[:, None, None] if isinstance(source, Padded) else None
    if attend.mask is None:
        return within
    mask = attend.mask[None, None] if attend.mask.ndim == 2 else attend.mask
    _check_mask(attend, mask, heads)
    return mask if within is None else mask & within


def _check_mask(attend: Attend, mask: Array, heads: int) -> None:
    batch, queries = attend.queries.shape[:2]
    keys = attend.source.shape[1]
    fits = (
        mask.ndim == 4
        and mask.shape[0] in (1, batch)
        and mask.shape[1] in (1, heads)
        and mask.shape[2:] == (queries, keys)
    )
    if mask.dtype != jnp.bool_ or not fits:
        raise LayerError(
            _NAME,
            f"expected a mask of bool, True where a query may see a key, of shape [{queries}, "
            f"{keys}] or [{batch} or 1, "
            f"{heads} or 1, {queries}, {keys}], got {attend.mask.dtype}{list(attend.mask.shape)}.",
        )
