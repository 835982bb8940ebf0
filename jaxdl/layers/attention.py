"""Multi-head attention, of a sequence to itself or to another."""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl import ops
from jaxdl.core.error import LayerError
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.core.padded import Padded
from jaxdl.layers import arguments
from jaxdl.layers.dense import lecun_normal, zeros
from jaxdl.layers.initializers import Initializer
from jaxdl.ops.floating import DType
from jaxdl.ops.linear import linear
from jaxdl.ops.sharding import splittable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Attend:
    """What `MultiHeadAttention` is given where a sequence alone does not say it: another sequence
    to read, or a mask.

    Args:
        queries: [batch, queries, features], or `Padded`: who reads.
        keys_values: [batch, keys, features], or `Padded`: what is read; None is the queries
            themselves.
        mask: bool, [queries, keys] or [batch | 1, heads | 1, queries, keys], True where a query may
            see a key; None lets it see all. It adds to what `causal` and the lengths of `Padded`
            say.

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


@dataclasses.dataclass(frozen=True)
class MultiHeadAttention(Layer):
    """y = [h₁ … hₙ] O + b, with hᵢ = softmax(q kᵀ / √width) v in each head: [batch, time, inputs]
    to [batch, time, features].

    q, k and v are x Q, x K and x V with their biases, cut into heads of features / heads. Of
    `Padded` sequences only what is within the lengths is read; of another sequence, or under a
    mask, the input is an `Attend`. A query that may see no key has 0 in place of the heads. Source:
    Vaswani et al., 2017, section 3.2.2; rotary positions: Su et al., 2021; fewer key/value
    heads: Ainslie et al., 2023.

    Parameters: `query`, `key`, `value` and `out`, each with `kernel` and `bias` as in `Dense`. Flax
    and Keras have the same with the features as two axes, heads and the width of one; PyTorch's
    `in_proj_weight` is the first three, transposed, one below another.

    Args:
        heads: n.
        causal: whether step i sees the steps 0 … i alone.
        kv_heads: how many heads k and v have, each shared by heads / kv_heads of q; None is as many
            as q.
        rotary: whether q and k are turned by their positions (`ops.attention.rotary`).
        dropout: the probability that a weight is dropped in training.
        flash: whether a device's kernel that never forms the weights may be used, so that memory
            grows with the length and not with its square (`ops.attention.attention`); where there
            is one, it ends second derivatives and forward mode.
        use_bias: whether biases are added.
        features: the length of an output, and of all heads of q together; None is that of the
            queries.
        kernel_init, out_kernel_init, bias_init: from `dl.initializers`; `out_kernel_init` is that
            of `out`.
        dtype: of the computation; None computes in the input's own.
        param_dtype: of the stored parameters.
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
        arguments.positive("MultiHeadAttention", heads=self.heads)
        for name in ("kv_heads", "features"):
            if getattr(self, name) is not None:
                arguments.positive("MultiHeadAttention", **{name: getattr(self, name)})
        if self.heads % self._kv_heads:
            raise LayerError(
                "MultiHeadAttention",
                f"kv_heads is a divisor of the {self.heads} heads that share them, got "
                f"{self.kv_heads}.",
            )
        arguments.probability("MultiHeadAttention", dropout=self.dropout)
        arguments.declared(self)

    @property
    def _kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        attend = _parts(x)
        read = attend.queries if attend.keys_values is None else attend.keys_values
        arguments.init_floating("MultiHeadAttention", attend.queries, self.dtype)
        features = self._features(attend.queries.shape[-1])
        kv_features = features // self.heads * self._kv_heads
        shapes = {
            "query": (attend.queries.shape[-1], features),
            "key": (read.shape[-1], kv_features),
            "value": (read.shape[-1], kv_features),
            "out": (features, features),
        }
        return {
            name: self._drawn(name, fold_in_name(key, name), shape)
            for name, shape in shapes.items()
        }, {}

    def _drawn(self, name: str, key: Array, shape: tuple[int, int]) -> Params:
        kernel_key, bias_key = jax.random.split(key)
        draw = functools.partial(arguments.drawn, "MultiHeadAttention", dtype=self.param_dtype)
        which = "out_kernel_init" if name == "out" else "kernel_init"
        params = {"kernel": draw(which, getattr(self, which), kernel_key, shape)}
        return params | (
            {"bias": draw("bias_init", self.bias_init, bias_key, shape[1:])}
            if self.use_bias
            else {}
        )

    def _features(self, inputs: int) -> int:
        features = inputs if self.features is None else self.features
        if features % self.heads:
            raise LayerError(
                "MultiHeadAttention",
                f"{features} features cannot be split among {self.heads} heads — choose features "
                f"that are a multiple of them.",
            )
        if self.rotary and features // self.heads % 2:
            raise LayerError(
                "MultiHeadAttention",
                f"rotary positions turn pairs of features, and {features} features in {self.heads} "
                f"heads leave an odd number — "
                "choose fewer heads or more features.",
            )
        return features

    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        attend = _parts(x)
        queries = self._values(attend.queries)
        read = queries if attend.keys_values is None else self._values(attend.keys_values)
        mask = _mask(attend, self.heads)
        query, key, value = self._projected(params, queries, read, jnp.zeros((), jnp.int32))
        dropout, dropout_key = (self.dropout, mode.key) if isinstance(mode, Train) else (0.0, None)
        how: dict[str, Any] = {
            "causal": self.causal,
            "dropout": dropout,
            "dropout_key": dropout_key,
            "flash": self.flash,
        }
        heads = ops.attention.attention(query, key, value, mask, **how)
        y = self._out(params, heads)
        return Padded(y, attend.queries.lengths) if isinstance(attend.queries, Padded) else y, state

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Array, Cache]:
        """Reads the next steps; the cache holds `key` and `value`, [batch, longest, kv_heads,
        width].
        """
        del state
        if not self.causal:
            raise LayerError(
                "MultiHeadAttention",
                "without causal=True a step sees those after it, and cannot be read before they "
                "are.",
            )
        if isinstance(x, Attend):
            raise LayerError(
                "MultiHeadAttention",
                "only self attention without a mask reads a sequence step by step.",
            )
        refuse_padded("MultiHeadAttention", x)
        x = self._values(x)
        query, key, value = self._projected(params, x, x, span.start)
        if not cache:
            rest = ((0, 0), (0, span.longest - x.shape[1]), (0, 0), (0, 0))
            cache = {"key": jnp.pad(key, rest), "value": jnp.pad(value, rest)}
            return self._out(
                params, ops.attention.attention(query, key, value, causal=True, flash=self.flash)
            ), cache
        places = (0, span.start, 0, 0)
        cache = {
            "key": lax.dynamic_update_slice(cache["key"], key, places),
            "value": lax.dynamic_update_slice(cache["value"], value, places),
        }
        seen = (
            jnp.arange(span.longest, dtype=jnp.int32)[None]
            <= _positions(span.start, x.shape[1])[:, None]
        )
        heads = ops.attention.attention(query, cache["key"], cache["value"], seen[None, None])
        return self._out(params, heads), cache

    def _values(self, x: Any) -> Array:
        """The numbers, with zeros behind the lengths: what a caller left there may be infinite, and
        0 · ∞ is no number.
        """
        if isinstance(x, Padded):
            return jnp.where(
                x.mask[..., None], arguments.floating("MultiHeadAttention", x.values, self.dtype), 0
            )
        return arguments.floating("MultiHeadAttention", x, self.dtype)

    def _projected(
        self, params: Params, queries: Array, read: Array, start: Array
    ) -> tuple[Array, Array, Array]:
        """q, k and v of the steps from `start` on, [batch, time, heads, width]."""
        _check_parameters(self, params, queries, read)
        read = read.astype(queries.dtype)
        query = _split(splittable(_dense(params["query"], queries), self._kv_heads), self.heads)
        key, value = (
            _split(splittable(_dense(params[name], read), self._kv_heads), self._kv_heads)
            for name in ("key", "value")
        )
        if self.rotary:
            query, key = (
                ops.attention.rotary(x, _positions(start, x.shape[1])) for x in (query, key)
            )
        return query, key, value

    def _out(self, params: Params, heads: Array) -> Array:
        return _dense(
            params["out"], heads.reshape(*heads.shape[:2], heads.shape[2] * heads.shape[3])
        )


