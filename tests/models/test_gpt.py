"""The language model: GPT-2's sizes, its start, and what it computes, against PyTorch's layers on the same weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import models
from jaxdl.models.gpt import TokenLogits
from tests.layers.oracles import close, perturbed
from tests.layers.test_transformer import torch_block

pytestmark = pytest.mark.usefixtures("quickly_compiled")
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 6)).astype(np.int32)


def gpt(**changes: Any) -> dl.Sequential:
    return models.gpt(
        **{"vocabulary": 11, "layers": 2, "heads": 2, "features": 8, "context": 9, "bias": True}
        | changes
    )


def parameters(model: dl.Layer) -> int:
    tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
    return dl.tree.parameter_count(
        jax.eval_shape(lambda key: model.init(key, tokens)[0], jax.random.key(0))
    )


@pytest.mark.slow
def test_it_has_the_size_of_gpt_2() -> None:
    """As published for the smallest, and for nanoGPT's setting for a CPU with its positions."""
    assert (
        parameters(
            models.gpt(50257, layers=12, heads=12, features=768, context=1024, bias=True)
        )
        == 124_439_808
    )
    assert (
        parameters(models.gpt(65, layers=4, heads=4, features=128, context=64))
        == 795_904 + 64 * 128
    )
    assert parameters(gpt(tied=False)) == parameters(gpt()) + 11 * 8


@pytest.mark.slow
def test_it_computes_what_pytorch_computes() -> None:
    torch = pytest.importorskip("torch")
    model = gpt()
    params = perturbed(model.init(jax.random.key(0), TOKENS)[0])
    p = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf)), params)
    x = (
        p["tokens"]["embedding"][torch.tensor(TOKENS, dtype=torch.long)]
        + p["positions"]["embedding"][:6]
    )
    for index in range(2):
        block = torch_block(torch, params[f"block_{index}"], 2, norm_first=True, epsilon=1e-5)
        x = block(x, src_mask=torch.triu(torch.ones(6, 6, dtype=torch.bool), 1))
    x = torch.nn.functional.layer_norm(x, (8,), p["norm"]["scale"], p["norm"]["bias"], 1e-5)
    expected = x @ p["tokens"]["embedding"].T
    close(model.apply(params, {}, TOKENS)[0], expected.detach().numpy())


@pytest.mark.slow
def test_it_starts_as_gpt_2_does() -> None:
    params, _ = models.gpt(65, layers=8, heads=4, features=64, context=32).init(
        jax.random.key(0), TOKENS
    )
    block = params["block_3"]
    narrow = {"mlp.out.kernel", "attention.out.kernel"}
    for name, leaf in dl.tree.named_leaves(block).items():
        expected = 0.0 if name.endswith("scale") else 0.02 / 4 if name in narrow else 0.02
        assert float(leaf.std()) == pytest.approx(expected, rel=0.05), name
    assert float(params["positions"]["embedding"].std()) == pytest.approx(0.02, rel=0.1)


def test_equal_arguments_give_equal_models() -> None:
    assert gpt() == gpt()
    assert hash(gpt()) == hash(gpt())
    assert gpt() != gpt(layers=3)


def test_no_token_sees_those_behind_it() -> None:
    model = gpt(dropout=0.1)
    params, _ = model.init(jax.random.key(0), TOKENS)
    changed = np.where(np.arange(6)[None] < 4, TOKENS, 0).astype(np.int32)
    close(
        model.apply(params, {}, changed)[0][:, :4],
        model.apply(params, {}, TOKENS)[0][:, :4],
        1e-6,
    )


@pytest.mark.slow
def test_padded_texts_give_padded_logits() -> None:
    model = gpt()
    params, _ = model.init(jax.random.key(0), TOKENS)
    y, _ = model.apply(params, {}, dl.Padded(jnp.asarray(TOKENS), jnp.array([6, 3])))
    assert isinstance(y, dl.Padded)
    close(y.values[1, :3], model.apply(params, {}, TOKENS[1:, :3])[0][0])


@pytest.mark.slow
@pytest.mark.once
def test_it_learns_a_sequence_by_heart() -> None:
    """A step back and forth in a row of numbers: the next is known from the two before alone."""
    text = np.array([abs(t % 12 - 6) for t in range(200)], np.int32)
    model = models.gpt(7, layers=1, heads=2, features=16, context=8)
    trained = dl.fit(
        model,
        dl.data.windows(text, 8, stride=1),
        loss=dl.losses.softmax_cross_entropy,
        optimizer=optax.adam(1e-2),
        epochs=20,
        batch_size=32,
        progress=False,
    )
    assert trained.history["loss"][-1] < 0.25 < trained.history["loss"][0]
    tokens = dl.generate(model, trained.params, trained.state, text[None, :3], 5, temperature=0)
    assert tokens[0].tolist() == text[:8].tolist()


@pytest.mark.slow
def test_logits_that_are_tied_to_nothing() -> None:
    with pytest.raises(dl.LayerError, match="tie it to an embedding"):
        dl.Sequential(TokenLogits()).init(jax.random.key(0), jnp.ones((1, 2, 3)))
