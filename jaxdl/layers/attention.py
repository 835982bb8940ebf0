"""Multi-head attention, of a sequence to itself or to another."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.number import is_number
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.layers.attend import Attend, added_bias, as_attend, attended
from jaxdl.layers.dense import lecun_normal, zeros
from jaxdl.layers.initializers import Initializer
from jaxdl.layers.positions import Rotary, as_rotary
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import linear
from jaxdl.ops.sharding import gather_unless_divisible

_NAME = "MultiHeadAttention"

Shapes = dict[str, tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class MultiHeadAttention(Layer):
    """y = [h₁ … hₙ] O + b, with hᵢ = softmax(q kᵀ / √width) v in each head: [batch, time, inputs]
    to [batch, time, features].

    q, k and v are x Q, x K and x V with their biases, split into heads. Attention to another
    sequence, or with a mask or a bias of the logits, takes an `Attend`. Of `Padded` sequences only
    the steps within the lengths are read. A query that attends to no key has zeros for its heads,
    so that y is b. Source: Vaswani et al., 2017, section 3.2.2; rotary positions: Su et al., 2021;
    fewer key/value heads: Ainslie et al., 2023; the soft cap: Gemma Team, 2024 (Gemma 2), section
    2.

    Parameters: `query`, `key`, `value` and `out`, each with `kernel` and `bias` as in `Dense`. Flax
    and Keras have the features as two axes, heads and width; PyTorch's `in_proj_weight` is the
    first three, transposed and concatenated.

    Args:
        heads: n.
        causal: whether step i attends only to the steps 0 … i.
        kv_heads: the number of heads of k and v, each shared by heads / kv_heads of q; None is as
            many as q.
        rotary: whether q and k are rotated by their positions, or a `Rotary`, which says how.
        dropout: the probability that a weight is dropped in training.
        flash: whether a kernel of the device that never forms the weights may be used, so that
            memory grows with the length and not with its square (`ops.attention.attention`); it has
            no second derivatives and no forward mode.
        use_bias: whether biases are added.
        features: the size of an output; None is that of the queries.
        kernel_init, out_kernel_init, bias_init: from `dl.initializers`; `out_kernel_init` is that
            of `out`.
        dtype: of the computation; None is the input's own.
        param_dtype: of the stored parameters.
        head_features: the width of a head of q and k; None is features / heads.
        value_features: the width of a head of v; None is that of q and k.
        logit_soft_cap: replaces the logits s = q kᵀ / √width by cap · tanh(s / cap), before a bias
            is added; None leaves them.
        return_weights: whether the output is a pair (y, weights), with the weights before dropout
            [batch, heads, queries, keys], which are 0 for a query in the padding.

    Raises:
        LayerError: an argument is invalid, the heads do not divide the features, or an input is not
            [batch, time, features], has other features than at init, or a mask or a bias that does
            not broadcast to the weights.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.MultiHeadAttention(4, head_features=8, return_weights=True)
    >>> x = dl.Attend(jnp.ones((2, 3, 6)), mask=jnp.tril(jnp.ones((3, 3), bool)))
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> (y, weights), state = layer.apply(params, state, x)
    >>> y.shape, weights.shape
    ((2, 3, 6), (2, 4, 3, 3))
    """

    heads: int
    causal: bool = False
    kv_heads: int | None = None
    rotary: bool | Rotary = False
    dropout: float | Array = 0.0
    flash: bool = False
    use_bias: bool = True
    features: int | None = None
    kernel_init: Initializer = lecun_normal
    out_kernel_init: Initializer = lecun_normal
    bias_init: Initializer = zeros
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    head_features: int | None = None
    value_features: int | None = None
    logit_soft_cap: float | Array | None = None
    return_weights: bool = False
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        arguments.check_positive(_NAME, heads=self.heads)
        for name in ("kv_heads", "features", "head_features", "value_features"):
            if getattr(self, name) is not None:
                arguments.check_positive(_NAME, **{name: getattr(self, name)})
        if self.heads % self._kv_heads:
            raise LayerError(
                _NAME,
                f"kv_heads is a divisor of the {self.heads} heads that share them, got "
                f"{self.kv_heads}.",
            )
        as_rotary(_NAME, self.rotary)
        arguments.check_probability(_NAME, dropout=self.dropout)
        _check_soft_cap(self.logit_soft_cap)
        arguments.check_fields(self)

    @property
    def _kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        attend = as_attend(_NAME, x)
        inputs.check_floating(_NAME, attend.queries, self.dtype)
        shapes = self._shapes(attend.queries, attend.source, attend.value_source)
        params = {
            name: self._draw(name, fold_in_name(key, name), shape)
            for name, shape in shapes.items()
        }
        return params, {}

    def _draw(self, name: str, key: Array, shape: tuple[int, int]) -> Params:
        kernel_init = "out_kernel_init" if name == "out" else "kernel_init"
        return parameters.draw_affine(self, key, shape, kernel_init)

    def _shapes(self, queries: PyTree, keys: PyTree, values: PyTree) -> Shapes:
        """The shapes of the kernels, for sequences [batch, time, features]."""
        in_features = queries.shape[-1]
        features = in_features if self.features is None else self.features
        width = self._head_features(features)
        value_width = width if self.value_features is None else self.value_features
        return {
            "query": (in_features, self.heads * width),
            "key": (keys.shape[-1], self._kv_heads * width),
            "value": (values.shape[-1], self._kv_heads * value_width),
            "out": (self.heads * value_width, features),
        }

    def _head_features(self, features: int) -> int:
        """The width of a head of q and k."""
        if self.head_features is None and features % self.heads:
            raise LayerError(
                _NAME,
                f"{features} features cannot be split among {self.heads} heads — choose features "
                f"that are a multiple of them, or the width of a head, head_features.",
            )
        width = features // self.heads if self.head_features is None else self.head_features
        rotary = as_rotary(_NAME, self.rotary)
        if rotary is not None:
            rotary.check_width(_NAME, width)
        return width

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        attend = as_attend(_NAME, x)
        mask = attended(_NAME, attend, self.heads)
        bias = added_bias(_NAME, attend, self.heads)
        query, key, value = self._project(params, attend, jnp.zeros((), jnp.int32))
        is_training = isinstance(mode, Train)
        dropout = self.dropout if is_training else 0.0
        dropout_key = mode.key if is_training else None
        if not self.return_weights:
            heads = ops.attention.attention(
                query,
                key,
                value,
                mask,
                bias=bias,
                causal=self.causal,
                soft_cap=self.logit_soft_cap,
                dropout=dropout,
                dropout_key=dropout_key,
                flash=self.flash,
            )
            return _like(attend.queries, self._output(params, heads)), state
        heads, weights = ops.attention.attention_and_weights(
            query,
            key,
            value,
            mask,
            bias=bias,
            causal=self.causal,
            soft_cap=self.logit_soft_cap,
            dropout=dropout,
            dropout_key=dropout_key,
        )
        if isinstance(attend.queries, Padded):
            weights = jnp.where(attend.queries.mask[:, None, :, None], weights, 0)
        return (_like(attend.queries, self._output(params, heads)), weights), state

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[Array, Cache]:
        """Reads the next steps; the cache has `key` and `value`, [batch, max_length, kv_heads,
        width], or of another sequence, an `Attend`, those of all its steps.

        Raises:
            LayerError: the attention of a sequence to itself is not causal, or has a mask or a
                bias; the weights are returned; or the steps are `Padded`.
        """
        del state
        if self.return_weights:
            raise LayerError(
                _NAME, "with return_weights=True it does not read a sequence step by step."
            )
        attend = as_attend(_NAME, x)
        refuse_padded(_NAME, attend.queries)
        if attend.keys_values is not None:
            return self._decode_cross(params, cache, attend, span)
        if not self.causal:
            raise LayerError(
                _NAME,
                "without causal=True a step attends to those after it, and cannot be read before "
                "they are.",
            )
        if not attend.is_plain:
            raise LayerError(
                _NAME,
                "a sequence that attends to itself with a mask, a bias or other values is not read "
                "step by step.",
            )
        return self._decode_self(params, cache, attend, span)

    def _decode_self(
        self, params: Params, cache: Cache, attend: Attend, span: Span
    ) -> tuple[Array, Cache]:
        query, key, value = self._project(params, attend, span.start)
        cap = self.logit_soft_cap
        count = query.shape[1]
        if not cache:
            rest = ((0, 0), (0, span.max_length - count), (0, 0), (0, 0))
            cache = {"key": jnp.pad(key, rest), "value": jnp.pad(value, rest)}
            heads = ops.attention.attention(
                query, key, value, causal=True, soft_cap=cap, flash=self.flash
            )
            return self._output(params, heads), cache
        start = (0, span.start, 0, 0)
        cache = {
            "key": lax.dynamic_update_slice(cache["key"], key, start),
            "value": lax.dynamic_update_slice(cache["value"], value, start),
        }
        mask = _before(span.start, count, span.max_length)
        heads = ops.attention.attention(query, cache["key"], cache["value"], mask, soft_cap=cap)
        return self._output(params, heads), cache

    def _decode_cross(
        self, params: Params, cache: Cache, attend: Attend, span: Span
    ) -> tuple[Array, Cache]:
        """Attention of the next steps to another sequence, which is projected once."""
        _check_parameters(self, params, attend)
        query = self._query(params, self._values(attend.queries), span.start)
        if not cache:
            keys = self._values(attend.source).astype(query.dtype)
            values = self._values(attend.value_source).astype(query.dtype)
            key, value = self._key_value(params, keys, values, jnp.zeros((), jnp.int32))
            cache = {"key": key, "value": value}
        mask = attended(_NAME, attend, self.heads)
        if self.causal:
            before = _before(span.start, query.shape[1], attend.source.shape[1])
            mask = before if mask is None else mask & before
        heads = ops.attention.attention(
            query,
            cache["key"],
            cache["value"],
            mask,
            bias=added_bias(_NAME, attend, self.heads),
            soft_cap=self.logit_soft_cap,
        )
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
        self, params: Params, attend: Attend, start: Array
    ) -> tuple[Array, Array, Array]:
        """q, k and v of the steps from `start` on, [batch, time, heads, width]."""
        _check_parameters(self, params, attend)
        queries = self._values(attend.queries)
        keys = queries
        if attend.keys_values is not None:
            keys = self._values(attend.keys_values).astype(queries.dtype)
        values = keys
        if attend.values is not None:
            values = self._values(attend.values).astype(queries.dtype)
        query = self._query(params, queries, start)
        return query, *self._key_value(params, keys, values, start)

    def _query(self, params: Params, queries: Array, start: Array) -> Array:
        return self._rotate(self._split(params["query"], queries, self.heads), start)

    def _key_value(
        self, params: Params, keys: Array, values: Array, start: Array
    ) -> tuple[Array, Array]:
        key = self._split(params["key"], keys, self._kv_heads)
        value = self._split(params["value"], values, self._kv_heads)
        return self._rotate(key, start), value

    def _rotate(self, x: Array, start: Array) -> Array:
        rotary = as_rotary(_NAME, self.rotary)
        return x if rotary is None else rotary(x, _positions(start, x.shape[1]))

    def _split(self, params: Params, x: Array, heads: int) -> Array:
        """A dense layer of x, split into heads."""
        y = linear(x, params["kernel"], params.get("bias"))
        y = gather_unless_divisible(y, self._kv_heads)
        return y.reshape(*y.shape[:-1], heads, y.shape[-1] // heads)

    def _output(self, params: Params, heads: Array) -> Array:
        batch, time, count, width = heads.shape
        out = params["out"]
        return linear(heads.reshape(batch, time, count * width), out["kernel"], out.get("bias"))


def _check_soft_cap(cap: object) -> None:
    if cap is None or arguments.is_traced(cap):
        return
    if not (is_number(cap) and cap > 0):
        raise LayerError(
            _NAME, f"logit_soft_cap is a finite number above 0, or None, got {cap!r}."
        )


def _check_parameters(layer: MultiHeadAttention, params: Params, attend: Attend) -> None:
    sequences = {
        "query": attend.queries,
        "key": attend.source,
        "value": attend.value_source,
    }
    for name, x in sequences.items():
        part = parameters.lookup(_NAME, params, name)
        parameters.check_shapes(_NAME, part, kernel=(None, None))
        inputs.check_features(_NAME, x, part["kernel"].shape[0])
    for name, kernel in layer._shapes(*sequences.values()).items():
        part = parameters.lookup(_NAME, params, name)
        bias = kernel[1:] if layer.use_bias else None
        parameters.check_shapes(_NAME, part, kernel=kernel, bias=bias)


def _like(queries: PyTree, y: Array) -> PyTree:
    """y, with the lengths of the queries if they are `Padded`."""
    return Padded(y, queries.lengths) if isinstance(queries, Padded) else y


def _positions(start: Array, steps: int) -> Array:
    return start + jnp.arange(steps, dtype=jnp.int32)


def _before(start: Array, steps: int, keys: int) -> Array:
    """[1, 1, steps, keys] bool: the keys at or before each of the steps from `start` on."""
    mask = jnp.arange(keys, dtype=jnp.int32)[None] <= _positions(start, steps)[:, None]
    return mask[None, None]
