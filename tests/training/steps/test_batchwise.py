"""Losses that mix the examples of a batch, against plain PyTorch on batches that nothing fills up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(4)
X = RNG.normal(size=(40, 6)).astype(np.float32)
Y = RNG.integers(0, 4, 40).astype(np.int32)
WEIGHTS = RNG.uniform(0.2, 2, 40).astype(np.float32)
CLASS_WEIGHTS = (1.0, 0.5, 3.0, 0.0)
MODEL = dl.Sequential(dl.Dense(5), jax.nn.tanh, dl.Dense(3))
RATE, SIZE, EPOCHS = 0.2, 32, 3


def contrastive(outputs, targets, *, mask):
    """Of each example, the mean of − log softmax of its similarity to those of its class, over all other examples."""
    norm = jnp.linalg.norm(outputs, axis=-1, keepdims=True)
    similarity = (outputs / norm) @ (outputs / norm).T / 0.5
    other = ~jnp.eye(len(outputs), dtype=jnp.bool_) & mask[None]
    log_share = jax.nn.log_softmax(jnp.where(other, similarity, -jnp.inf), axis=-1)
    same = (targets[:, None] == targets[None]) & other
    return -jnp.where(same, log_share, 0).sum(-1) / jnp.maximum(same.sum(-1), 1).astype(
        outputs.dtype
    )


def of_batch(outputs, targets, *, mask):
    return jnp.mean(contrastive(outputs, targets, mask=mask), where=mask)


def of_batch_weighted(outputs, targets, *, mask, weights):
    return (contrastive(outputs, targets, mask=mask) * weights).sum() / weights.sum()


def by_torch(outputs, labels):
    """The same of each example, by a loop over the examples."""
    z = outputs / outputs.norm(dim=1, keepdim=True)
    each = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        log_all = torch.logsumexp(torch.stack([z[i] @ z[j] for j in others]) / 0.5, 0)
        terms = [log_all - z[i] @ z[j] / 0.5 for j in others if labels[j] == labels[i]]
        each.append(torch.stack(terms).mean() if terms else torch.zeros((), dtype=z.dtype))
    return torch.stack(each)


@functools.cache
def trained_by_torch(weighted: bool):
    """Each epoch's loss, the loss of all data after it, and the parameters, by gradient descent in float64."""
    params, _ = MODEL.init(jax.random.key(0), X)
    kernels = {
        name: torch.tensor(np.asarray(leaf, np.float64), requires_grad=True)
        for name, leaf in dl.tree.named_leaves(params).items()
    }
    weights = WEIGHTS * np.array(CLASS_WEIGHTS)[Y] if weighted else np.ones(40)

    def mean(rows, weights):
        x, w = torch.tensor(X[rows], dtype=torch.float64), torch.tensor(weights[rows])
        hidden = torch.tanh(x @ kernels["dense_0.kernel"] + kernels["dense_0.bias"])
        each = by_torch(hidden @ kernels["dense_1.kernel"] + kernels["dense_1.bias"], Y[rows])
        return (each * w).sum() / w.sum()

    def over(weights, step):
        total = 0.0
        for rows in (slice(0, SIZE), slice(SIZE, 40)):
            loss = mean(rows, weights)
            total += loss.item() * weights[rows].sum()
            if step:
                gradients = torch.autograd.grad(loss, list(kernels.values()))
                with torch.no_grad():
                    for leaf, gradient in zip(kernels.values(), gradients, strict=True):
                        leaf -= RATE * gradient
        return total / weights.sum()

    found = [
        (over(weights, True), over(WEIGHTS if weighted else np.ones(40), False))
        for _ in range(EPOCHS)
    ]
    return (
        [train for train, _ in found],
        [held for _, held in found],
        {name: leaf.detach().numpy() for name, leaf in kernels.items()},
    )


