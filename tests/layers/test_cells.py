"""Cells of a user, and the less common forms of LSTM and GRU, against PyTorch and Keras; masks with holes."""

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
BATCH, TIME, INPUTS, FEATURES = 3, 5, 4, 6
SHAPE = (BATCH, TIME, INPUTS)
LENGTHS = jnp.array([5, 2, 0], jnp.int32)
MASK = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0], [1, 1, 1, 1, 1]], bool)


@dataclasses.dataclass(frozen=True)
class GRUCell(dl.Cell):
    """`dl.GRU` as a cell."""

    features: int

    def weights(self, key: Any, x: Any) -> Any:
        shape = jax.ShapeDtypeStruct((x.shape[0], 1, *x.shape[1:]), x.dtype)
        return dl.GRU(self.features).init(key, shape)[0]

    def first(self, x: Any) -> Any:
        return jnp.zeros((x.shape[0], self.features), x.dtype)

    def project(self, params: Any, steps: Any) -> Any:
        return steps @ params["kernel"] + params["bias"][None, None]

    def step(self, params: Any, state: Any, x: Any) -> Any:
        r, z, n = jnp.split(x, 3, -1)
        by_r, by_z, by_n = jnp.split(state @ params["recurrent_kernel"], 3, -1)
        r, z = jax.nn.sigmoid(r + by_r), jax.nn.sigmoid(z + by_z)
        n = jnp.tanh(n + r * (by_n + params["recurrent_bias"][None]))
        return (1 - z) * n + z * state


@dataclasses.dataclass(frozen=True)
class Accumulated(dl.Cell):
    """The sum of images so far, and how many there were."""

    def weights(self, key: Any, x: Any) -> Any:
        return {}

    def first(self, x: Any) -> Any:
        return {"a sum": jnp.zeros(x.shape, x.dtype), "count": jnp.zeros(x.shape[:1], x.dtype)}

    def step(self, params: Any, state: Any, x: Any) -> Any:
        return {"a sum": state["a sum"] + x, "count": state["count"] + 1}


