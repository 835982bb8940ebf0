"""A mixture of experts against a loop over tokens in PyTorch, and its losses against closed forms."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses
from jaxdl.core.keys import fold_in, fold_in_name
from jaxdl.core.tree import named_leaves
from tests.layers.oracles import close, normal

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(0)
TRAIN = dl.Train(KEY)
EXPERT = dl.Sequential(hidden=dl.Dense(7), activation=jnp.tanh, out=dl.Dense(3))
Mixture: Any = dl.MixtureOfExperts  # for arguments that a type checker refuses


@functools.partial(jax.jit, static_argnums=0)
def apply(layer: Any, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
    return layer.apply(params, state, x, mode)


@functools.partial(jax.jit, static_argnums=0)
def init(layer: Any, x: Any) -> Any:
    return layer.init(KEY, x)


def drawn(layer: Any, x: Any, seed: int = 0) -> Any:
    """Parameters with biases that are not 0, and a router that decides."""
    params, state = init(layer, x)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(rng.normal(0, 0.5, leaf.shape), leaf.dtype), params
    )
    return params, state


def by_token(torch: Any, layer: Any, params: Any, x: Any) -> tuple[Any, Any, Any]:
    """Outputs, the balance and the z-loss, token by token."""
    count, k = layer.experts, layer.top_k
    tokens = x.reshape(-1, x.shape[-1])
    factor = layer.capacity_factor
    capacity = math.inf if factor is None else math.ceil(factor * k * len(tokens) / count)
    logits = [token @ params["router.kernel"] for token in tokens]
    likely = [torch.softmax(each, 0) for each in logits]
    ranked = [
        sorted(range(count), key=lambda e, p=p: -float(p[e].detach()))[:k] for p in likely
    ]
    used = [0] * count
    outputs = [torch.zeros(3) for _ in tokens]
    for choice in range(k):
        for number, token in enumerate(tokens):
            expert = ranked[number][choice]
            used[expert] += 1
            if used[expert] > capacity:
                continue
            part = {name: leaf[expert] for name, leaf in params.items() if "experts" in name}
            hidden = torch.tanh(
                token @ part["experts.hidden.kernel"] + part["experts.hidden.bias"]
            )
            y = hidden @ part["experts.out.kernel"] + part["experts.out.bias"]
            gate = likely[number][expert]
            if k > 1:
                gate = gate / sum(likely[number][e] for e in ranked[number])
            outputs[number] = outputs[number] + gate * y
    fractions = [uses / sum(used) for uses in used]
    means = sum(likely) / len(tokens)
    balance = count * sum(f * p for f, p in zip(fractions, means, strict=True))
    z = sum(torch.logsumexp(each, 0) ** 2 for each in logits) / len(tokens)
    return torch.stack(outputs).reshape(*x.shape[:-1], 3), balance, z


@pytest.mark.parametrize("capacity_factor", [None, 0.6, 1.0])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_a_mixture_is_a_loop_over_tokens(top_k: int, capacity_factor: float | None) -> None:
    """Outputs, losses, and the gradients of all of them."""
    torch = pytest.importorskip("torch")
    layer = Mixture(EXPERT, 4, top_k, capacity_factor=capacity_factor, balance=0.3, z_loss=0.2)
    x, weights = normal(0, (3, 5, 6)), normal(1, (3, 5, 3))
    params, state = drawn(layer, x)

    @jax.jit
    def objective(params: Any, x: Any) -> Any:
        y, new = apply(layer, params, state, x, TRAIN)
        added = new["losses"]
        return jnp.sum(weights * y) + added["balance"] + added["router_z"], (y, added)

    gradient = jax.grad(objective, argnums=(0, 1), has_aux=True)
    (by_params, by_x), (y, added) = gradient(params, x)
    leaves = {
        name: torch.tensor(np.array(leaf), requires_grad=True)
        for name, leaf in named_leaves(params).items()
    }
    given = torch.tensor(np.array(x), requires_grad=True)
    expected, balance, z = by_token(torch, layer, leaves, given)
    ((torch.tensor(np.array(weights)) * expected).sum() + 0.3 * balance + 0.2 * z).backward()
    close(y, expected.detach().numpy())
    close(added, {"balance": 0.3 * balance.item(), "router_z": 0.2 * z.item()})
    close(by_x, given.grad.numpy())
    close(named_leaves(by_params), {name: leaf.grad.numpy() for name, leaf in leaves.items()})


def test_even_routing_costs_the_weight_and_one_expert_as_many_times() -> None:
    x = jnp.ones((8, 5))
    for top_k in (1, 3):
        layer = Mixture(dl.Dense(2), 4, top_k, balance=0.25, z_loss=1.0)
        params, state = init(layer, x)
        even = {**params, "router": {"kernel": jnp.zeros((5, 4))}}
        added = apply(layer, even, state, x, TRAIN)[1]["losses"]
        assert added["balance"] == 0.25
        np.testing.assert_allclose(added["router_z"], math.log(4) ** 2, rtol=1e-6)
        sure = {**params, "router": {"kernel": jnp.zeros((5, 4)).at[:, 2].set(20.0)}}
        added = apply(layer, sure, state, x, TRAIN)[1]["losses"]
        np.testing.assert_allclose(added["balance"], 0.25 * 4 / top_k, rtol=1e-6)
        np.testing.assert_allclose(added["router_z"], 100.0**2, rtol=1e-6)


def test_tokens_beyond_the_capacity_add_nothing_in_training() -> None:
    layer = Mixture(dl.Dense(2, bias_init=dl.initializers.Ones()), 4, 1, capacity_factor=0.5)
    x = jnp.ones((16, 3))
    params, state = init(layer, x)
    params = {**params, "router": {"kernel": jnp.zeros((3, 4)).at[:, 1].set(9.0)}}
    kept = np.asarray(apply(layer, params, state, x, TRAIN)[0]).any(1)
    np.testing.assert_array_equal(kept, np.arange(16) < 2)  # 0.5 · 16 / 4
    everywhere = apply(layer, params, state, x)[0]
    assert np.asarray(everywhere).any(1).all()
    without = Mixture(layer.expert, 4, 1)
    close(everywhere, apply(without, params, state, x)[0], 1e-6)
    enough = Mixture(layer.expert, 4, 1, capacity_factor=4.0)
    close(apply(enough, params, state, x, TRAIN)[0], everywhere, 1e-6)


@pytest.mark.parametrize("capacity_factor", [None, 0.7])
def test_padding_changes_no_bit(capacity_factor: float | None) -> None:
    layer = Mixture(EXPERT, 4, 2, capacity_factor=capacity_factor, z_loss=0.1)
    lengths = jnp.array([2, 5, 0])
    outer = dl.Sequential(dl.Dense(6), layer)  # whose bias fills the padding anew
    values = normal(0, (3, 5, 6))
    params, state = init(outer, dl.Padded(values, lengths))

    @jax.jit
    def measure(params: Any, values: Any) -> Any:
        def objective(params: Any) -> Any:
            y, new = apply(outer, params, state, dl.Padded(values, lengths), TRAIN)
            added = new["mixture_of_experts_0"]["losses"]
            return (y.values**2).sum() + sum(added.values()), (y.values, added)

        return jax.grad(objective, has_aux=True)(params)

    is_padding = ~np.asarray(dl.Padded(values, lengths).mask)
    first = measure(params, values)
    for filling in (7.0, np.nan):
        filled = np.asarray(values).copy()
        filled[is_padding] = filling
        jax.tree.map(np.testing.assert_array_equal, first, measure(params, filled))
    assert not np.asarray(first[1][0])[is_padding].any()
    alone = jnp.asarray(values)[~is_padding]
    y, new = apply(outer, params, state, alone, TRAIN)
    close(first[1], (first[1][0], new["mixture_of_experts_0"]["losses"]))
    close(first[1][0][~is_padding], y)


@pytest.mark.parametrize("capacity_factor", [None, 0.6])
def test_rows_that_fill_a_batch_leave_no_trace(capacity_factor: float | None) -> None:
    mixture = Mixture(EXPERT, 4, 2, capacity_factor=capacity_factor, balance=0.3)
    step, _ = dl.make_step(
        dl.Sequential(mixture, dl.Dense(1)),
        losses.mean_squared_error,
        optimizer=optax.sgd(0.1),
    )
    x, y = np.array(normal(0, (5, 6))), np.array(normal(1, (5, 1)))
    state = step.init(KEY, dl.Batch(x, y))
    filled = np.concatenate([x, np.full((4, 6), 50.0, np.float32)])
    targets = np.concatenate([y, np.zeros((4, 1), np.float32)])
    results = [
        jax.jit(step)(state, batch)
        for batch in (
            dl.Batch(x, y),
            dl.Batch(filled, targets, None, jnp.arange(9) < 5),
        )
    ]
    close(results[1][0].params, results[0][0].params, 1e-6)
    reports = [step.report(*measured[:2]) for _, measured in results]
    close(reports[1], reports[0], 1e-6)
    assert "balance" in reports[0]


def test_a_batch_over_devices_is_balanced_as_a_whole() -> None:
    layer = Mixture(EXPERT, 4, 2, z_loss=0.1)
    x = normal(0, (8, 6))
    params, state = drawn(layer, x)
    mask = jnp.arange(8) % 3 > 0

    def part(x: Any, mask: Any) -> Any:
        y, new = layer.apply(params, state, x, dl.Train(KEY, mask, "devices"))
        return y, new["losses"]

    y, added = jax.jit(jax.vmap(part, axis_name="devices"))(
        x.reshape(2, 4, 6), mask.reshape(2, 4)
    )
    whole, new = apply(layer, params, state, x, dl.Train(KEY, mask))
    close(y.reshape(8, 3), whole)
    close(added, jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), new["losses"]), 1e-6)


def test_experts_are_drawn_one_by_one() -> None:
    layer = Mixture(EXPERT, 3)
    x = jnp.ones((2, 4, 6))
    params, _ = init(layer, x)
    more, _ = init(Mixture(EXPERT, 5), x)
    for index in range(3):
        key = fold_in(fold_in_name(KEY, "experts"), index)
        alone, _ = jax.jit(EXPERT.init)(key, jnp.ones((8, 6)))
        for wide in (params, more):
            jax.tree.map(
                np.testing.assert_array_equal,
                jax.tree.map(lambda leaf, i=index: leaf[i], wide["experts"]),
                alone,
            )


@pytest.mark.parametrize("capacity_factor", [None, 4.0])
def test_statistics_of_an_expert_are_those_of_its_tokens(
    capacity_factor: float | None,
) -> None:
    layer = Mixture(dl.BatchNorm(0.5), 3, 1, capacity_factor=capacity_factor, balance=0.0)
    x = normal(0, (12, 4))
    params, state = drawn(layer, x)
    _, new = apply(layer, params, state, x, TRAIN)
    chosen = np.argmax(np.asarray(x) @ np.asarray(params["router"]["kernel"]), axis=1)
    assert set(new) == {"experts"}
    for expert in range(3):
        mean = np.asarray(x)[chosen == expert].mean(0)
        np.testing.assert_allclose(new["experts"]["mean"][expert], 0.5 * mean, atol=1e-6)


def used(layer: Any, params: Any, x: Any) -> np.ndarray:
    """The share of tokens of each expert."""
    chosen = np.argmax(np.asarray(x) @ np.asarray(params["router"]["kernel"]), axis=1)
    return np.bincount(chosen, minlength=layer.experts) / len(x)


def test_with_balance_all_experts_are_used() -> None:
    """From a router that sends nearly all to one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, 6)).astype(np.float32)
    x[:, 0] = 1
    y = np.abs(x[:, 1:2])
    found = {}
    for balance in (0.0, 0.3):
        layer = Mixture(dl.Dense(1), 4, 1, capacity_factor=1.5, balance=balance)
        params, state = init(layer, x)
        kernel = params["router"]["kernel"].at[0, 0].add(5.0)
        run = dl.fit(
            layer,
            (x, y),
            loss=losses.mean_squared_error,
            optimizer="adam",
            learning_rate=0.02,
            epochs=30,
            batch_size=64,
            initial=({**params, "router": {"kernel": kernel}}, state),
            progress=False,
        )
        found[balance] = used(layer, run.params, x)
    assert found[0.0].max() > 0.9
    assert found[0.3].min() > 0.1
    assert run.history["balance"][-1] < 1.2 * 0.3 < run.history["balance"][0]


