"""Attention and positions against Flax, PyTorch and Keras on the same weights, with masks; sequences piece by piece."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import ops
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, figures, normal, perturbed, torch_figures

BATCH, TIME, KEYS, FEATURES, HEADS = 3, 5, 7, 8, 4
LENGTHS = np.array([5, 2, 0], np.int32)
X, MEMORY = normal(0, (BATCH, TIME, FEATURES)), normal(1, (BATCH, KEYS, 6))
MASK = (
    np.array(np.random.default_rng(3).uniform(size=(BATCH, HEADS, TIME, TIME)) < 0.6)
    | np.eye(TIME, dtype=bool)[None, None]
)
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def drawn(layer: Any, x: Any, seed: int = 0) -> Any:
    """Parameters of which no bias is 0."""
    return perturbed(layer.init(jax.random.key(seed), x)[0], seed)


def flat(params: Any) -> dict[str, Any]:
    """The parameters by a name each, as `torch_figures` takes them."""
    return {
        f"{part}_{name}": leaf for part, tree in params.items() for name, leaf in tree.items()
    }


def as_flax(params: Any) -> Any:
    """The parameters in Flax's shapes."""
    heads = {
        name: {
            "kernel": params[name]["kernel"].reshape(-1, HEADS, 2),
            "bias": params[name]["bias"].reshape(HEADS, 2),
        }
        for name in ("query", "key", "value")
    }
    return {
        **heads,
        "out": {
            "kernel": params["out"]["kernel"].reshape(HEADS, 2, -1),
            "bias": params["out"]["bias"],
        },
    }


def from_flax(figures: Any) -> Any:
    """The gradients of Flax's parameters in our shapes."""
    shapes = {"kernel": (-1, FEATURES), "bias": (-1,)}
    return {
        part: {name: leaf.reshape(shapes[name]) for name, leaf in value.items()}
        if isinstance(value, dict)
        else value
        for part, value in figures.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "mask", [None, MASK, np.tril(np.ones((TIME, TIME), bool))], ids=["all", "by head", "causal"]
)
def test_self_attention_and_its_gradients_equal_those_of_flax(mask: Any) -> None:
    layer = dl.MultiHeadAttention(HEADS)
    params = drawn(layer, X)
    allowed = None if mask is None else jnp.broadcast_to(mask, MASK.shape)
    module = nn.MultiHeadDotProductAttention(HEADS)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        theirs = figures(
            lambda params, x: module.apply({"params": params}, x, mask=allowed),
            as_flax(params),
            X,
        )
    close(
        figures_of(layer, params, X, None if mask is None else jnp.asarray(mask)),
        from_flax(theirs),
    )


def figures_of(layer: Any, params: Any, x: Any, mask: Any) -> Any:
    """The figures of self attention under a mask."""
    return figures(
        lambda params, x: layer.apply(
            params, {}, x if mask is None else dl.Attend(x, mask=mask)
        )[0],
        params,
        x,
    )


@pytest.mark.slow
def test_causal_attention_is_that_under_a_triangle() -> None:
    params = drawn(dl.MultiHeadAttention(HEADS), X)
    triangle = jnp.tril(jnp.ones((TIME, TIME), bool))
    ours = figures_of(dl.MultiHeadAttention(HEADS, causal=True), params, X, None)
    close(ours, figures_of(dl.MultiHeadAttention(HEADS), params, X, triangle))
    both = figures_of(dl.MultiHeadAttention(HEADS, causal=True), params, X, jnp.asarray(MASK))
    close(
        both,
        figures_of(
            dl.MultiHeadAttention(HEADS), params, X, jnp.asarray(MASK) & triangle[None, None]
        ),
    )


def torch_attention(torch: Any, p: Any, x: Any, causal: bool, ignored: Any) -> Any:
    """PyTorch's own function, on our weights."""
    y, _ = torch.nn.functional.multi_head_attention_forward(
        *([x.transpose(0, 1)] * 3),
        FEATURES,
        HEADS,
        torch.cat([p[f"{name}_kernel"].T for name in ("query", "key", "value")]),
        torch.cat([p[f"{name}_bias"] for name in ("query", "key", "value")]),
        None,
        None,
        False,
        0.0,
        p["out_kernel"].T,
        p["out_bias"],
        key_padding_mask=ignored,
        need_weights=False,
        attn_mask=torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), 1) if causal else None,
    )
    return y.transpose(0, 1)