def drawn(layer: Any, x: Any, seed: int = 0) -> Any:
    """Parameters of which no bias is 0."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))[0]
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), shapes
    )


OPTIONS = [{}, {"backward": True}, {"sequence": False}, {"sequence": False, "backward": True}]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("padded", [False, True])
def test_a_cell_runs_as_the_layer_does(options: dict[str, bool], padded: bool) -> None:
    """States, gradients, final states and lengths, beginning with a state."""
    ours = dl.RNN(GRUCell(FEATURES), carry=True, **options)
    theirs = dl.GRU(FEATURES, carry=True, **options)
    x, first = normal(0, SHAPE), normal(1, (BATCH, FEATURES))
    params = drawn(theirs, (x, None))

    def figures(layer: Any) -> Any:
        def objective(params: Any, x: Any) -> Any:
            given = dl.Padded(x, LENGTHS) if padded else x
            (y, last), _ = layer.apply(params, {}, (given, first))
            values = y.values if isinstance(y, dl.Padded) else y
            return jnp.sum(jnp.sin(values)) + jnp.sum(jnp.cos(last)), (y, last)

        return jax.jit(jax.value_and_grad(objective, (0, 1), has_aux=True))(params, x)

    close(figures(ours), figures(theirs))


@pytest.mark.slow
def test_a_cell_is_read_in_both_directions_and_step_by_step() -> None:
    x = normal(0, SHAPE)
    ours, theirs = dl.RNN(GRUCell(FEATURES)), dl.GRU(FEATURES)
    params = drawn(dl.Bidirectional(theirs), x)
    both = [dl.Bidirectional(layer).apply(params, {}, x)[0] for layer in (ours, theirs)]
    close(*both)
    params = params["forward"]
    early, cache = ours.decode(params, {}, {}, x[:, :2], dl.Span(jnp.int32(0), TIME))
    late, _ = ours.decode(params, {}, cache, x[:, 2:], dl.Span(jnp.int32(2), TIME))
    close(jnp.concatenate([early, late], 1), ours.apply(params, {}, x)[0], 1e-6)


def test_a_cell_computes_in_a_narrow_dtype() -> None:
    x = normal(0, SHAPE)
    layer = dl.RNN(GRUCell(FEATURES))
    params = drawn(layer, x)
    narrow = jax.eval_shape(dl.RNN(GRUCell(FEATURES), dtype=jnp.bfloat16).apply, params, {}, x)[
        0
    ]
    assert narrow.dtype == jnp.bfloat16
    y, _ = dl.in_precision(layer, "bfloat16").apply(params, {}, x)
    np.testing.assert_allclose(y, layer.apply(params, {}, x)[0], atol=0.05)


def test_steps_may_be_of_any_shape_and_states_trees() -> None:
    images = normal(0, (2, 3, 4, 4, 1))
    layer = dl.RNN(Accumulated(), carry=True)
    (y, last), _ = layer.apply({}, {}, (dl.Padded(images, jnp.array([3, 1])), None))
    close(y.values[0], jnp.cumsum(images[0], 0), 1e-6)
    close(last["a sum"][1], images[1, 0], 1e-6)
    np.testing.assert_array_equal(last["count"], [3, 1])


@dataclasses.dataclass(frozen=True)
class Growing(Accumulated):
    def step(self, params: Any, state: Any, x: Any) -> Any:
        return {**state, "more": x}


class Unhashable(Accumulated):
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: dl.RNN(3), r"RNN: cell is a dl.Cell, got 3 of type int"),  # type: ignore[arg-type]
        (lambda: dl.RNN(Unhashable()), r"RNN: cell cannot be hashed"),
        (
            lambda: dl.RNN(Accumulated(), dropout=1.0),
            r"RNN: dropout is a probability in \[0, 1\), got 1.0",
        ),
        (
            lambda: dl.RNN(Growing()).apply({}, {}, jnp.ones((2, 3, 4))),
            r"RNN: Growing\(\) steps from a state of dict of an array .* a step keeps structure",
        ),
        (
            lambda: dl.RNN(Accumulated()).apply({}, {}, jnp.ones(3)),
            r"RNN: expected \[batch, time, ...\], got shape \(3,\)",
        ),
        (
            lambda: dl.LSTM(3, projection=0),
            "LSTM: projection is a whole number of at least 1, got 0.",
        ),
        (
            lambda: dl.Masked(dl.GRU(3)).init(jax.random.key(0), (jnp.ones((2, 3, 4)), MASK)),
            r"Masked: the mask is bool \[batch, time\], .* got bool\[3, 5\]",
        ),
        (
            lambda: dl.Masked(dl.GRU(3)).init(jax.random.key(0), (jnp.ones((2, 3, 4)), None)),
            r"Masked: the input is a pair \(sequences, mask\) of arrays",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        wrong()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projection_is_that_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x, layer = normal(0, SHAPE), dl.LSTM(FEATURES, projection=3)
    params = drawn(layer, x)
    module = torch.nn.LSTM(INPUTS, FEATURES, proj_size=3, batch_first=True, bias=True)
    names = {
        "weight_ih_l0": "kernel",
        "weight_hh_l0": "recurrent_kernel",
        "bias_ih_l0": "bias",
        "weight_hr_l0": "projection_kernel",
    }

    def forward(params: Any, x: Any) -> Any:
        weights = {theirs: params[name] for theirs, name in names.items()}
        weights = {name: w.mT if w.ndim == 2 else w for name, w in weights.items()}
        weights["bias_hh_l0"] = torch.zeros(4 * FEATURES)
        return torch.func.functional_call(module, weights, (x,))[0]

    theirs = torch_figures(forward, params, x, channels_first=False)
    close(layer_figures(layer, params, x), theirs)


@pytest.mark.sampled
@pytest.mark.parametrize("projection", [None, 3])
def test_peepholes_are_those_of_the_equations_in_pytorch(projection: int | None) -> None:
    torch = pytest.importorskip("torch")
    x = normal(0, SHAPE)
    layer = dl.LSTM(FEATURES, projection=projection, peepholes=True)
    params = drawn(layer, x)

    def forward(params: Any, x: Any) -> Any:
        by_i, by_f, by_o = params["peepholes"].chunk(3)
        h = torch.zeros(BATCH, projection or FEATURES)
        c = torch.zeros(BATCH, FEATURES)
        states = []
        for step in x.unbind(1):
            z = step @ params["kernel"] + h @ params["recurrent_kernel"] + params["bias"]
            i, f, g, o = z.chunk(4, -1)
            new = torch.sigmoid(f + by_f * c) * c + torch.sigmoid(i + by_i * c) * torch.tanh(g)
            h = torch.sigmoid(o + by_o * new) * torch.tanh(new)
            h = h if projection is None else h @ params["projection_kernel"]
            c = new
            states.append(h)
        return torch.stack(states, 1)

    theirs = torch_figures(forward, params, x, channels_first=False)
    close(layer_figures(layer, params, x), theirs)


@pytest.mark.slow
def test_without_weights_peepholes_and_a_projection_by_one_change_nothing() -> None:
    x, plain = normal(0, SHAPE), dl.LSTM(FEATURES)
    params = drawn(plain, x)
    layer = dl.LSTM(FEATURES, projection=FEATURES, peepholes=True)
    more = {"projection_kernel": jnp.eye(FEATURES), "peepholes": jnp.zeros(3 * FEATURES)}
    ours = layer_figures(layer, params | more, x)
    close({name: ours[name] for name in ("y", "x", *params)}, layer_figures(plain, params, x))
    initial, _ = layer.init(jax.random.key(0), x)
    same, _ = plain.init(jax.random.key(0), x)
    np.testing.assert_array_equal(initial["kernel"], same["kernel"])


def keras_layer(kind: str, params: Any, **options: Any) -> Any:
    """Keras's layer, as a function of our parameters, the input and a mask."""
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, kind)(FEATURES, **options)
    layer.build(SHAPE)

    def function(params: Any, x: Any, mask: Any = None) -> Any:
        def turned(leaf: Any) -> Any:
            parts = jnp.split(leaf, 3, -1)
            return jnp.concatenate([parts[1], parts[0], parts[2]], -1)

        weights = [params[name] for name in ("kernel", "recurrent_kernel", "bias")]
        weights = list(map(turned, weights)) if kind == "GRU" else weights
        others = [variable.value for variable in layer.non_trainable_variables]
        return layer.stateless_call(weights, others, x, mask=mask)[0]

    return function