def test_jitter_is_of_training_alone() -> None:
    x = normal(0, (64, 6))
    plain, noisy = Mixture(EXPERT, 4, 2), Mixture(EXPERT, 4, 2, jitter=0.5)
    params, state = drawn(plain, x)
    np.testing.assert_array_equal(
        apply(noisy, params, state, x)[0], apply(plain, params, state, x)[0]
    )
    first, other = (
        apply(noisy, params, state, x, dl.Train(jax.random.key(seed)))[0] for seed in (1, 2)
    )
    assert not np.array_equal(first, other)


def test_steps_are_read_one_by_one() -> None:
    layer = Mixture(EXPERT, 4, 2, capacity_factor=1.0)
    x = normal(0, (2, 5, 6))
    params, state = drawn(layer, x)
    whole, _ = apply(layer, params, state, x)
    steps = []
    cache: Any = {}
    for start in range(5):
        y, cache = layer.decode(
            params, state, cache, x[:, start : start + 1], dl.Span(jnp.int32(start), 5)
        )
        steps.append(y)
    close(jnp.concatenate(steps, 1), whole, 1e-6)


@pytest.mark.slow
def test_its_weight_is_swept_and_it_computes_in_bfloat16() -> None:
    x = np.array(normal(0, (32, 6)))
    options: Any = {
        "loss": losses.mean_squared_error,
        "optimizer": optax.sgd(0.05),
        "epochs": 2,
        "progress": False,
    }
    runs = dl.sweep(
        lambda balance: Mixture(EXPERT, 4, 2, balance=balance),
        (x, x[:, :3]),
        {"balance": [0.1, 0.2]},
        **options,
    )
    small, large = (run.history["balance"][0] for run in runs)
    assert 1.8 < large / small < 2.2
    layer = Mixture(EXPERT, 4, 2)
    half = dl.fit(layer, (x, x[:, :3]), precision="bfloat16", **options)
    full = dl.fit(layer, (x, x[:, :3]), **options)
    np.testing.assert_allclose(half.history["loss"], full.history["loss"], rtol=0.05)


