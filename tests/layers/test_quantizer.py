"""Vector quantization against the same in PyTorch, with its gradients, and moving averages against their equations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from tests.layers.oracles import close, normal

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
TRAIN = dl.Train(KEY)
Quantizer: Any = dl.VectorQuantizer  # for arguments that a type checker refuses


@functools.partial(jax.jit, static_argnums=0)
def apply(layer: Any, params: Any, state: Any, x: Any, mode: Any = TRAIN) -> Any:
    return layer.apply(params, state, x, mode)


def brute(x: Any, codes: Any) -> np.ndarray:
    """The nearest codes, from all differences in float64."""
    x, codes = np.asarray(x, np.float64), np.asarray(codes, np.float64)
    return np.square(x[..., None, :] - codes).sum(-1).argmin(-1)


def test_gradients_and_losses_are_those_of_the_paper_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    layer = Quantizer(7, commitment=0.4)
    x, weights = normal(0, (3, 4, 5)), normal(1, (3, 4, 5))
    shares = jnp.array([0.5, 0.2, 0.3])
    params = {"embedding": normal(2, (7, 5))}

    @jax.jit
    def objective(params: Any, x: Any) -> Any:
        y, new = layer.apply(params, {}, x, TRAIN)
        added = new["losses"]
        total = sum((shares * each).sum() for each in added.values())
        return jnp.sum(weights * jnp.sin(y)) + total, (y, added)

    gradient = jax.grad(objective, argnums=(0, 1), has_aux=True)
    (by_params, by_x), (y, added) = gradient(params, x)
    codes = torch.tensor(np.array(params["embedding"]), requires_grad=True)
    given = torch.tensor(np.array(x), requires_grad=True)
    nearest = torch.cdist(given.detach(), codes.detach()).argmin(-1)
    quantized = codes[nearest]
    straight = given + (quantized - given).detach()
    first = (given.detach() - quantized).pow(2).sum(-1).mean(1)
    second = 0.4 * (given - quantized.detach()).pow(2).sum(-1).mean(1)
    objective_there = (torch.tensor(np.array(weights)) * straight.sin()).sum()
    (objective_there + (torch.tensor(np.array(shares)) * (first + second)).sum()).backward()
    np.testing.assert_array_equal(layer.indices(params, {}, x), nearest.numpy())
    np.testing.assert_array_equal(y, quantized.detach().numpy())
    close(
        added, {"codebook": first.detach().numpy(), "commitment": second.detach().numpy()}, 2e-6
    )
    close(by_x, given.grad.numpy(), 2e-6)
    close(by_params["embedding"], codes.grad.numpy(), 2e-6)
    straight_through = jax.grad(lambda x: apply(layer, params, {}, x)[0].sum())(x)
    np.testing.assert_array_equal(straight_through, np.ones_like(x))


def test_averages_are_their_equations_over_several_batches() -> None:
    layer = Quantizer(4, decay=0.9, epsilon=0.01)
    params, state = layer.init(KEY, jnp.ones((1, 3, 2)))
    assert params == {}
    codes = np.asarray(state["embedding"], np.float64)
    counts, sums = np.ones(4), codes.copy()
    for seed in range(4):
        x = normal(seed, (5, 3, 2))
        index = brute(x, codes)
        y, new = apply(layer, params, state, x)
        np.testing.assert_array_equal(y, np.asarray(state["embedding"])[index])
        close(
            new["losses"],
            {"commitment": 0.25 * np.square(x - codes[index]).sum(-1).mean(1)},
        )
        for code in range(4):
            rows = np.asarray(x, np.float64)[index == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(rows)
            sums[code] = 0.9 * sums[code] + 0.1 * rows.sum(0)
        size = counts.sum()
        codes = sums / ((counts + 0.01) / (size + 4 * 0.01) * size)[:, None]
        state = {name: new[name] for name in ("embedding", "counts", "sums")}
        close(state, {"embedding": codes, "counts": counts, "sums": sums}, 2e-6)


def test_at_first_averages_are_the_codes() -> None:
    """A batch of which each code is the nearest of itself moves none."""
    layer = Quantizer(6, decay=0.5, epsilon=1e-3)
    params, state = layer.init(KEY, jnp.ones((1, 3)))
    _, new = apply(layer, params, state, state["embedding"])
    close(new["embedding"], state["embedding"], 1e-6)


@pytest.mark.parametrize("offset", [0.0, 1e3, -3e4])
def test_the_nearest_is_found_far_from_the_origin(offset: float) -> None:
    """Where the squares would be rounded by more than the distances are."""
    codes = normal(0, (50, 8)) + offset
    x = normal(1, (200, 8)) + offset
    found = np.asarray(Quantizer(50).indices({"embedding": codes}, {}, x))
    distances = np.sqrt(
        np.square(np.asarray(x, np.float64) - np.asarray(codes, np.float64)[found]).sum(-1)
    )
    best = np.asarray(codes, np.float64)[brute(x, codes)]
    least = np.sqrt(np.square(np.asarray(x, np.float64) - best).sum(-1))
    np.testing.assert_allclose(distances, least, rtol=1e-5)
    assert found.dtype == np.int32


def test_of_equally_near_codes_it_is_the_first_and_of_nan_none() -> None:
    layer = Quantizer(3)
    params = {"embedding": jnp.array([[2.0], [0.0], [0.0]])}
    x = jnp.array([[1.0], [0.0], [jnp.nan], [jnp.inf]])
    np.testing.assert_array_equal(layer.indices(params, {}, x), [0, 1, -1, -1])
    for mode in (dl.Eval(), TRAIN):
        y, _ = apply(layer, params, {}, x, mode)
        np.testing.assert_array_equal(y[:, 0], [2.0, 0.0, np.nan, np.nan])


@pytest.mark.parametrize("decay", [None, 0.9])
def test_padding_changes_no_bit(decay: float | None) -> None:
    layer = Quantizer(5, decay=decay)
    outer = dl.Sequential(dl.Dense(4), layer)  # whose bias fills the padding anew
    lengths = jnp.array([2, 5, 0])
    values = normal(0, (3, 5, 4))
    params, state = outer.init(KEY, dl.Padded(values, lengths))
    is_padding = ~np.asarray(dl.Padded(values, lengths).mask)

    @jax.jit
    def measure(params: Any, values: Any) -> Any:
        def objective(params: Any) -> Any:
            y, new = outer.apply(params, state, dl.Padded(values, lengths), TRAIN)
            own = new["vector_quantizer_0"]
            kept = jnp.where(is_padding[..., None], 0, y.values)
            total = sum(each.sum() for each in own["losses"].values())
            return (kept**2).sum() + total, (kept, own)

        return jax.grad(objective, has_aux=True)(params)

    first = measure(params, values)
    for filling in (7.0, np.nan):
        filled = np.asarray(values).copy()
        filled[is_padding] = filling
        jax.tree.map(np.testing.assert_array_equal, first, measure(params, filled))
    kept, own = first[1]
    assert own["losses"]["commitment"][2] == 0
    for row, length in ((0, 2), (1, 5)):
        alone, new = apply(outer, params, state, values[row : row + 1, :length])
        close(kept[row, :length], alone[0])
        each = jax.tree.map(lambda leaf: leaf[0], new["vector_quantizer_0"]["losses"])
        close(jax.tree.map(lambda leaf, r=row: leaf[r], own["losses"]), each)
    if decay is not None:
        alone = jnp.asarray(values)[~is_padding]
        _, new = apply(outer, params, state, alone)
        expected = {name: new["vector_quantizer_0"][name] for name in ("counts", "sums")}
        close({name: own[name] for name in expected}, expected, 1e-6)


def test_examples_and_shards_add_up() -> None:
    """Rows that fill a batch do not count, the shards of one do, and of no row nothing moves."""
    layer = Quantizer(5, decay=0.9)
    params, state = layer.init(KEY, jnp.ones((1, 3)))
    x = normal(0, (8, 3))
    mask = jnp.arange(8) % 3 > 0
    whole = apply(layer, params, state, x[mask])[1]
    masked = apply(layer, params, state, x, dl.Train(KEY, mask))[1]

    def part(x: Any, mask: Any) -> Any:
        return layer.apply(params, state, x, dl.Train(KEY, mask, "devices"))[1]

    shards = jax.jit(jax.vmap(part, axis_name="devices"))(
        x.reshape(2, 4, 3), mask.reshape(2, 4)
    )
    for name in state:
        close(masked[name], whole[name], 1e-6)
        close(shards[name], jnp.stack([whole[name]] * 2), 1e-6)
    none = apply(layer, params, state, x, dl.Train(KEY, jnp.zeros(8, bool)))[1]
    for name, leaf in state.items():
        np.testing.assert_array_equal(none[name], leaf)


def test_codes_are_looked_up_by_their_indices() -> None:
    for decay in (None, 0.5):
        layer = Quantizer(5, decay=decay, dtype="bfloat16")
        params, state = layer.init(KEY, jnp.ones((1, 2, 3)))
        x = normal(0, (2, 4, 3))
        index = layer.indices(params, state, x)
        y, _ = layer.apply(params, state, x)
        assert y.dtype == jnp.bfloat16
        np.testing.assert_array_equal(layer.lookup(params, state, index), y)
        padded = layer.indices(params, state, dl.Padded(x, jnp.array([2, 4])))
        assert isinstance(padded, dl.Padded)
        np.testing.assert_array_equal(padded.values, index)
        assert layer.lookup(params, state, padded).shape == (2, 4, 3)
    assert np.isnan(layer.lookup(params, state, np.array([5])).astype(jnp.float32)).all()
    images = np.full((1, 2, 3), 255, np.uint8)
    np.testing.assert_array_equal(
        layer.indices(params, state, images), layer.indices(params, state, images / 255)
    )
    read, _ = layer.decode(params, state, {}, x, dl.Span(jnp.int32(0), 4))
    np.testing.assert_array_equal(read, y)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_codes_find_the_centres_of_data(decay: float | None) -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]], np.float32)
    x = np.repeat(centres, 64, 0) + rng.normal(0, 0.1, (256, 2)).astype(np.float32)
    layer = Quantizer(4, decay=decay, commitment=0.0)
    first = {"embedding": jnp.asarray(0.3 * centres)}
    if decay is None:
        initial: Any = (first, {})
    else:
        initial = ({}, {**first, "counts": jnp.ones(4), "sums": jnp.copy(first["embedding"])})
    run = dl.fit(
        dl.Sequential(quantizer=layer),
        (x, x),
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.5),
        epochs=15,
        batch_size=64,
        initial=tuple({"quantizer": tree} if tree else {} for tree in initial),
        progress=False,
    )
    tree = run.params if decay is None else run.state
    np.testing.assert_allclose(tree["quantizer"]["embedding"], centres, atol=0.1)
    assert ("codebook" in run.history) == (decay is None)
    assert run.history["loss"][-1] < 0.04  # the noise, in two terms


@pytest.mark.slow
@pytest.mark.parametrize("decay", [None, 0.9])
def test_it_trains_in_bfloat16(decay: float | None) -> None:
    x = np.array(normal(0, (64, 6)))
    model = dl.Sequential(dl.Dense(4), Quantizer(8, decay=decay), dl.Dense(6))
    options: Any = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.sgd(0.05),
        "epochs": 2,
        "progress": False,
    }
    half = dl.fit(model, (x, x), precision="bfloat16", **options)
    full = dl.fit(model, (x, x), **options)
    np.testing.assert_allclose(half.history["loss"], full.history["loss"], rtol=0.05)
    leaves = jax.tree.leaves((half.params, half.state))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_arguments_and_inputs_are_checked(unchecked: None) -> None:
    for arguments, options, message in (
        ((0,), {}, "codes is a whole number of at least 1"),
        ((4,), {"decay": 1.0}, "decay is a probability in"),
        ((4,), {"commitment": -1.0}, "commitment is a finite number of at least 0"),
        ((4,), {"embedding_init": 3}, "embedding_init is an initializer"),
    ):
        with pytest.raises(dl.LayerError, match=message):
            Quantizer(*arguments, **options)
    layer = Quantizer(4)
    x = jnp.ones((2, 3))
    params, state = layer.init(KEY, x)
    with pytest.raises(dl.LayerError, match="expected 3 features, as at init, got 2"):
        layer.apply(params, state, x[:, :2])
    with pytest.raises(dl.LayerError, match="expected indices of an integer dtype"):
        layer.lookup(params, state, x)
    with pytest.raises(dl.LayerError, match="among them 'embedding'"):
        Quantizer(4, decay=0.9).apply(params, state, x)
