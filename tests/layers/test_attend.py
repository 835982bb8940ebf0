"""Attention to other sequences, with masks, biases, wide heads and soft caps, against PyTorch, Keras and NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import ops
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, figures, normal, perturbed

BATCH, TIME, KEYS, FEATURES, HEADS = 3, 5, 7, 8, 4
LENGTHS = np.array([7, 3, 1], np.int32)
X = normal(0, (BATCH, TIME, FEATURES))
MEMORY = normal(1, (BATCH, KEYS, 6))
VALUES = normal(2, (BATCH, KEYS, 5))
BIAS = normal(3, (BATCH, HEADS, TIME, KEYS))
MASK = (
    jnp.asarray(np.random.default_rng(4).uniform(size=BIAS.shape) < 0.5).at[0, 1, 2].set(False)
)
SHAPES = [(KEYS,), (TIME, 1), (HEADS, 1, KEYS), (BATCH, 1, TIME, KEYS), (1, HEADS, TIME, KEYS)]
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def drawn(layer: Any, x: Any) -> Any:
    """Parameters of which no bias is 0."""
    return perturbed(layer.init(jax.random.key(0), x)[0])


def heads_of(width: int, value_width: int) -> dict[str, Any]:
    """Queries, keys and values, of which two heads share one."""
    return {
        "query": normal(5, (BATCH, TIME, HEADS, width)),
        "key": normal(6, (BATCH, KEYS, 2, width)),
        "value": normal(7, (BATCH, KEYS, 2, value_width)),
    }


def by_hand(query: Any, key: Any, value: Any, bias: Any, cap: float | None) -> np.ndarray:
    """softmax(z) v in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
    k, v = (np.repeat(x, HEADS // x.shape[2], 2) for x in (k, v))
    z = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(q.shape[-1])
    z = z if cap is None else cap * np.tanh(z / cap)
    exponents = np.exp(z + np.asarray(bias, np.float64))
    weights = exponents / exponents.sum(-1, keepdims=True)
    return np.einsum("bhqk,bkhd->bqhd", weights, v).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_and_biases_broadcast_to_the_weights(shape: Any) -> None:
    layer = dl.MultiHeadAttention(HEADS)
    params = drawn(layer, dl.Attend(X, MEMORY))
    mask = jnp.asarray(np.random.default_rng(0).uniform(size=shape) < 0.6).at[..., 0].set(True)
    bias = normal(8, shape)

    def outputs(mask: Any, bias: Any) -> Any:
        return layer.apply(params, {}, dl.Attend(X, MEMORY, mask, bias))[0]

    whole = (
        jnp.broadcast_to(each, BIAS.shape) for each in (np.asarray(mask), np.asarray(bias))
    )
    close(outputs(mask, bias), outputs(*whole))


def test_a_bias_and_wide_values_equal_those_of_pytorch() -> None:
    """`scaled_dot_product_attention`, and the gradients of all that it takes."""
    torch = pytest.importorskip("torch")
    inputs = {**heads_of(6, 3), "bias": BIAS[:, :, :1]}

    def forward(inputs: Any, scale: Any) -> Any:
        return ops.attention.attention(**{**inputs, "query": inputs["query"] * scale})

    ours = figures(forward, inputs, jnp.ones(()))
    leaves = {n: torch.tensor(np.asarray(x), requires_grad=True) for n, x in inputs.items()}
    q, k, v = (leaves[n].transpose(1, 2) for n in ("query", "key", "value"))
    k, v = (x.repeat_interleave(HEADS // 2, 1) for x in (k, v))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=leaves["bias"])
    y = y.transpose(1, 2)
    (y * torch.tensor(np.asarray(normal(11, tuple(y.shape))))).sum().backward()
    del ours["x"]
    close(ours, {"y": y.detach().numpy(), **{n: x.grad.numpy() for n, x in leaves.items()}})


@pytest.mark.parametrize("cap", [None, 0.7])
def test_a_soft_cap_is_the_equation(cap: float | None) -> None:
    inputs = heads_of(6, 3)
    expected = by_hand(**inputs, bias=BIAS, cap=cap)
    close(ops.attention.attention(**inputs, bias=BIAS, soft_cap=cap), expected)
    y, _ = ops.attention.attention_and_weights(**inputs, bias=BIAS, soft_cap=cap)
    close(y, expected)


def test_soft_caps_are_swept_as_tracers() -> None:
    inputs = heads_of(6, 6)
    caps = jnp.array([0.7, 3.0])
    swept = jax.vmap(lambda cap: ops.attention.attention(**inputs, soft_cap=cap))(caps)
    for y, cap in zip(swept, (0.7, 3.0), strict=True):
        close(y, by_hand(**inputs, bias=jnp.zeros_like(BIAS), cap=cap))
    layer = dl.MultiHeadAttention(HEADS, logit_soft_cap=0.7)
    params = drawn(layer, X)
    traced = jax.jit(
        lambda cap: dl.MultiHeadAttention(HEADS, logit_soft_cap=cap).apply(params, {}, X)[0]
    )
    close(traced(caps[0]), layer.apply(params, {}, X)[0])


@pytest.mark.parametrize("causal", [False, True])
def test_the_form_of_other_platforms_has_the_bias_and_shared_keys(causal: bool) -> None:
    """One sequence of keys for the batch; some queries see nothing, by mask and by bias."""
    inputs = {**heads_of(6, 6), "bias": jnp.where(MASK, BIAS, -jnp.inf)[:1]}
    inputs |= {name: inputs[name][:1] for name in ("key", "value")}
    ours, theirs = (
        figures(
            lambda inputs, scale, form=form: form(
                inputs["query"] * scale,
                inputs["key"],
                inputs["value"],
                *ops.attention._finite_bias(MASK[1:2], inputs["bias"]),
                causal=causal,
            ),
            inputs,
            jnp.ones(()),
        )
        for form in (ops.attention._written_out, ops.attention._by_jax)
    )
    close(ours, theirs)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ours))


@pytest.mark.slow
def test_other_keys_and_values_equal_those_of_pytorch() -> None:
    """`MultiheadAttention`, its weights by head, and the gradients of all of its parameters."""
    torch = pytest.importorskip("torch")
    layer = dl.MultiHeadAttention(HEADS, return_weights=True)
    x = dl.Attend(X, dl.Padded(MEMORY, LENGTHS), bias=BIAS, values=VALUES)
    params = drawn(layer, x)

    def forward(params: Any, queries: Any) -> Any:
        y, weights = layer.apply(params, {}, x.with_queries(queries))[0]
        return jnp.concatenate([y.ravel(), weights.ravel()])

    theirs = torch.nn.MultiheadAttention(FEATURES, HEADS, kdim=6, vdim=5, batch_first=True)
    for name, value in torch_weights(params).items():
        theirs.get_parameter(name).data = torch.tensor(value)
    queries = torch.tensor(np.asarray(X), requires_grad=True)
    y, weights = theirs(
        queries,
        torch.tensor(np.asarray(MEMORY)),
        torch.tensor(np.asarray(VALUES)),
        key_padding_mask=torch.tensor(
            np.where(np.arange(KEYS)[None] < LENGTHS[:, None], 0, -np.inf), dtype=torch.float32
        ),
        attn_mask=torch.tensor(np.asarray(BIAS.reshape(-1, TIME, KEYS))),
        average_attn_weights=False,
    )
    y = torch.cat([y.ravel(), weights.ravel()])
    (y * torch.tensor(np.asarray(normal(11, tuple(y.shape))))).sum().backward()
    ours = figures(forward, params, X)
    close(ours.pop("y"), y.detach().numpy())
    close(ours.pop("x"), queries.grad.numpy())
    gradients = torch_weights(ours)
    close(gradients, {name: theirs.get_parameter(name).grad.numpy() for name in gradients})


def torch_weights(params: Any) -> dict[str, np.ndarray]:
    """The parameters of attention to another sequence by PyTorch's names and in its shapes."""
    parts = {"query": "q", "key": "k", "value": "v"}
    kernels = {
        f"{letter}_proj_weight": np.array(params[name]["kernel"].T)
        for name, letter in parts.items()
    }
    return {
        **kernels,
        "in_proj_bias": np.concatenate([params[name]["bias"] for name in parts]),
        "out_proj.weight": np.array(params["out"]["kernel"].T),
        "out_proj.bias": np.array(params["out"]["bias"]),
    }


@pytest.mark.slow
def test_heads_of_any_width_equal_those_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output, the weights, and the gradients."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layer = dl.MultiHeadAttention(
        HEADS, features=9, head_features=3, value_features=2, return_weights=True
    )
    mask = MASK.at[0, 1, 2, 0].set(True)[:, :1]
    x = dl.Attend(X, MEMORY, mask, values=VALUES)
    params = drawn(layer, x)

    def forward(params: Any, queries: Any) -> Any:
        y, weights = layer.apply(params, {}, x.with_queries(queries))[0]
        return jnp.concatenate([y.ravel(), weights.ravel()])

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras.layers.MultiHeadAttention(HEADS, 3, value_dim=2, output_shape=9)
        theirs.build(X.shape, VALUES.shape, MEMORY.shape)

        def keras_forward(params: Any, queries: Any) -> Any:
            variables = [
                params[part][name].reshape(variable.shape)
                for part, variable, name in zip(
                    np.repeat(["query", "key", "value", "out"], 2),
                    theirs.trainable_variables,
                    ["kernel", "bias"] * 4,
                    strict=True,
                )
            ]
            (y, weights), _ = theirs.stateless_call(
                variables,
                [variable.value for variable in theirs.non_trainable_variables],
                queries,
                VALUES,
                MEMORY,
                attention_mask=mask[:, 0],
                return_attention_scores=True,
            )
            return jnp.concatenate([y.ravel(), weights.ravel()])

        expected = figures(keras_forward, params, X)
    close(figures(forward, params, X), expected)


@pytest.mark.parametrize("by_bias", [False, True])
def test_a_query_without_keys_has_the_output_bias_and_finite_gradients(by_bias: bool) -> None:
    layer = dl.MultiHeadAttention(HEADS, logit_soft_cap=2.0)
    params = drawn(layer, dl.Attend(X, MEMORY))
    seen = jnp.ones((TIME, KEYS), bool).at[2].set(False)

    def forward(params: Any, queries: Any) -> Any:
        x = dl.Attend(queries, MEMORY, seen)
        if by_bias:
            x = dl.Attend(queries, MEMORY, bias=jnp.where(seen, 0.0, -jnp.inf))
        return layer.apply(params, {}, x)[0]

    ours = figures(forward, params, X)
    expected = jnp.broadcast_to(params["out"]["bias"][None], (BATCH, FEATURES))
    np.testing.assert_array_equal(ours["y"][:, 2], expected)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ours))
    assert not ours["x"][:, 2].any()


