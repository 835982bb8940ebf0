"""Recurrent layers against PyTorch, Keras and Flax on the same weights; padded sequences against the sequences one by one."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import ks_2samp

import jaxdl as dl

BATCH, TIME, INPUTS, FEATURES = 3, 5, 4, 6
LENGTHS = np.array([5, 2, 4], np.int32)
LAYERS = [dl.SimpleRNN, dl.LSTM, dl.GRU]
every_layer = pytest.mark.parametrize("kind", LAYERS)
pytestmark = pytest.mark.usefixtures("quickly_compiled")


def data(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(BATCH, TIME, INPUTS)).astype(np.float32)


def drawn(layer: Any, x: Any, seed: int = 0) -> Any:
    """Parameters of which no bias is 0."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x))[0]
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), leaf.dtype), shapes
    )


def close(a: Any, b: Any, tolerance: float = 2e-5) -> None:
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


def weighed(y: Any) -> Any:
    return jnp.sum(jnp.sin(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape) * y)


def torch_module(torch: Any, kind: Any, params: Any, bidirectional: bool = False) -> Any:
    module = {dl.SimpleRNN: torch.nn.RNN, dl.LSTM: torch.nn.LSTM, dl.GRU: torch.nn.GRU}[kind]
    module = module(INPUTS, FEATURES, batch_first=True, bidirectional=bidirectional)
    ends = (
        {"": params["forward"], "_reverse": params["backward"]}
        if bidirectional
        else {"": params}
    )
    for end, own in ends.items():
        second = np.zeros(own["bias"].shape, np.float32)
        if kind is dl.GRU:
            second[2 * FEATURES :] = own["recurrent_bias"]
        weights = {
            "weight_ih": own["kernel"].T,
            "weight_hh": own["recurrent_kernel"].T,
            "bias_ih": own["bias"],
            "bias_hh": second,
        }
        for name, value in weights.items():
            getattr(module, f"{name}_l0{end}").data = torch.tensor(np.array(value))
    return module


@pytest.mark.sampled
@every_layer
def test_states_and_gradients_equal_those_of_pytorch(kind: Any) -> None:
    torch = pytest.importorskip("torch")
    x, layer = data(), kind(FEATURES, carry=True)
    params = drawn(layer, (x, None))
    first = np.random.default_rng(1).normal(size=(2, BATCH, FEATURES)).astype(np.float32)
    carry = (
        (jnp.asarray(first[0]), jnp.asarray(first[1]))
        if kind is dl.LSTM
        else jnp.asarray(first[0])
    )

    module, tx = torch_module(torch, kind, params), torch.tensor(x, requires_grad=True)
    begun = (
        tuple(torch.tensor(f[None]) for f in first)
        if kind is dl.LSTM
        else torch.tensor(first[0][None])
    )
    expected, last = module(tx, begun)
    torch.sum(
        torch.sin(torch.arange(expected.numel(), dtype=torch.float32)).reshape(expected.shape)
        * expected
    ).backward()

    def objective(params: Any, x: Any) -> Any:
        (y, last), _ = layer.apply(params, {}, (x, carry))
        return weighed(y), (y, last)

    (by_params, by_x), (y, ours_last) = jax.grad(objective, (0, 1), has_aux=True)(
        params, jnp.asarray(x)
    )
    close(y, expected.detach().numpy())
    close(
        jax.tree.leaves(ours_last),
        [leaf.detach().numpy()[0] for leaf in (last if kind is dl.LSTM else (last,))],
    )
    close(by_x, tx.grad.numpy())
    close(by_params["kernel"], module.weight_ih_l0.grad.numpy().T)
    close(by_params["recurrent_kernel"], module.weight_hh_l0.grad.numpy().T)
    close(by_params["bias"], module.bias_ih_l0.grad.numpy())
    if kind is dl.GRU:
        close(by_params["recurrent_bias"], module.bias_hh_l0.grad.numpy()[2 * FEATURES :])


@pytest.mark.sampled
@every_layer
def test_bidirectional_padded_sequences_equal_those_of_pytorch(kind: Any) -> None:
    torch = pytest.importorskip("torch")
    x, layer = data(), dl.Bidirectional(kind(FEATURES))
    params = drawn(layer, x)
    module = torch_module(torch, kind, params, bidirectional=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), LENGTHS, batch_first=True, enforce_sorted=False
    )
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(
        module(packed)[0], batch_first=True, total_length=TIME
    )
    y, _ = layer.apply(params, {}, dl.Padded(jnp.asarray(x), jnp.asarray(LENGTHS)))
    assert isinstance(y, dl.Padded)
    close(y.values, expected.detach().numpy())


