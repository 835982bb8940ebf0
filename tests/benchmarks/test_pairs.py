"""The GPT and the adversarial pair beside PyTorch: the weights that are laid, and the rule of agreement."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import pairs
from jaxdl import models
from jaxdl.tree import named_leaves


def test_the_common_weights_are_those_of_the_model() -> None:
    model = models.gpt(pairs.VOCABULARY, layers=pairs.LAYERS, heads=pairs.HEADS, features=pairs.FEATURES, context=pairs.CONTEXT)
    tokens = jax.ShapeDtypeStruct((1, pairs.CONTEXT), np.int32)
    params, _ = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))
    given = pairs.gpt_weights()
    assert {name: leaf.shape for name, leaf in named_leaves(params).items()} == {n: w.shape for n, w in given.items()}
    assert named_leaves(pairs.nested(given)).keys() == given.keys()


def test_pytorch_gives_the_same_loss_from_them() -> None:
    torch = pytest.importorskip("torch")
    from jaxdl import losses

    inputs, targets = (part[:3] for part in pairs.windows(1))
    module = pairs.gpt_module(torch)
    pairs.lay_gpt(torch, module)
    theirs = module(torch.tensor(inputs, dtype=torch.long), torch.tensor(targets, dtype=torch.long)).item()
    ours = pairs.JaxdlGpt()
    logits, _ = ours.model.apply(jax.tree.map(jnp.asarray, pairs.nested(pairs.gpt_weights())), {}, inputs)
    np.testing.assert_allclose(losses.softmax_cross_entropy(logits, targets).mean(), theirs, rtol=1e-5)


def test_targets_are_the_inputs_one_character_on() -> None:
    inputs, targets = pairs.windows(2)
    assert inputs.shape == targets.shape == (2 * pairs.GPT_BATCH, pairs.CONTEXT)
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])
