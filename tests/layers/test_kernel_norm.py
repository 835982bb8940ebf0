"""Normalized kernels against PyTorch, over several steps of training and in evaluation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl.core.error import LayerError
from tests.layers.oracles import close, layer_figures, normal, torch_figures

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
SpectralNorm: Any = dl.SpectralNorm  # for arguments that a type checker refuses


def torch_pair(body: Any) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """PyTorch's module of the layer, the shape of an input, and our axes as the weight's."""
    torch = pytest.importorskip("torch")
    if isinstance(body, dl.Dense):
        return torch.nn.Linear(4, body.features), (5, 4), (1, 0)
    module = torch.nn.Conv2d(4, body.features, 3, padding="same")
    return module, (2, 5, 6, 4), (3, 2, 0, 1)


def in_torch(module: Any, x: Any) -> Any:
    """Channels last, as ours."""
    return module(x.movedim(-1, 1)).movedim(1, -1) if x.ndim > 2 else module(x)


@pytest.mark.parametrize("body", [dl.Dense(6), dl.Conv(3, 3)], ids=str)
@pytest.mark.parametrize("iterations", [1, 3])
def test_a_spectral_norm_is_that_of_pytorch(body: Any, iterations: int) -> None:
    """Outputs, gradients and vectors in two steps of training, and in evaluation after them.

    It is the older of PyTorch's two, which has the paper's order: v before u.
    """
    torch = pytest.importorskip("torch")
    module, shape, axes = torch_pair(body)
    torch.nn.utils.spectral_norm(module, n_power_iterations=iterations)
    layer, x = dl.SpectralNorm(body, iterations), normal(0, shape)
    kernel = np.transpose(module.weight_orig.detach().numpy(), np.argsort(axes))
    params = {
        "body": {
            "kernel": jnp.asarray(kernel),
            "bias": jnp.asarray(module.bias.detach().numpy()),
        }
    }
    u = jnp.array(module.weight_u.numpy())
    v = in_our_order(module.weight_v.numpy(), body)
    state: Any = {"u": u, "v": v}
    for training in (True, True, False):
        module.train(training)
        module.zero_grad()
        mode = dl.Train(KEY) if training else dl.Eval()

        def objective(params: Any, state: Any = state, mode: Any = mode) -> Any:
            y, new = layer.apply(params, state, x, mode)
            return jnp.sum(jnp.sin(y)), (y, new)

        slopes, (y, state) = jax.grad(objective, has_aux=True)(params)
        expected = in_torch(module, torch.tensor(np.array(x)))
        expected.sin().sum().backward()
        close(y, expected.detach().numpy())
        theirs = np.transpose(module.weight_orig.grad.numpy(), np.argsort(axes))
        close(slopes["body"]["kernel"], theirs, 5e-5)
        close(state["u"], jnp.array(module.weight_u.numpy()))
        close(state["v"], in_our_order(module.weight_v.numpy(), body))


def in_our_order(v: Any, body: Any) -> Any:
    """PyTorch's vector over [channels, *window], as ours over [*window, channels]."""
    v = np.moveaxis(v.reshape(4, 3, 3), 0, -1).ravel() if isinstance(body, dl.Conv) else v
    return jnp.array(v)


def test_at_init_the_largest_singular_value_is_near() -> None:
    layer = dl.SpectralNorm(dl.Dense(6))
    params, state = layer.init(KEY, jnp.ones((1, 40)))
    kernel = np.asarray(params["body"]["kernel"])
    sigma = np.asarray(state["u"]) @ kernel.T @ np.asarray(state["v"])
    np.testing.assert_allclose(sigma, np.linalg.norm(kernel, 2), rtol=0.03)


def test_iterations_of_training_find_the_largest_singular_value() -> None:
    layer, x = dl.SpectralNorm(dl.Dense(6, use_bias=False)), jnp.eye(5)
    params, state = layer.init(KEY, x)
    for _ in range(100):
        y, state = layer.apply(params, state, x, dl.Train(KEY))
    np.testing.assert_allclose(np.linalg.norm(y, 2), 1, rtol=1e-4)