@pytest.mark.sampled
@pytest.mark.parametrize("rotary", [False, True])
def test_a_padded_memory_is_the_same_as_one_without_padding(rotary: bool) -> None:
    """Whatever lies behind the ends, of both sequences and of the values."""
    layer = dl.MultiHeadAttention(HEADS, rotary=rotary)
    params = drawn(layer, dl.Attend(X, MEMORY, values=VALUES))
    within = jnp.arange(KEYS)[None] < LENGTHS[:, None]
    rows = jnp.array([5, 4, 2], jnp.int32)
    seen = (jnp.arange(TIME)[None] < rows[:, None])[..., None]

    def padded(params: Any, memory: Any) -> Any:
        keys = jnp.where(within[..., None], memory, jnp.nan)
        values = jnp.where(within[..., None], VALUES, -jnp.inf)
        queries = dl.Padded(jnp.where(seen, X, jnp.inf), rows)
        x = dl.Attend(queries, dl.Padded(keys, LENGTHS), values=dl.Padded(values, LENGTHS))
        y, _ = layer.apply(params, {}, x)
        assert isinstance(y, dl.Padded)
        return jnp.where(seen, y.values, 0)

    def alone(params: Any, memory: Any) -> Any:
        rows_of = []
        for i, (n, count) in enumerate(zip(LENGTHS, (5, 4, 2), strict=True)):
            x = dl.Attend(
                X[i : i + 1, :count], memory[i : i + 1, :n], values=VALUES[i : i + 1, :n]
            )
            y, _ = layer.apply(params, {}, x)
            rows_of.append(jnp.pad(y, ((0, 0), (0, TIME - count), (0, 0))))
        return jnp.concatenate(rows_of)

    close(figures(padded, params, MEMORY), figures(alone, params, MEMORY))


