"""Architectures: their parts, sizes, and what they compute."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxdl as dl
from jaxdl import models

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def shapes_of(model: dl.Layer, *sizes: int, dtype: Any = jnp.float32) -> tuple[Any, int]:
    """The model's output shape and how many parameters it has."""
    x = jax.ShapeDtypeStruct(sizes, dtype)
    params, state = jax.eval_shape(lambda key: model.init(key, x), jax.random.key(0))
    y = jax.eval_shape(lambda p, s, v: model.apply(p, s, v)[0], params, state, x)
    return y.shape, dl.tree.parameter_count(params)


@pytest.mark.slow
def test_mlp_is_dense_layers_with_activations_between_them() -> None:
    model = models.mlp(10, 7, 1, activation=jnp.tanh, output=jax.nn.sigmoid)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    params, state = model.init(jax.random.key(0), x)
    layers = jax.tree.map(np.asarray, params)
    h = x
    for name in ("dense_0", "dense_1"):
        h = np.tanh(h @ layers[name]["kernel"] + layers[name]["bias"])
    expected = 1 / (1 + np.exp(-(h @ layers["dense_2"]["kernel"] + layers["dense_2"]["bias"])))
    np.testing.assert_allclose(model.apply(params, state, x)[0], expected, rtol=1e-5)


def test_mlp_takes_dropout_and_arguments_of_its_dense_layers() -> None:
    model = models.mlp(8, 3, dropout=0.5, use_bias=False)
    assert (
        repr(model)
        == "Sequential(Dense(8, use_bias=False), relu, Dropout(0.5), Dense(3, use_bias=False))"
    )


def test_mlp_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="at least one layer"):
        models.mlp()


# In each stage a convolution from the stage before and a block of two, each with a scale and a bias; then the dense layer.
RESNET_PARAMETERS = (
    sum(
        9 * before * n + 2 * (9 * n * n) + 3 * 2 * n
        for before, n in ((3, 24), (24, 48), (48, 96))
    )
    + 97 * 10
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("model", "image", "parameters"),
    [
        (
            models.cnn(32, 64, 64, pool=(2, 2, 1), padding="VALID", head=(64, 10)),
            (28, 28, 1),
            93_322,
        ),  # as Keras counts
        (models.cnn(32, 64, 128, padding="VALID", head=(128, 10)), (32, 32, 3), 160_202),
        (models.resnet(24, 48, 96), (32, 32, 3), RESNET_PARAMETERS),
    ],
    ids=["mnist", "cifar", "resnet"],
)
def test_image_networks_have_the_known_sizes(
    model: dl.Layer, image: tuple[int, ...], parameters: int
) -> None:
    assert shapes_of(model, 2, *image, dtype=jnp.uint8) == ((2, 10), parameters)


def test_cnn_works_in_one_dimension_and_drops_units_of_its_head() -> None:
    model = models.cnn(4, 8, pool=(4, 1), kernel_size=5, head=(6, 3), dropout=0.25)
    assert shapes_of(model, 2, 64, 3)[0] == (2, 3)
    assert [type(part).__name__ for part in model].count("Dropout") == 2


def test_cnn_needs_a_window_for_each_stage() -> None:
    with pytest.raises(
        ValueError, match=r"3 stages need as many pooling windows, got \[2, 2\]"
    ):
        models.cnn(8, 8, 8, pool=(2, 2))


def test_resnet_computes_stages_of_residual_blocks() -> None:
    model = models.resnet(3, 5, classes=4)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    params, state = model.init(jax.random.key(1), x)
    state = jax.tree.map(
        lambda leaf: leaf + 0.3, state
    )  # running statistics that are not those of init
    y = x
    for name in ("stage_0", "stage_1"):
        y = pooled(convolved(y, params[name]["conv_0"]["kernel"]))
        y = np.maximum(
            normalised(y, params[name]["batch_norm_0"], state[name]["batch_norm_0"]), 0
        )
        p, s, z = params[name]["residual_0"]["body"], state[name]["residual_0"]["body"], y
        for index in range(2):
            z = convolved(z, p[f"conv_{index}"]["kernel"])
            z = np.maximum(normalised(z, p[f"batch_norm_{index}"], s[f"batch_norm_{index}"]), 0)
        y = y + z
    logits = jax.tree.map(np.asarray, params["logits"])
    expected = y.mean((1, 2)) @ logits["kernel"] + logits["bias"]
    np.testing.assert_allclose(
        jax.jit(model.apply)(params, state, x)[0], expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_resnet_has_as_many_blocks_a_stage_as_asked() -> None:
    stage = models.resnet(3, 5, blocks=4)["stage_1"]
    assert isinstance(stage, dl.Sequential)
    assert [name for name, _ in stage.parts if name.startswith("residual")] == [
        f"residual_{index}" for index in range(4)
    ]


@pytest.mark.slow
def test_resnet_learns_by_every_parameter_and_moves_every_statistic() -> None:
    model = models.resnet(4)
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    params, state = model.init(jax.random.key(1), x)

    def loss(p: Any) -> tuple[Any, Any]:
        y, new = model.apply(p, state, x, dl.Train(jax.random.key(2)))
        return (y[:, 0] ** 2).sum(), new

    gradients, new = jax.jit(jax.grad(loss, has_aux=True))(params)
    for name, gradient in dl.tree.named_leaves(gradients).items():
        assert math.isfinite(float(jnp.abs(gradient).sum())), name
        assert float(jnp.abs(gradient).sum()) > 0, name
    for (name, before), after in zip(
        dl.tree.named_leaves(state).items(), jax.tree.leaves(new), strict=True
    ):
        assert not np.allclose(before, after), name


def convolved(x: Any, kernel: Any) -> Any:
    return lax.conv_general_dilated(
        jnp.asarray(x), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def pooled(x: Any) -> Any:
    return lax.reduce_window(
        jnp.asarray(x), -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )


def normalised(x: Any, params: Any, state: Any) -> Any:
    mean, var, scale, bias = (
        np.asarray(leaf)
        for leaf in (state["mean"], state["var"], params["scale"], params["bias"])
    )
    return (np.asarray(x) - mean) / np.sqrt(var + 1e-5) * scale + bias
