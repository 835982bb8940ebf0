"""Transformer blocks against PyTorch's on the same weights, forwards and backwards."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from tests.layers.oracles import close, figures, normal, perturbed

BATCH, TIME, FEATURES, HEADS, HIDDEN = 2, 5, 8, 2, 12
X = normal(0, (BATCH, TIME, FEATURES))
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def torch_block(
    torch: Any, params: Any, heads: int, norm_first: bool, epsilon: float = 1e-6
) -> Any:
    """PyTorch's layer with the weights of a block."""
    hidden, features = params["mlp"]["out"]["kernel"].shape
    block = torch.nn.TransformerEncoderLayer(
        features,
        heads,
        hidden,
        dropout=0.0,
        activation=lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        layer_norm_eps=epsilon,
        batch_first=True,
        norm_first=norm_first,
    )
    for name, value in torch_weights(params).items():
        block.get_parameter(name).data = torch.tensor(value)
    return block


def torch_weights(params: Any) -> dict[str, np.ndarray]:
    """A block's parameters, or gradients, by PyTorch's names and in its shapes."""
    params = jax.tree.map(np.array, params)
    attention = params["attention"]
    weights = {
        f"self_attn.in_proj_{theirs}": np.concatenate(
            [attention[part][ours].T for part in ("query", "key", "value")]
        )
        for theirs, ours in (("weight", "kernel"), ("bias", "bias"))
    }
    dense = {
        "self_attn.out_proj": attention["out"],
        "linear1": params["mlp"]["hidden"],
        "linear2": params["mlp"]["out"],
    }
    for name, part in dense.items():
        weights |= {f"{name}.weight": part["kernel"].T, f"{name}.bias": part["bias"]}
    for name, part in {"norm1": params["attention_norm"], "norm2": params["mlp_norm"]}.items():
        weights |= {f"{name}.weight": part["scale"], f"{name}.bias": part["bias"]}
    return weights


@pytest.mark.sampled
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_and_its_gradients_equal_those_of_pytorch(norm: Any, causal: bool) -> None:
    torch = pytest.importorskip("torch")
    layer = dl.TransformerBlock(HEADS, HIDDEN, causal=causal, norm=norm)
    params = perturbed(layer.init(jax.random.key(0), X)[0])
    ours = figures(lambda params, x: layer.apply(params, {}, x)[0], params, X)

    block, x = (
        torch_block(torch, params, HEADS, norm == "pre"),
        torch.tensor(np.asarray(X), requires_grad=True),
    )
    mask = torch.triu(torch.ones(TIME, TIME, dtype=torch.bool), 1) if causal else None
    y = block(x, src_mask=mask)
    (y * torch.tensor(np.asarray(normal(11, X.shape)))).sum().backward()
    close(ours.pop("y"), y.detach().numpy())
    close(ours.pop("x"), x.grad.numpy())
    close(
        torch_weights(ours),
        {name: block.get_parameter(name).grad.numpy() for name in torch_weights(ours)},
    )


@pytest.mark.slow
def test_padded_sequences_give_what_each_gives_alone() -> None:
    layer = dl.TransformerBlock(HEADS, rotary=True, kv_heads=1)
    params, _ = layer.init(jax.random.key(0), X)
    padded = dl.Padded(X.at[1, 3:].set(jnp.nan), jnp.array([5, 3]))
    y, _ = layer.apply(params, {}, padded)
    assert isinstance(y, dl.Padded)
    close(y.values[1:, :3], layer.apply(params, {}, X[1:, :3])[0])


@pytest.mark.slow
def test_dropout_in_training_reaches_the_attention_and_both_outputs() -> None:
    """With a rate near 1 nearly all that is added to x is gone."""
    layer = dl.TransformerBlock(HEADS, dropout=0.999)
    params, _ = layer.init(jax.random.key(0), X)
    y, _ = layer.apply(params, {}, X, dl.Train(jax.random.key(1)))
    assert float((y == X).mean()) > 0.9
    assert not jnp.allclose(layer.apply(params, {}, X)[0], X, atol=0.1)


@pytest.mark.slow
def test_a_decoder_block_that_reads_another_sequence_is_a_composite() -> None:
    @dataclasses.dataclass(frozen=True)
    class Decoder(dl.Composite):
        def wire(self, wiring: Any, x: Any) -> Any:
            text, memory = x
            text = wiring.part("self", dl.TransformerBlock(HEADS, causal=True), text)
            read = wiring.part("cross", dl.MultiHeadAttention(HEADS), dl.Attend(text, memory))
            return wiring.math(jnp.add, text, read)

    x = (X, dl.Padded(normal(1, (BATCH, 7, 6)), jnp.array([7, 2])))
    params, state = Decoder().init(jax.random.key(0), x)
    y, _ = Decoder().apply(params, state, x)
    assert y.shape == X.shape
    assert params["cross"]["key"]["kernel"].shape == (6, FEATURES)
    unseen = (X, dl.Padded(x[1].values.at[1, 2:].set(9.0), x[1].lengths))
    close(Decoder().apply(params, state, unseen)[0], y)
    assert dl.summary(Decoder(), x, show=False).parameters == dl.tree.parameter_count(params)