def test_weights_are_returned_before_dropout_and_change_no_output() -> None:
    layer = dl.MultiHeadAttention(HEADS, dropout=0.5, return_weights=True)
    plain = dl.MultiHeadAttention(HEADS, dropout=0.5)
    x = dl.Attend(dl.Padded(X, jnp.array([5, 2, 1])), dl.Padded(MEMORY, LENGTHS))
    params = drawn(layer, x)
    mode = dl.Train(jax.random.key(1))
    (y, weights), _ = layer.apply(params, {}, x, mode)
    close(y, plain.apply(params, {}, x, mode)[0])
    within = np.arange(KEYS)[None] < LENGTHS[:, None]
    rows = np.broadcast_to(x.queries.mask[:, None], weights.shape[:3])
    close(weights.sum(-1), rows.astype(np.float32))
    assert not (np.asarray(weights) * ~within[:, None, None]).any()
    close(weights, layer.apply(params, {}, x)[0][1])


def test_bfloat16_stays_with_a_bias_in_float32() -> None:
    layer = dl.MultiHeadAttention(HEADS, logit_soft_cap=5.0, return_weights=True)
    x = dl.Attend(X.astype(jnp.bfloat16), MEMORY.astype(jnp.bfloat16), MASK, BIAS)
    params = drawn(layer, x)
    y, weights = layer.apply(params, {}, x)[0]
    assert y.dtype == weights.dtype == jnp.bfloat16
    wide, _ = layer.apply(params, {}, dl.Attend(X, MEMORY, MASK, BIAS))[0]
    close(y.astype(jnp.float32), wide, 0.05)
    assert dl.MultiHeadAttention(HEADS).apply(params, {}, x)[0].dtype == jnp.bfloat16