def fit(data, loss, **options):
    params, state = MODEL.init(jax.random.key(0), X)
    settings = {
        "loss": losses.batchwise(loss),
        "optimizer": optax.sgd(RATE),
        "epochs": EPOCHS,
        "batch_size": SIZE,
    }
    return dl.fit(
        MODEL,
        data,
        **settings,
        shuffle=False,
        initial=(params, state),
        progress=False,
        **options,
    )


def check(run, weighted=False):
    train, held, params = trained_by_torch(weighted)
    np.testing.assert_allclose(run.history["loss"], train, rtol=2e-5)
    np.testing.assert_allclose(run.history["validation_loss"], held, rtol=2e-5)
    for name, leaf in dl.tree.named_leaves(run.params).items():
        np.testing.assert_allclose(leaf, params[name], rtol=2e-4, atol=2e-5, err_msg=name)


def batches(*arrays):
    return [tuple(a[i : i + SIZE] for a in arrays) for i in (0, SIZE)]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("loss", [contrastive, of_batch])
@pytest.mark.parametrize("data", [(X, Y), batches(X, Y)], ids=["arrays", "stream"])
def test_rows_that_fill_up_a_batch_change_nothing(data, loss, accumulate):
    check(fit(data, loss, accumulate=accumulate, validation=data))


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param("eager", marks=pytest.mark.once), "step"])
def test_in_every_way(way):
    check(fit((X, Y), of_batch, compile=way, validation=(X, Y)))


@pytest.mark.sampled
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", [contrastive, of_batch_weighted])
def test_weights_of_examples_and_classes(loss, accumulate):
    data = (X, Y, WEIGHTS)
    check(
        fit(data, loss, accumulate=accumulate, class_weight=CLASS_WEIGHTS, validation=data),
        weighted=True,
    )


@pytest.mark.sampled
@pytest.mark.parametrize("options", [{"class_weight": CLASS_WEIGHTS}, {"weights": WEIGHTS}])
def test_one_number_for_a_batch_and_weights_that_it_is_not_given(options):
    data = (X, Y, *filter(lambda w: w is not None, [options.pop("weights", None)]))
    with pytest.raises(
        ValueError,
        match="loss 'of_batch' returns a scalar for a batch, and examples or classes have weights",
    ):
        fit(data, of_batch, **options)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [contrastive, of_batch_weighted])
def test_a_batch_that_weighs_nothing_moves_nothing(loss):
    weights = np.where(np.arange(40) < SIZE, 0, 1).astype(np.float32)
    with pytest.warns(RuntimeWarning, match="the weights of all its examples are 0"):
        run = fit((X, Y, weights), loss, steps=1)
    for leaf, first in zip(
        jax.tree.leaves(run.params),
        jax.tree.leaves(MODEL.init(jax.random.key(0), X)[0]),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf, first)


@pytest.mark.slow
def test_evaluate_and_the_members_of_a_population():
    run = fit((X, Y), of_batch)
    each = [
        by_torch(
            torch.tensor(np.asarray(dl.predict(MODEL, run.params, {}, X[rows]), np.float64)),
            Y[rows],
        ).mean()
        for rows in (slice(0, SIZE), slice(SIZE, 40))
    ]
    expected = float((SIZE * each[0] + (40 - SIZE) * each[1]) / 40)
    found = dl.evaluate(
        MODEL, run.params, {}, (X, Y), loss=losses.batchwise(of_batch), batch_size=SIZE
    )
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    options = {
        "loss": losses.batchwise(contrastive),
        "optimizer": optax.sgd(RATE),
        "epochs": 2,
        "batch_size": SIZE,
        "progress": False,
    }
    runs = dl.fit_many(MODEL, (X, Y), seeds=2, **options)
    single = dl.fit(MODEL, (X, Y), seed=1, **options)
    np.testing.assert_allclose(runs.history["loss"][:, 1], single.history["loss"], rtol=1e-5)
    assert runs.evaluate((X, Y), loss=losses.batchwise(of_batch), batch_size=SIZE)[
        "loss"
    ].shape == (2,)