def keras_weights(kind: Any, params: Any) -> list[np.ndarray]:
    weights = [np.array(params[name]) for name in ("kernel", "recurrent_kernel", "bias")]
    if kind is not dl.GRU:
        return weights
    second = np.concatenate([np.zeros(2 * FEATURES, np.float32), params["recurrent_bias"]])
    weights = [*weights[:2], np.stack([weights[2], second])]
    return [
        np.concatenate([np.split(w, 3, -1)[part] for part in (1, 0, 2)], -1) for w in weights
    ]  # Keras has z, r, n


@pytest.mark.slow
@every_layer
@pytest.mark.parametrize("backward", [False, True])
def test_masked_sequences_equal_those_of_keras(
    kind: Any, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    x, layer = data(), kind(FEATURES, sequence=False, backward=backward)
    params = drawn(layer, x)
    theirs = getattr(keras.layers, kind.__name__)(FEATURES, go_backwards=backward)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs.build(x.shape)
        theirs.set_weights(keras_weights(kind, params))
        expected = np.asarray(theirs(x))
        short = np.concatenate(
            [np.asarray(theirs(x[i : i + 1, :n])) for i, n in enumerate(LENGTHS)]
        )
    close(layer.apply(params, {}, jnp.asarray(x))[0], expected)
    close(layer.apply(params, {}, dl.Padded(jnp.asarray(x), jnp.asarray(LENGTHS)))[0], short)


def flax_cell(kind: Any, params: Any) -> tuple[Any, Any]:
    kernels, recurrent = (
        jnp.split(params[name], kind.gates, -1) for name in ("kernel", "recurrent_kernel")
    )
    biases = jnp.split(params["bias"], kind.gates)
    if kind is dl.SimpleRNN:
        tree = {"i": {"kernel": kernels[0], "bias": biases[0]}, "h": {"kernel": recurrent[0]}}
        return nn.SimpleCell(FEATURES), tree
    names = "ifgo" if kind is dl.LSTM else "rzn"
    tree = {f"i{name}": {"kernel": k} for name, k in zip(names, kernels, strict=True)}
    tree |= {f"h{name}": {"kernel": k} for name, k in zip(names, recurrent, strict=True)}
    for name, bias in zip(names, biases, strict=True):
        tree[f"{'h' if kind is dl.LSTM else 'i'}{name}"]["bias"] = bias
    if kind is dl.GRU:
        tree["hn"]["bias"] = params["recurrent_bias"]
        return nn.GRUCell(FEATURES), tree
    return nn.OptimizedLSTMCell(FEATURES), tree


@pytest.mark.sampled
@every_layer
def test_states_and_gradients_equal_those_of_flax(kind: Any) -> None:
    x, layer = jnp.asarray(data()), kind(FEATURES)
    params = drawn(layer, x)
    cell, _ = flax_cell(kind, params)

    def theirs(params: Any, x: Any) -> Any:
        return weighed(
            nn.RNN(cell).apply(
                {"params": {"cell": flax_cell(kind, params)[1]}},
                x,
                seq_lengths=jnp.asarray(LENGTHS),
            )
        )

    def ours(params: Any, x: Any) -> Any:
        return weighed(layer.apply(params, {}, x)[0])

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = jax.value_and_grad(theirs, (0, 1))(params, x)
    close(jax.value_and_grad(ours, (0, 1))(params, x), expected)


@pytest.mark.slow
@every_layer
@pytest.mark.parametrize(
    "options",
    [{}, {"backward": True}, {"sequence": False}, {"sequence": False, "backward": True}],
    ids=str,
)
def test_a_padded_batch_gives_what_its_sequences_give_one_by_one(
    kind: Any, options: dict[str, bool]
) -> None:
    """Outputs and gradients, whatever lies in the padding."""
    x, layer = data(), kind(FEATURES, carry=True, **options)
    x[np.arange(TIME)[None] >= LENGTHS[:, None]] = np.inf
    params = drawn(layer, (x, None))

    def summed(params: Any, x: Any) -> Any:
        (y, last), _ = layer.apply(params, {}, (x, None))
        values = y.values if isinstance(y, dl.Padded) else y
        return jnp.sum(jnp.sin(values)) + sum(
            jnp.sum(jnp.cos(leaf)) for leaf in jax.tree.leaves(last)
        )

    def one_by_one(params: Any) -> Any:
        return sum(summed(params, jnp.asarray(x[i : i + 1, :n])) for i, n in enumerate(LENGTHS))

    def padded(params: Any) -> Any:
        return summed(params, dl.Padded(jnp.asarray(x), jnp.asarray(LENGTHS)))

    close(jax.value_and_grad(padded)(params), jax.value_and_grad(one_by_one)(params), 1e-4)


@pytest.mark.sampled
@every_layer
def test_an_empty_sequence_gives_zeros_and_the_state_it_began_with(kind: Any) -> None:
    layer = kind(FEATURES, carry=True)
    x = dl.Padded(jnp.ones((2, TIME, INPUTS)), jnp.array([0, TIME]))
    params = drawn(layer, (x, None))
    first = jax.tree.map(lambda leaf: leaf + 0.5, layer.first(2, jnp.float32))
    (y, last), _ = layer.apply(params, {}, (x, first))
    assert not y.values[0].any()
    for leaf in jax.tree.leaves(last):
        np.testing.assert_array_equal(leaf[0], np.full(FEATURES, 0.5, np.float32))


@pytest.mark.sampled
@every_layer
def test_a_sequence_in_two_pieces_ends_where_it_ends_in_one(kind: Any) -> None:
    x, layer = jnp.asarray(data()), kind(FEATURES, carry=True)
    params = drawn(layer, (x, None))
    (whole, last), _ = layer.apply(params, {}, (x, None))
    (early, between), _ = layer.apply(params, {}, (x[:, :2], None))
    (late, end), _ = layer.apply(params, {}, (x[:, 2:], between))
    close(jnp.concatenate([early, late], 1), whole, 1e-6)
    close(end, last, 1e-6)


@pytest.mark.sampled
@every_layer
def test_a_sequence_read_piece_by_piece_gives_the_states_of_the_whole(kind: Any) -> None:
    x, layer = jnp.asarray(data()), kind(FEATURES)
    params = drawn(layer, x)
    early, cache = layer.decode(params, {}, {}, x[:, :2], dl.Span(jnp.int32(0), TIME))
    late, _ = layer.decode(params, {}, cache, x[:, 2:], dl.Span(jnp.int32(2), TIME))
    close(jnp.concatenate([early, late], 1), layer.apply(params, {}, x)[0], 1e-6)
    with pytest.raises(dl.LayerError, match="it reads a sequence step by step only forwards"):
        kind(FEATURES, backward=True).decode(params, {}, {}, x, dl.Span(jnp.int32(0), TIME))


def test_input_dropout_is_one_mask_for_all_steps() -> None:
    layer = dl.SimpleRNN(FEATURES, dropout=0.5)
    x = jnp.ones((BATCH, TIME, INPUTS))
    params = drawn(layer, x)
    params["recurrent_kernel"] = jnp.zeros_like(
        params["recurrent_kernel"]
    )  # so that a step is what its own input makes it
    y, _ = layer.apply(params, {}, x, dl.Train(jax.random.key(0)))
    close(y, jnp.broadcast_to(y[:, :1], y.shape), 1e-6)
    assert not jnp.allclose(y[0, 0], y[1, 0])


def test_recurrent_dropout_is_one_mask_for_all_steps() -> None:
    """h grows by the same factor at each step, 1 / (1 − rate) where the mask is one, and starts anew where it is zero."""
    layer = dl.SimpleRNN(
        FEATURES, recurrent_dropout=0.5, activation=jax.nn.relu, use_bias=False
    )
    params = {"kernel": jnp.ones((INPUTS, FEATURES)), "recurrent_kernel": jnp.eye(FEATURES)}
    y, _ = layer.apply(params, {}, jnp.ones((BATCH, TIME, INPUTS)), dl.Train(jax.random.key(0)))
    kept = y[:, 1] > INPUTS
    sums = jnp.cumsum(2.0 ** jnp.arange(TIME, dtype=jnp.float32)) * INPUTS
    close(y, jnp.where(kept[:, None], sums[None, :, None], INPUTS), 1e-6)
    assert 0 < int(kept.sum()) < kept.size


def test_the_forget_gate_begins_open() -> None:
    params, _ = dl.LSTM(FEATURES).init(jax.random.key(0), data())
    np.testing.assert_array_equal(
        params["bias"], np.repeat([0.0, 1.0, 0.0, 0.0], FEATURES).astype(np.float32)
    )


@pytest.mark.slow
@every_layer
def test_initial_parameters_are_distributed_as_those_of_keras(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their limits, their distribution by the Kolmogorov–Smirnov test, and the biases to the bit."""
    inputs, features, shape = 48, 64, (1, TIME, 48)
    params, _ = kind(features).init(jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    kernel, recurrent_kernel, bias = keras_initial(kind, features, shape, monkeypatch)
    limit = (6 / (inputs + kind.gates * features)) ** 0.5
    for drawn in (params["kernel"], kernel):
        assert 0.99 * limit < np.abs(drawn).max() <= limit
    assert ks_2samp(params["kernel"].ravel(), kernel.ravel()).pvalue > 0.01
    assert ks_2samp(params["recurrent_kernel"].ravel(), recurrent_kernel.ravel()).pvalue > 0.01
    np.testing.assert_array_equal(params["bias"], bias.reshape(-1)[: kind.gates * features])
    np.testing.assert_array_equal(params.get("recurrent_bias", 0.0), 0.0)


@pytest.mark.sampled
@every_layer
def test_the_recurrent_kernel_is_orthogonal_over_all_gates_at_once(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, _ = kind(FEATURES).init(jax.random.key(0), data())
    _, theirs, _ = keras_initial(kind, FEATURES, data().shape, monkeypatch)
    for drawn in (np.float64(params["recurrent_kernel"]), np.float64(theirs)):
        assert drawn.shape == (FEATURES, kind.gates * FEATURES)
        np.testing.assert_allclose(drawn @ drawn.T, np.eye(FEATURES), atol=1e-6)


def keras_initial(
    kind: Any, features: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> list[np.ndarray]:
    """Kernel, recurrent kernel and bias of Keras's layer; its bias of `GRU` has a row for each side of the product."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layer = getattr(keras.layers, kind.__name__)(features)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        layer.build(shape)
        return [np.asarray(weight.value) for weight in layer.trainable_weights]


def test_a_narrow_recurrent_kernel_is_drawn_in_float32_and_rounded() -> None:
    params, _ = dl.LSTM(FEATURES, param_dtype=jnp.bfloat16).init(jax.random.key(0), data())
    wide, _ = dl.LSTM(FEATURES).init(jax.random.key(0), data())
    np.testing.assert_array_equal(
        params["recurrent_kernel"], wide["recurrent_kernel"].astype(jnp.bfloat16)
    )


@pytest.mark.slow
def test_it_learns_inside_fit() -> None:
    """Which of two sequences is longer before its padding: only the lengths tell."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 256).astype(np.int32)
    x = dl.Padded(np.ones((256, 8, 1), np.float32), lengths)
    labels = (lengths > 4).astype(np.int32)
    model = dl.Sequential(dl.GRU(8, sequence=False), dl.Dense(1))
    fit = functools.partial(
        dl.fit,
        model,
        (x, labels),
        loss=dl.losses.binary_cross_entropy,
        progress=False,
        batch_size=32,
    )
    run = fit(optimizer=optax.adam(0.02), epochs=30, metrics={"accuracy": dl.metrics.accuracy})
    assert run.history["accuracy"][-1] > 0.98


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: dl.LSTM(0), "LSTM: features is a whole number of at least 1, got 0."),
        (
            lambda: dl.GRU(3, dropout=1.0),
            r"GRU: dropout is a probability in \[0, 1\), got 1.0.",
        ),
        (
            lambda: dl.Bidirectional(dl.LSTM(3, backward=True)),
            "Bidirectional: expected a forward recurrent layer",
        ),
        (
            lambda: dl.Bidirectional(dl.LSTM(3), combine="mean"),
            "combine is 'concatenate' or 'add', got 'mean'",
        ),
        (
            lambda: dl.LSTM(3).init(jax.random.key(0), jnp.ones((2, 3))),
            r"LSTM: expected \[batch, time, features\], got shape \(2, 3\)",
        ),
        (
            lambda: dl.GRU(3, carry=True).init(jax.random.key(0), data()),
            "with carry=True the input is a pair",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(dl.LayerError, match=message):
        wrong()


@pytest.mark.sampled
@every_layer
def test_a_first_state_of_another_shape_is_refused(kind: Any) -> None:
    layer = kind(FEATURES, carry=True)
    params = drawn(layer, (data(), None))
    with pytest.raises(dl.LayerError, match="expected a first state of shape"):
        layer.apply(
            params,
            {},
            (data(), jax.tree.map(lambda leaf: leaf[:1], layer.first(BATCH, jnp.float32))),
        )
    with pytest.raises(dl.LayerError, match="expected 4 features, as at init, got 3"):
        layer.apply(params, {}, (data()[..., :3], None))
