"""Decoder blocks against PyTorch's on the same weights, and step by step; masks through blocks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, figures, normal, perturbed
from tests.layers.test_transformer import torch_block

BATCH, TIME, KEYS, FEATURES, HEADS, HIDDEN = 2, 5, 4, 8, 2, 12
X = normal(0, (BATCH, TIME, FEATURES))
MEMORY = normal(1, (BATCH, KEYS, FEATURES))
LENGTHS = jnp.array([4, 2], jnp.int32)
SELF_MASK = jnp.asarray(np.random.default_rng(2).uniform(size=(TIME, TIME)) < 0.5) | jnp.eye(
    TIME, dtype=bool
)
CROSS_BIAS = normal(3, (TIME, KEYS))
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def torch_weights(params: Any) -> dict[str, np.ndarray]:
    """A decoder block's parameters, or gradients, by PyTorch's names and in its shapes."""
    params = jax.tree.map(np.array, params)
    weights = {}
    dense = {"linear1": params["mlp"]["hidden"], "linear2": params["mlp"]["out"]}
    for theirs, ours in (("self_attn", "attention"), ("multihead_attn", "cross_attention")):
        parts = [params[ours][part] for part in ("query", "key", "value")]
        kernels = [part["kernel"].T for part in parts]
        weights[f"{theirs}.in_proj_weight"] = np.concatenate(kernels)
        weights[f"{theirs}.in_proj_bias"] = np.concatenate([part["bias"] for part in parts])
        dense[f"{theirs}.out_proj"] = params[ours]["out"]
    for name, part in dense.items():
        weights |= {f"{name}.weight": part["kernel"].T, f"{name}.bias": part["bias"]}
    for index, name in enumerate(("attention", "cross_attention", "mlp"), 1):
        norm = params[f"{name}_norm"]
        weights |= {f"norm{index}.weight": norm["scale"], f"norm{index}.bias": norm["bias"]}
    return weights


@pytest.mark.sampled
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_decoder_block_and_its_gradients_equal_those_of_pytorch(
    norm: Any, masked: bool
) -> None:
    """Causal, with a padded memory; or with a mask of its own and a bias of the cross-attention."""
    torch = pytest.importorskip("torch")
    layer = dl.TransformerDecoderBlock(HEADS, HIDDEN, causal=not masked, norm=norm)
    both = jnp.concatenate([X, MEMORY], 1)

    def attend(both: Any) -> dl.Attend:
        x, memory = both[:, :TIME], both[:, TIME:]
        if masked:
            return dl.Attend(dl.Attend(x, mask=SELF_MASK), memory, bias=CROSS_BIAS)
        return dl.Attend(x, dl.Padded(memory, LENGTHS))

    params = perturbed(layer.init(jax.random.key(0), attend(both))[0])

    def forward(params: Any, both: Any) -> Any:
        y = layer.apply(params, {}, attend(both))[0].queries
        return y.queries if masked else y

    theirs = torch.nn.TransformerDecoderLayer(
        FEATURES,
        HEADS,
        HIDDEN,
        dropout=0.0,
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=norm == "pre",
    )
    for name, value in torch_weights(params).items():
        theirs.get_parameter(name).data = torch.tensor(value)
    tensor = torch.tensor(np.asarray(both), requires_grad=True)
    allowed = SELF_MASK if masked else jnp.tril(jnp.ones((TIME, TIME), bool))
    ignored = np.arange(KEYS)[None] >= np.asarray(LENGTHS)[:, None]
    y = theirs(
        tensor[:, :TIME],
        tensor[:, TIME:],
        tgt_mask=torch.tensor(~np.asarray(allowed)),
        memory_mask=torch.tensor(np.asarray(CROSS_BIAS)) if masked else None,
        memory_key_padding_mask=None if masked else torch.tensor(ignored),
    )
    (y * torch.tensor(np.asarray(normal(11, X.shape)))).sum().backward()
    ours = figures(forward, params, both)
    close(ours.pop("y"), y.detach().numpy())
    close(ours.pop("x"), tensor.grad.numpy())
    gradients = torch_weights(ours)
    close(gradients, {name: theirs.get_parameter(name).grad.numpy() for name in gradients})


def test_a_mask_reaches_every_block_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    layer = dl.TransformerBlock(HEADS, HIDDEN)
    stack = dl.Sequential(layer, layer)
    x = dl.Attend(X, mask=SELF_MASK)
    params = perturbed(stack.init(jax.random.key(0), x)[0])
    y, _ = stack.apply(params, {}, x)
    assert isinstance(y, dl.Attend)
    expected = torch.tensor(np.asarray(X))
    for part in params.values():
        block = torch_block(torch, part, HEADS, norm_first=True)
        expected = block(expected, src_mask=torch.tensor(~np.asarray(SELF_MASK)))
    close(y.queries, expected.detach().numpy())


def test_the_padding_of_both_sequences_changes_nothing() -> None:
    layer = dl.TransformerDecoderBlock(HEADS)
    rows = jnp.array([5, 3], jnp.int32)
    params, _ = layer.init(jax.random.key(0), dl.Attend(X, MEMORY))
    x = dl.Padded(X.at[1, 3:].set(jnp.nan), rows)
    memory = dl.Padded(MEMORY.at[1, 2:].set(jnp.inf), LENGTHS)
    y = layer.apply(params, {}, dl.Attend(x, memory))[0].queries
    assert isinstance(y, dl.Padded)
    alone = layer.apply(params, {}, dl.Attend(X[1:, :3], MEMORY[1:, :2]))[0].queries
    close(y.values[1:, :3], alone)


def test_dropout_reaches_all_outputs() -> None:
    layer = dl.TransformerDecoderBlock(HEADS, dropout=0.999)
    x = dl.Attend(X, MEMORY)
    params, _ = layer.init(jax.random.key(0), x)
    y, _ = layer.apply(params, {}, x, dl.Train(jax.random.key(1)))
    assert float((y.queries == X).mean()) > 0.9
    assert not jnp.allclose(layer.apply(params, {}, x)[0].queries, X, atol=0.1)


@dataclasses.dataclass(frozen=True)
class Decoder(dl.Composite):
    """Tokens and the memory that they attend to, to the logits of the token after each."""

    blocks: dl.Layer

    def wire(self, wiring: Any, x: Any) -> Any:
        tokens = wiring.part("tokens", dl.Embedding(11, FEATURES), x.queries)
        y = wiring.part("blocks", self.blocks, x.with_queries(tokens))
        return wiring.part("logits", dl.Dense(11), y.queries)


DECODERS = [
    dl.TransformerDecoderBlock(HEADS, kv_heads=1, rotary=dl.Rotary(2), logit_soft_cap=3.0),
    dl.Sequential(*[dl.TransformerDecoderBlock(HEADS, norm="post", dropout=0.3)] * 2),
]
TOKENS = jnp.asarray(np.random.default_rng(4).integers(0, 11, (BATCH, 7)), jnp.int32)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", DECODERS, ids=["rotary", "stack"])
@pytest.mark.parametrize("padded", [False, True])
def test_step_by_step_gives_what_all_at_once_gives(blocks: Any, padded: bool) -> None:
    model = Decoder(blocks)
    memory = dl.Padded(MEMORY.at[1, 2:].set(jnp.nan), LENGTHS) if padded else MEMORY
    params, state = model.init(jax.random.key(0), dl.Attend(TOKENS, memory))
    decode = jax.jit(model.decode)
    cache, pieces, start = {}, [], 0
    for end in (3, 4, 7):
        span = dl.Span(jnp.asarray(start, jnp.int32), 8)
        x = dl.Attend(TOKENS[:, start:end], memory)
        y, cache = decode(params, state, cache, x, span)
        pieces.append(y)
        start = end
    expected, _ = model.apply(params, state, dl.Attend(TOKENS, memory))
    close(jnp.concatenate(pieces, 1), expected, 1e-5)


@pytest.mark.slow
def test_generate_reads_a_memory() -> None:
    """The likeliest tokens, as `apply` finds them one after another."""
    model = Decoder(DECODERS[0])
    memory = dl.Padded(MEMORY * 5, LENGTHS)
    params, state = model.init(jax.random.key(0), dl.Attend(TOKENS, memory))
    tokens = TOKENS[:, :2]
    drawn = dl.generate(model, params, state, tokens, 4, temperature=0, memory=memory)
    for _ in range(4):
        logits, _ = model.apply(params, state, dl.Attend(tokens, memory))
        likeliest = logits[:, -1:].argmax(-1).astype(jnp.int32)
        tokens = jnp.concatenate([tokens, likeliest], 1)
    np.testing.assert_array_equal(drawn, tokens)


@pytest.mark.slow
def test_what_cannot_be_read_step_by_step_is_refused(unchecked: None) -> None:
    span = dl.Span(jnp.zeros((), jnp.int32), 8)
    attention = dl.MultiHeadAttention(2, causal=True)
    for layer, x, sentence in (
        (attention, dl.Attend(X, mask=SELF_MASK), "a mask, a bias or other values"),
        (dl.MultiHeadAttention(2, causal=True, return_weights=True), X, "return_weights=True"),
        (
            dl.TransformerDecoderBlock(2, causal=False),
            dl.Attend(X, MEMORY),
            "without causal=True",
        ),
    ):
        params, state = layer.init(jax.random.key(0), x)
        with pytest.raises(LayerError, match=sentence):
            layer.decode(params, state, {}, x, span)
    cross = dl.MultiHeadAttention(2, causal=True)
    params, _ = cross.init(jax.random.key(0), dl.Attend(X, MEMORY))
    first, cache = cross.decode(params, {}, {}, dl.Attend(X[:, :2], MEMORY), span)
    later = dl.Span(jnp.asarray(2, jnp.int32), 8)
    rest, _ = cross.decode(params, {}, cache, dl.Attend(X[:, 2:], MEMORY), later)
    expected, _ = cross.apply(params, {}, dl.Attend(X, MEMORY))
    close(jnp.concatenate([first, rest], 1), expected)