@pytest.mark.slow
def test_a_sweep_gives_it_hyperparameters():
    def cooled(outputs, targets, *, mask, temperature):
        return contrastive(outputs / temperature, targets, mask=mask) * temperature

    options = {"optimizer": optax.sgd(RATE), "batch_size": SIZE, "progress": False}
    runs = dl.sweep(
        MODEL, (X, Y), {"temperature": [0.5, 2.0]}, loss=losses.batchwise(cooled), **options
    )
    single = dl.fit(
        MODEL,
        (X, Y),
        loss=losses.batchwise(functools.partial(cooled, temperature=2.0)),
        **options,
    )
    np.testing.assert_allclose(runs.history["loss"][:, 1], single.history["loss"], rtol=1e-5)


@pytest.mark.slow
def test_an_autoencoder_and_the_range_test_take_it():
    def of_moments(outputs, targets, *, mask):
        mean = [jnp.mean(each, axis=0, where=mask[:, None]) for each in (outputs, targets)]
        return jnp.sum((mean[0] - mean[1]) ** 2)

    loss, kernel = losses.batchwise(of_moments), np.eye(6, dtype=np.float32) * 0.5
    step = dl.Reconstruction(
        dl.Dense(6, use_bias=False, kernel_init=lambda *_: jnp.asarray(kernel)),
        loss,
        optax.sgd(0.0),
    )
    run = dl.train(step, X, batch_size=SIZE, shuffle=False, progress=False)
    expected = (
        sum(
            len(rows) * ((0.5 * rows.mean(0, dtype=np.float64)) ** 2).sum()
            for rows in (X[:SIZE], X[SIZE:])
        )
        / 40
    )
    assert run.history["loss"][0] == pytest.approx(expected, rel=1e-5)
    test = functools.partial(
        dl.find_learning_rate,
        MODEL,
        (X, Y),
        batch_size=SIZE,
        steps=60,
        lowest=1e-2,
        drop_last=True,
    )
    whole, in_parts = (
        test(loss=losses.batchwise(of_batch), accumulate=count) for count in (1, 4)
    )
    np.testing.assert_allclose(in_parts.losses[:20], whole.losses[:20], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_parts_in_narrow_precision_and_outputs_that_are_no_numbers_of_a_line(precision):
    """A scaled loss, and a model that gives integers beside its floating-point outputs."""

    def model(x):
        return {"codes": x, "place": jnp.zeros(x.shape[0], jnp.int32)}

    def loss(outputs, targets, *, mask):
        return contrastive(outputs["codes"], targets + outputs["place"], mask=mask)

    options = {
        "optimizer": optax.sgd(RATE),
        "batch_size": SIZE,
        "epochs": 2,
        "precision": precision,
        "progress": False,
    }
    one, four = (
        dl.fit(
            dl.Sequential(dl.Dense(3), model),
            (X, Y),
            loss=losses.batchwise(loss),
            accumulate=count,
            **options,
        )
        for count in (1, 4)
    )
    np.testing.assert_allclose(four.history["loss"], one.history["loss"], rtol=2e-2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-2), four.params, one.params
    )


@pytest.mark.slow
def test_gradients_of_many_parts_are_summed_in_float32():
    """In bfloat16 a sum of 512 times 1/512 stops at a half, where the next one is rounded away."""
    model = dl.Dense(
        1, use_bias=False, param_dtype=jnp.bfloat16, kernel_init=jax.nn.initializers.zeros
    )
    for loss in (
        lambda outputs, targets: outputs[:, 0],
        losses.batchwise(lambda outputs, targets, *, mask: outputs[:, 0]),
    ):
        data = (np.ones((512, 1), np.float32), np.zeros(512, np.float32))
        run = dl.fit(
            model,
            data,
            loss=loss,
            optimizer=optax.sgd(1.0),
            batch_size=512,
            accumulate=512,
            progress=False,
        )
        assert float(run.params["kernel"][0, 0]) == -1.0