def _check_parameters(
    layer: MultiHeadAttention, params: Params, queries: Array, read: Array
) -> None:
    for name, x in (("query", queries), ("key", read), ("value", read)):
        part = arguments.holds("MultiHeadAttention", params, name)
        arguments.parameters("MultiHeadAttention", part, kernel=(None, None))
        arguments.same_features("MultiHeadAttention", x, part["kernel"].shape[0])
    features = layer._features(queries.shape[-1])
    kv_features = features // layer.heads * layer._kv_heads
    for name, width in (
        ("query", features),
        ("key", kv_features),
        ("value", kv_features),
        ("out", features),
    ):
        kernel = (features if name == "out" else None, width)
        part = arguments.holds("MultiHeadAttention", params, name)
        arguments.parameters(
            "MultiHeadAttention", part, kernel=kernel, bias=(width,) if layer.use_bias else None
        )


def _dense(params: Params, x: Array) -> Array:
    return linear(x, params["kernel"], params.get("bias"))


def _split(x: Array, heads: int) -> Array:
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def _positions(start: Array, steps: int) -> Array:
    return start + jnp.arange(steps, dtype=jnp.int32)


def _parts(x: Any) -> Attend:
    """The input as an `Attend`, each part of it checked."""
    attend = x if isinstance(x, Attend) else Attend(x)
    for sequence in (attend.queries, attend.keys_values):
        if sequence is not None and (not hasattr(sequence, "shape") or len(sequence.shape) != 3):
            told = (
                f"shape {tuple(sequence.shape)}"
                if hasattr(sequence, "shape")
                else type(sequence).__name__
            )
            raise LayerError(
                "MultiHeadAttention",
                f"expected [batch, time, features], got {told} — one sequence alone needs x[None].",
            )
        if sequence is not None:
            arguments.features("MultiHeadAttention", sequence)
    return attend


def _mask(attend: Attend, heads: int) -> Array | None:
    """What the mask and the lengths allow, [batch | 1, heads | 1, queries | 1, keys] bool; None
    where they allow all.
    """
    read = attend.queries if attend.keys_values is None else attend.keys_values
    within = read.mask[:, None, None] if isinstance(read, Padded) else None
    if attend.mask is None:
        return within
    batch, queries, keys = attend.queries.shape[0], attend.queries.shape[1], read.shape[1]
    mask = attend.mask[None, None] if attend.mask.ndim == 2 else attend.mask
    fits = (
        mask.ndim == 4
        and mask.shape[0] in (1, batch)
        and mask.shape[1] in (1, heads)
        and mask.shape[2:] == (queries, keys)
    )
    if mask.dtype != jnp.bool_ or not fits:
        raise LayerError(
            "MultiHeadAttention",
            f"expected a mask of bool, True where a query may see a key, of shape [{queries}, "
            f"{keys}] or [{batch} or 1, "
            f"{heads} or 1, {queries}, {keys}], got {attend.mask.dtype}{list(attend.mask.shape)}.",
        )
    return mask if within is None else mask & within