@pytest.mark.parametrize("body", [dl.Dense(6), dl.Conv(3, 3)], ids=str)
def test_a_weight_norm_is_that_of_pytorch(body: Any) -> None:
    torch = pytest.importorskip("torch")
    module, shape, axes = torch_pair(body)
    torch.nn.utils.parametrizations.weight_norm(module)
    layer, x = dl.WeightNorm(body), normal(0, shape)
    flat = {
        "kernel": normal(1, layer.init(KEY, x)[0]["body"]["kernel"].shape),
        "bias": normal(2, (body.features,)),
        "scale": normal(3, (body.features,)),
    }

    def forward(flat: Any, x: Any) -> Any:
        weights = {
            "parametrizations.weight.original0": flat["scale"].reshape(
                -1, *(1,) * (len(axes) - 1)
            ),
            "parametrizations.weight.original1": flat["kernel"].permute(axes),
            "bias": flat["bias"],
        }
        return in_torch(lambda x: torch.func.functional_call(module, weights, (x,)), x)

    class Flat:
        """The layer, of its parameters in one dict."""

        def apply(self, flat: Any, state: Any, x: Any) -> Any:
            body = {name: flat[name] for name in ("kernel", "bias")}
            return layer.apply({"body": body, "scale": flat["scale"]}, state, x)

    theirs = torch_figures(forward, flat, x, channels_first=False)
    close(layer_figures(Flat(), flat, x), theirs)


@pytest.mark.parametrize("body", [dl.Dense(3), dl.ConvTranspose(4, 3, groups=2)], ids=str)
def test_a_weight_norm_begins_as_the_layer_without_it(body: Any) -> None:
    x = normal(0, (2, 5, 4))
    layer = dl.WeightNorm(body)
    params, state = layer.init(KEY, x)
    close(layer.apply(params, state, x)[0], body.apply(params["body"], {}, x)[0], 1e-6)


@pytest.mark.parametrize("wrapper", [dl.SpectralNorm, dl.WeightNorm])
def test_a_wrapped_part_keeps_its_state_and_draws_with_its_key(wrapper: Any) -> None:
    @dataclasses.dataclass(frozen=True)
    class Kernel(dl.Layer):
        def init(self, key: Any, x: Any) -> Any:
            return {"kernel": jnp.ones((x.shape[-1], 2))}, {"mean": jnp.zeros(())}

        def apply(self, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
            return x @ params["kernel"], {"mean": state["mean"] + 1}

    layer = wrapper(Kernel())
    params, state = layer.init(KEY, jnp.ones((1, 3)))
    _, new = layer.apply(params, state, jnp.ones((1, 3)), dl.Train(KEY))
    assert new["body"]["mean"] == 1
    assert jax.tree.structure(new) == jax.tree.structure(state)


def test_a_recurrent_kernel_and_an_embedding_are_normalized_by_name() -> None:
    x = normal(0, (2, 3, 4))
    layer = dl.SpectralNorm(dl.GRU(5), parameter="recurrent_kernel")
    params, state = layer.init(KEY, x)
    y, _ = layer.apply(params, state, x)
    early, cache = layer.decode(params, state, {}, x[:, :1], dl.Span(jnp.int32(0), 3))
    late, _ = layer.decode(params, state, cache, x[:, 1:], dl.Span(jnp.int32(1), 3))
    close(jnp.concatenate([early, late], 1), y, 1e-6)
    layer = dl.WeightNorm(dl.Embedding(7, 3), parameter="embedding")
    params, state = layer.init(KEY, jnp.zeros((1, 2), jnp.int32))
    assert layer.apply(params, state, jnp.zeros((1, 2), jnp.int32))[0].shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: SpectralNorm(jnp.tanh), "SpectralNorm: body is a layer with parameters, got"),
        (
            lambda: dl.SpectralNorm(dl.Dense(3), iterations=0),
            "SpectralNorm: iterations is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.WeightNorm(dl.Dense(3), epsilon=-1.0),
            "WeightNorm: epsilon is a finite number of at least 0, got -1.0.",
        ),
        (
            lambda: dl.WeightNorm(dl.Sequential(dl.Dense(3))).init(KEY, jnp.ones((1, 2))),
            "WeightNorm: its body has no parameter 'kernel' of two or more axes, got 'dense_0' — wrap",
        ),
        (
            lambda: SpectralNorm(dl.Dense(3), parameter=1),
            "SpectralNorm: parameter is the name of one, got 1.",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        wrong()