def test_one_memory_is_shared_by_all_examples() -> None:
    layer = dl.MultiHeadAttention(HEADS)
    params = drawn(layer, dl.Attend(X, MEMORY))
    shared, _ = layer.apply(params, {}, dl.Attend(X, MEMORY[:1]))
    repeated = jnp.concatenate([MEMORY[:1]] * BATCH)
    close(shared, layer.apply(params, {}, dl.Attend(X, repeated))[0])


@pytest.mark.parametrize(
    ("layer", "x", "sentence"),
    [
        (dl.MultiHeadAttention(2), dl.Attend(X, MEMORY[:2]), "of the queries' batch 3"),
        (dl.MultiHeadAttention(2), dl.Attend(X, MEMORY, values=VALUES[:, 1:]), "of one length"),
        (
            dl.MultiHeadAttention(2),
            dl.Attend(X, bias=jnp.ones((TIME, TIME), bool)),
            r"a floating bias that broadcasts to .* = \[3, 2, 5, 5\], got bool\[5, 5\]",
        ),
        (
            dl.MultiHeadAttention(2),
            dl.Attend(X, mask=jnp.ones((BATCH, TIME, TIME), bool)),
            r"one for each example is mask\[:, None\]",
        ),
        (
            dl.TransformerBlock(2),
            dl.Attend(X, MEMORY),
            "attends to itself, and it got another one",
        ),
        (dl.TransformerDecoderBlock(2), X, r"give it dl\.Attend\(x, memory\)"),
        (
            dl.TransformerDecoderBlock(2),
            dl.Attend(dl.Attend(X, MEMORY), MEMORY),
            "of one sequence to itself",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    layer: Any, x: Any, sentence: str, unchecked: None
) -> None:
    def read() -> Any:
        params, state = layer.init(jax.random.key(0), x)
        return layer.apply(params, state, x)

    with pytest.raises(LayerError, match=sentence):
        read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"logit_soft_cap": 0.0}, "logit_soft_cap is a finite number above 0"),
        ({"head_features": 0}, "head_features is a whole number of at least 1"),
        ({"rotary": "yes"}, "rotary is True or False, or a Rotary"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: Any, sentence: str, unchecked: None
) -> None:
    with pytest.raises(LayerError, match=sentence):
        dl.MultiHeadAttention(2, **arguments)