@pytest.mark.sampled
@pytest.mark.parametrize("backward", [False, True])
def test_a_reset_before_the_product_is_that_of_keras(
    backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    x, layer = normal(0, SHAPE), dl.GRU(FEATURES, False, backward, reset_after=False)
    params = drawn(layer, x)
    assert "recurrent_bias" not in params
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras_layer("GRU", params, reset_after=False, go_backwards=backward)
        expected = jax.value_and_grad(lambda p, x: jnp.sin(theirs(p, x)).sum(), (0, 1))(
            params, x
        )
    ours = jax.value_and_grad(lambda p, x: jnp.sin(layer.apply(p, {}, x)[0]).sum(), (0, 1))(
        params, x
    )
    close(ours, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTM", "SimpleRNN", "GRU"])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
def test_masks_with_holes_are_those_of_keras(
    kind: str, backward: bool, sequence: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    own = {"reset_after": False} if kind == "GRU" else {}
    body = getattr(dl, kind)(FEATURES, sequence, backward, **own)
    x, mask = normal(0, SHAPE), jnp.asarray(MASK)
    params = drawn(body, x)
    options = {
        "return_sequences": sequence,
        "go_backwards": backward,
        # Keras's last output is then a zero where the last step is left out.
        "zero_output_for_mask": sequence,
        **own,
    }
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs = keras_layer(kind, params, **options)

        def weighed(params: Any, x: Any) -> Any:
            y = theirs(params, x, mask)
            y = y[:, ::-1] if backward and sequence else y  # Keras leaves them reversed
            return jnp.sum(y * normal(5, y.shape)), y

        expected = jax.value_and_grad(weighed, (0, 1), has_aux=True)(params, x)

    def ours(params: Any, x: Any) -> Any:
        y, _ = dl.Masked(body).apply({"body": params}, {}, (x, mask))
        return jnp.sum(y * normal(5, y.shape)), y

    close(jax.value_and_grad(ours, (0, 1), has_aux=True)(params, x), expected)


@pytest.mark.slow
def test_steps_that_a_mask_leaves_out_may_be_anything() -> None:
    """One sequence at a time, without them."""
    x = np.array(normal(0, SHAPE))
    x[~MASK] = np.nan
    layer = dl.Masked(dl.Sequential(dl.Dense(3), dl.Bidirectional(dl.GRU(FEATURES))))
    params = drawn(layer, x)
    y, _ = layer.apply(params, {}, (x, MASK))
    assert y.shape == (BATCH, TIME, 2 * FEATURES)
    for row, counts in enumerate(MASK):
        alone, _ = layer.body.apply(params["body"], {}, x[row : row + 1, counts])
        close(y[row, counts], alone[0], 1e-6)
        assert not y[row, ~counts].any()


@pytest.mark.slow
def test_a_mask_that_counts_nothing_gives_zeros() -> None:
    layer = dl.Masked(dl.LSTM(FEATURES, sequence=False))
    x = normal(0, SHAPE)
    y, _ = layer.apply(drawn(layer, x), {}, (x, jnp.zeros((BATCH, TIME), bool)))
    assert not y.any()