@pytest.mark.sampled
@pytest.mark.parametrize("causal", [False, True])
def test_padded_attention_and_its_gradients_equal_those_of_pytorch(causal: bool) -> None:
    """Within the lengths; PyTorch gives NaN where a query may see no key."""
    torch = pytest.importorskip("torch")
    layer, lengths = dl.MultiHeadAttention(HEADS, causal=causal), np.array([5, 2, 1])
    params = drawn(layer, X)
    ignored = torch.tensor(np.arange(TIME)[None] >= lengths[:, None])
    within = (np.arange(TIME)[None] < lengths[:, None])[..., None]

    expected = torch_figures(
        lambda p, x: torch_attention(torch, p, x, causal, ignored) * torch.tensor(within),
        flat(params),
        X,
        channels_first=False,
    )

    def padded(params: Any, x: Any) -> Any:
        y, _ = layer.apply(params, {}, dl.Padded(x, jnp.asarray(lengths)))
        return jnp.where(within, y.values, 0)

    ours = figures(padded, params, X)
    close({"y": ours.pop("y"), "x": ours.pop("x"), **flat(ours)}, expected)


@pytest.mark.slow
def test_cross_attention_equals_that_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layer = dl.MultiHeadAttention(HEADS)
    params = drawn(layer, dl.Attend(X, MEMORY))
    lengths = np.array([7, 3, 1], np.int32)
    theirs = keras.layers.MultiHeadAttention(HEADS, FEATURES // HEADS)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs.build(X.shape, MEMORY.shape)
        heads = as_flax(params)
        theirs.set_weights(
            [
                np.asarray(heads[n][w])
                for n in ("query", "key", "value", "out")
                for w in ("kernel", "bias")
            ]
        )
        mask = np.broadcast_to(
            (np.arange(KEYS)[None] < lengths[:, None])[:, None], (BATCH, TIME, KEYS)
        )
        expected = np.asarray(theirs(X, MEMORY, attention_mask=mask))
    memory = dl.Padded(MEMORY, jnp.asarray(lengths))
    close(layer.apply(params, {}, dl.Attend(X, memory))[0], expected)
    close(
        layer.apply(params, {}, dl.Attend(X, MEMORY, jnp.asarray(mask[:, None])))[0], expected
    )


@pytest.mark.slow
def test_heads_that_share_keys_are_heads_with_the_same_keys() -> None:
    layer = dl.MultiHeadAttention(HEADS, kv_heads=2, rotary=True)
    params = drawn(layer, X)
    assert (
        params["key"]["kernel"].shape
        == params["value"]["kernel"].shape
        == (FEATURES, FEATURES // 2)
    )

    def repeated(leaf: Any) -> Any:
        return jnp.repeat(leaf.reshape(*leaf.shape[:-1], 2, -1), HEADS // 2, -2).reshape(
            *leaf.shape[:-1], -1
        )

    whole = {
        n: jax.tree.map(repeated, tree) if n in ("key", "value") else tree
        for n, tree in params.items()
    }
    close(
        layer.apply(params, {}, X)[0],
        dl.MultiHeadAttention(HEADS, rotary=True).apply(whole, {}, X)[0],
    )


@pytest.mark.sampled
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_what_other_platforms_compute_is_the_same(causal: bool, masked: bool) -> None:
    """The two forms of the operation, of which each platform gets one; some queries see nothing."""
    xs = {
        name: normal(seed, (2, TIME, heads, 6))
        for seed, (name, heads) in enumerate({"q": 4, "k": 2, "v": 2}.items())
    }
    mask = (
        jnp.asarray(np.random.default_rng(0).uniform(size=(2, 1, TIME, TIME)) < 0.4)
        if masked
        else None
    )
    assert mask is None or not mask.any(-1).all()
    one, other = (
        figures(
            lambda xs, x, form=form: form(xs["q"] * x, xs["k"], xs["v"], mask, causal=causal),
            xs,
            jnp.ones(()),
        )
        for form in (ops.attention._written_out, ops.attention._by_jax)
    )
    close(one, other)


@pytest.mark.slow
def test_a_query_that_sees_nothing_gives_zero_and_no_gradient() -> None:
    mask = jnp.asarray(np.array([[1, 1, 0], [0, 0, 0], [1, 0, 1]], bool))[None, None]
    q, k, v = (normal(seed, (1, 3, 2, 4)) for seed in range(3))

    def blind(q: Any, k: Any, v: Any) -> Any:
        return jnp.sum(jnp.square(ops.attention.attention(q, k, v, mask)[:, 1] + 1))

    assert not ops.attention.attention(q, k, v, mask)[:, 1].any()
    for gradient in jax.grad(blind, (0, 1, 2))(q, k, v):
        assert not gradient.any()


@pytest.mark.slow
@pytest.mark.once
def test_sequences_of_a_padded_batch_give_what_each_gives_alone() -> None:
    layer = dl.MultiHeadAttention(HEADS, rotary=True)
    params = drawn(layer, X)
    dirty = X.at[1, 2:].set(jnp.inf).at[2].set(jnp.nan)

    def loss(params: Any, x: Any) -> Any:
        y, _ = layer.apply(params, {}, dl.Padded(x, jnp.asarray(LENGTHS)))
        assert isinstance(y, dl.Padded)
        return jnp.sum(jnp.where(y.mask[..., None], jnp.sin(y.values), 0)), y.values

    def alone(params: Any) -> Any:
        return sum(
            jnp.sin(layer.apply(params, {}, X[i : i + 1, :n])[0]).sum()
            for i, n in enumerate(LENGTHS)
            if n
        )

    gradient, y = jax.grad(loss, has_aux=True)(params, dirty)
    close(y[1:2, :2], layer.apply(params, {}, X[1:2, :2])[0])
    close(gradient, jax.grad(alone)(params))


def test_rotary_positions_turn_pairs_of_features() -> None:
    """As a product with complex numbers; and the product of two vectors depends on their distance alone."""
    x, places = np.asarray(normal(0, (2, 3, 2, 6))), np.array([0, 4, 9], np.int32)
    turn = np.exp(1j * places[:, None] * 10_000.0 ** (-np.arange(3) / 3)[None])
    turned = (x[..., :3] + 1j * x[..., 3:]) * turn[None, :, None]
    ours = ops.attention.rotary(jnp.asarray(x), jnp.asarray(places))
    close(ours, np.concatenate([turned.real, turned.imag], -1).astype(np.float32))
    moved = ops.attention.rotary(jnp.asarray(x), jnp.asarray(places + 7))
    close(
        jnp.einsum("bqhd,bkhd->bhqk", moved, moved),
        jnp.einsum("bqhd,bkhd->bhqk", ours, ours),
        1e-4,
    )


def test_dropped_weights_are_the_kept_ones_scaled() -> None:
    """With as many features as keys and the values an identity, what comes out of a head is its weights."""
    q, k = normal(0, (1, 8, 1, 8)), normal(1, (1, 8, 1, 8))
    v = jnp.eye(8)[None, :, None]
    kept = ops.attention.attention(q, k, v)
    draws = jax.vmap(
        lambda key: ops.attention.attention(q, k, v, dropout=0.25, dropout_key=key)
    )(jax.random.split(jax.random.key(0), 200))
    whole = jnp.broadcast_to(kept[None], draws.shape)
    close(jnp.where(draws == 0, 0, whole / 0.75), draws)
    assert abs(float((draws == 0).mean()) - 0.25) < 0.02


def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    x = np.zeros((2, 6, 5), np.float32)
    expected = [
        [
            np.sin(t / 10_000 ** (i / 5)) if i % 2 == 0 else np.cos(t / 10_000 ** ((i - 1) / 5))
            for i in range(5)
        ]
        for t in range(6)
    ]
    close(
        dl.SinusoidalPositions().apply({}, {}, x)[0],
        np.stack([np.array(expected, np.float32)] * 2),
        1e-6,
    )


def test_learned_positions_add_their_rows() -> None:
    layer = dl.LearnedPositions(9)
    params, _ = layer.init(jax.random.key(0), X)
    assert params["embedding"].shape == (9, FEATURES)
    close(layer.apply(params, {}, X)[0], X + params["embedding"][None, :TIME])
    assert dl.LearnedPositions().init(jax.random.key(0), X)[0]["embedding"].shape == (
        TIME,
        FEATURES,
    )


STREAMED = [
    dl.MultiHeadAttention(2, causal=True),
    dl.MultiHeadAttention(4, causal=True, kv_heads=1, rotary=True),
    dl.SinusoidalPositions(),
    dl.LearnedPositions(12),
    dl.TransformerBlock(2, causal=True, norm="post", dropout=0.3),
    dl.Frozen(dl.TransformerBlock(2, causal=True)),
    dl.Sequential(
        block=dl.TransformerBlock(2, causal=True), again=dl.Tied("block"), drop=dl.Dropout(0.5)
    ),
    dl.Residual(dl.Sequential(dl.Dense(FEATURES), jax.nn.gelu)),
]


@pytest.mark.sampled
@pytest.mark.parametrize("layer", STREAMED, ids=repr)
def test_piece_by_piece_gives_what_all_at_once_gives(layer: Any) -> None:
    """A part that is used twice remembers twice."""
    x = normal(5, (2, 9, FEATURES))
    params, state = layer.init(jax.random.key(0), x)
    cache, pieces, start = {}, [], 0
    decode = jax.jit(layer.decode)
    for end in (4, 5, 6, 9):
        y, cache = decode(
            params, state, cache, x[:, start:end], dl.Span(jnp.asarray(start, jnp.int32), 10)
        )
        pieces.append(y)
        start = end
    close(jnp.concatenate(pieces, 1), layer.apply(params, state, x)[0], 1e-5)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: dl.MultiHeadAttention(4, kv_heads=3), "kv_heads is a divisor of the 4 heads"),
        (lambda: dl.MultiHeadAttention(0), "heads is a whole number of at least 1"),
        (
            lambda: dl.MultiHeadAttention(2, dropout=1.0),
            r"dropout is a probability in \[0, 1\)",
        ),
        (
            lambda: dl.MultiHeadAttention(3).init(jax.random.key(0), X),
            "8 features cannot be split among 3 heads",
        ),
        (
            lambda: dl.MultiHeadAttention(8, rotary=True).init(jax.random.key(0), X),
            "leave an odd number",
        ),
        (
            lambda: dl.MultiHeadAttention(2).init(jax.random.key(0), X[0]),
            r"expected \[batch, time, features\], got shape",
        ),
        (
            lambda: dl.LearnedPositions(4).init(jax.random.key(0), X),
            "5 steps is longer than the 4 positions",
        ),
        (
            lambda: dl.SinusoidalPositions().init(jax.random.key(0), X[0]),
            r"expected \[batch, time, features\]",
        ),
        (lambda: dl.TransformerBlock(2, norm="between"), "norm is 'pre' or 'post'"),
        (
            lambda: dl.TransformerBlock(3).init(jax.random.key(0), X),
            "MultiHeadAttention at 'attention': 8 features",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build: Any, sentence: str, unchecked: None) -> None:
    with pytest.raises(LayerError, match=sentence):
        build()


@pytest.mark.parametrize(
    "mask",
    [
        jnp.ones((TIME, KEYS), bool),
        jnp.ones((BATCH, 2, TIME, TIME), bool),
        jnp.zeros((TIME, TIME)),
    ],
    ids=["keys", "heads", "dtype"],
)
def test_masks_that_do_not_fit_are_refused(mask: Any) -> None:
    layer = dl.MultiHeadAttention(HEADS)
    with pytest.raises(
        LayerError,
        match=r"expected a mask of bool, .* that broadcasts to .* = \[3, 4, 5, 5\], got",
    ):
        layer.apply(drawn(layer, X), {}, dl.Attend(X, mask=mask))


@pytest.mark.slow
def test_layers_that_mix_steps_do_not_read_them_one_by_one() -> None:
    span = dl.Span(jnp.zeros((), jnp.int32), 8)
    for layer, sentence in (
        (dl.Conv(3, 3), "mixes the steps"),
        (dl.GlobalAvgPool(), "mixes the steps"),
        (dl.Map(dl.Dense(3)), "does not define how it reads"),
        (dl.MultiHeadAttention(2), "without causal=True"),
    ):
        params, state = layer.init(jax.random.key(0), X)
        with pytest.raises(LayerError, match=sentence):
            layer.decode(params, state, {}, X, span)