def test_arguments_and_inputs_are_checked(unchecked: None) -> None:
    for arguments, options, message in (
        ((jnp.tanh,), {}, "expert is a layer with parameters"),
        ((EXPERT, 0), {}, "experts is a whole number of at least 1"),
        ((EXPERT, 4, 5), {}, "top_k is at most the 4 experts, got 5"),
        ((EXPERT,), {"capacity_factor": 0.0}, "capacity_factor is None or a number above 0"),
        ((EXPERT,), {"balance": -1.0}, "balance is a finite number of at least 0"),
        ((EXPERT,), {"jitter": 1.0}, "jitter is a probability in"),
    ):
        with pytest.raises(dl.LayerError, match=message):
            Mixture(*arguments, **options)
    x = jnp.ones((4, 6))
    layer = Mixture(EXPERT, 4)
    params, state = layer.init(KEY, x)
    with pytest.raises(dl.LayerError, match="expected 6 features, as at init, got 5"):
        layer.apply(params, state, x[:, :5])
    with pytest.raises(dl.LayerError, match="among them 'router'"):
        layer.apply({}, state, x)
    with pytest.raises(dl.LayerError, match="a single example needs"):
        layer.apply(params, state, x[0])
    for expert, message in (
        (dl.Sequential(dl.Dense(2), dl.ActivityPenalty(0.1)), "a layer that adds losses"),
        (dl.Sequential(dl.Dense(4), dl.Reshape((2, 2))), r"gave shape \(4, 2, 2\)"),
    ):
        layer = Mixture(expert, 2)
        params, state = layer.init(KEY, x)
        with pytest.raises(dl.LayerError, match=message):
            layer.apply(params, state, x, TRAIN)
