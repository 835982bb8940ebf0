"""Eager, by the step and by the epoch: one training, three programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 8, 8, 1)).astype(np.float32)
Y = RNG.integers(0, 3, 50).astype(np.int32)
# no bias in front of BatchNorm: its gradient is nothing but rounding, which Adam makes steps of
MODEL = dl.Sequential(
    dl.Conv(4, 3, use_bias=False),
    dl.BatchNorm(momentum=0.9),
    jax.nn.relu,
    dl.MaxPool(2),
    dl.Flatten(),
    dl.Dropout(0.3),
    dl.Dense(3),
)
OPTIMIZER = optax.adam(lambda count: 1e-2 * (1 - count.astype(np.float32) / 30))


def train(way: str, **options):
    settings = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": OPTIMIZER,
        "epochs": 3,
        "batch_size": 16,
        "metrics": {"accuracy": metrics.accuracy, "confusion": metrics.ConfusionMatrix(3)},
        "validation": (X[:20], Y[:20]),
        "progress": False,
    }
    return dl.fit(MODEL, (X, Y), compile=way, **(settings | options))


@functools.cache
def reference():
    return train("epoch")


def close(a, b, tolerance=2e-5):
    for name, leaf in dl.tree.named_leaves(a).items():
        np.testing.assert_allclose(
            leaf, dl.tree.named_leaves(b)[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


@pytest.mark.sampled
@pytest.mark.parametrize("way", [pytest.param("eager", marks=pytest.mark.once), "step", "auto"])
def test_ways_give_the_same_numbers(way):
    a, b = reference(), train(way)
    assert a.history.keys() == b.history.keys()
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_allclose(
            a.history[name], b.history[name], rtol=1e-4, atol=1e-5, err_msg=name
        )
    close((a.params, a.state), (b.params, b.state), 1e-4)


def test_the_same_seed_gives_the_same_bits():
    a, b = train("epoch"), reference()
    jax.tree.map(np.testing.assert_array_equal, (a.params, a.state), (b.params, b.state))
    figures = set(a.history) - {"seconds"}
    assert {name: a.history[name] for name in figures if "confusion" not in name} == {
        name: b.history[name] for name in figures if "confusion" not in name
    }
    c = train("epoch", seed=1)
    assert a.history["loss"] != c.history["loss"]


@pytest.mark.sampled
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_figures_do_not_depend_on_where_the_clock_cuts_an_epoch(way, monkeypatch):
    from jaxdl.training.pace import Pace, known

    options = {"metrics": {}, "validation": None, "epochs": 4}
    whole = train(way, **options)
    monkeypatch.setattr(Pace, "end", lambda self, steps: 1e-3)  # one step at a time, for ever
    known.cache_clear()
    single = train(way, **options)
    assert whole.history["loss"] == single.history["loss"]
    jax.tree.map(np.testing.assert_array_equal, whole.params, single.params)


def test_sums_keep_what_rounding_would_lose():
    from jaxdl.training.sums import Layout, plus

    terms = jnp.full(100_000, 0.1, jnp.float32)

    def add(sums, term):
        return plus(sums, {"loss": term}), None

    zeros = {"float32": jnp.zeros((2, 1), jnp.float32)}
    sums, _ = jax.jit(lambda t: jax.lax.scan(add, zeros, t))(terms)
    exact = 100_000 * np.float64(np.float32(0.1))
    layout = Layout({"loss": jax.ShapeDtypeStruct((), jnp.float32)})
    total = layout.totals(jax.device_get(sums))["loss"]
    assert abs(total - exact) / exact < 1e-6
    assert abs(float(sums["float32"][0, 0]) - exact) / exact > 1e-5  # what plain addition gives


@pytest.mark.parametrize("shapes", [[()], [(), (), ()], [(), (3,), (2, 2)], [()] * 20])
def test_sums_lie_side_by_side_and_come_back(shapes):
    from jaxdl.training.sums import Layout, as_vectors

    tree = {
        f"figure_{place}": jnp.asarray(RNG.normal(size=shape), jnp.float32)
        for place, shape in enumerate(shapes)
    }
    vector = jax.jit(as_vectors)(tree)["float32"]
    np.testing.assert_array_equal(
        vector, np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        Layout(tree).tree({"float32": np.asarray(vector)}),
        tree,
    )


def test_a_key_is_a_seed():
    a = train("epoch", seed=jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, a.params, reference().params)


@pytest.mark.slow
def test_chunks_over_many_epochs_equal_single_epochs():
    across = train("epoch", epochs=100, validation=None)
    single = train("epoch", epochs=100, validation=None, callbacks=[lambda end: None])
    assert len(across.history["loss"]) == 100
    for name in set(across.history) - {"seconds"}:
        np.testing.assert_allclose(
            across.history[name], single.history[name], rtol=1e-5, err_msg=name
        )
    jax.tree.map(np.testing.assert_array_equal, across.params, single.params)


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 300])
def test_orders_of_few_epochs_at_a_time_are_the_same_orders(places, monkeypatch):
    """Of data with very many examples, one run of a program touches but two epochs."""
    from jaxdl.data import source

    whole = train("epoch", epochs=7, validation=None)
    monkeypatch.setattr(source, "ORDERED_PLACES", places)
    parts = train("epoch", epochs=7, validation=None)
    assert whole.history["loss"] == parts.history["loss"]
    jax.tree.map(np.testing.assert_array_equal, whole.params, parts.params)


@pytest.mark.slow
def test_large_sums_of_few_epochs_at_a_time_are_the_same_sums(monkeypatch):
    """A confusion matrix of very many classes leaves room for the rows of but two epochs."""
    from jaxdl.training import program

    whole = train("epoch", epochs=7, validation=None)
    monkeypatch.setattr(program, "SUMMED_BYTES", 1)
    parts = train("epoch", epochs=7, validation=None)
    assert whole.history["loss"] == parts.history["loss"]
    np.testing.assert_array_equal(whole.history["confusion"], parts.history["confusion"])


@pytest.mark.slow
def test_a_run_draws_an_order_once(monkeypatch):
    """Also where the clock cuts an epoch into many runs."""
    from jaxdl.data import source
    from jaxdl.training import pace, program

    drawn, draw = [], source.epochs_drawn

    def counted(keys, first, count, size):
        drawn.append((first, count))
        return draw(keys, first, count, size)

    monkeypatch.setattr(source, "epochs_drawn", counted)
    monkeypatch.setattr(
        pace.Pace, "end", lambda self, steps: 1.0
    )  # so that each run is of one step
    train(
        "epoch", epochs=3, validation=None, batch_size=11
    )  # no other test's, whose pace would be known
    assert drawn == [(0, 64)]
    monkeypatch.setattr(program, "DRAWN_AHEAD", 1)
    train("epoch", epochs=3, validation=None, batch_size=11)
    assert drawn[1:] == [(0, 1), (1, 1), (2, 1)]
    assert drawn.count((0, 1)) <= 2  # once to compile


def test_history_holds_one_entry_an_epoch():
    history = reference().history
    assert {len(values) for values in history.values()} == {3}
    expected = {
        "loss",
        "accuracy",
        "confusion",
        "validation_loss",
        "validation_accuracy",
        "validation_confusion",
    }
    assert set(history) == expected | {"learning_rate", "seconds"}
    np.testing.assert_allclose(
        history["learning_rate"], [1e-2 * (1 - k / 30) for k in (3, 7, 11)], rtol=1e-5
    )
    assert all(np.sum(matrix) == 50 for matrix in history["confusion"])
    assert all(np.sum(matrix) == 20 for matrix in history["validation_confusion"])


class Counted:
    """Counts how often a function is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def relu(self):
        def counted_relu(x):
            self.traces += 1
            return jax.nn.relu(x)

        return counted_relu


@pytest.mark.slow
@pytest.mark.parametrize("size", [48, 50])
def test_one_compilation_serves_all_batches_epochs_and_calls(size):
    from jaxdl.training import program

    model = dl.Sequential(dl.Flatten(), dl.Dense(size), jax.nn.relu, dl.Dense(3))
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": OPTIMIZER,
        "batch_size": 16,
        "progress": False,
    }
    before = program.epoch_loop._cache_size()
    dl.fit(model, (X[:size], Y[:size]), compile="epoch", epochs=3, **options)
    assert program.epoch_loop._cache_size() == before + 1
    dl.fit(model, (X[:size], Y[:size]), compile="epoch", epochs=70, **options)
    assert program.epoch_loop._cache_size() == before + 1
    before = program.compiled_step._cache_size()
    for epochs in (2, 3):
        dl.fit(model, (X[:size], Y[:size]), compile="step", epochs=epochs, **options)
    assert program.compiled_step._cache_size() == before + 1


def test_the_model_is_not_traced_again_while_it_trains():
    counted = Counted()
    model = dl.Sequential(dl.Flatten(), dl.Dense(5), counted.relu(), dl.Dense(3))
    options = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": OPTIMIZER,
        "batch_size": 16,
        "progress": False,
    }
    dl.fit(model, (X, Y), epochs=1, **options)
    traces = counted.traces
    dl.fit(model, (X, Y), epochs=30, **options)
    assert (
        counted.traces - traces <= 2
    )  # shapes are checked before each run; nothing is traced once a step


def test_dropout_and_order_change_from_step_to_step_and_epoch_to_epoch():
    seen = []

    def spy(x):
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), x, ordered=True)
        return x

    model = dl.Sequential(dl.Dropout(0.5), spy, dl.Dense(1))
    data = (
        np.arange(1, 9, dtype=np.float32)[:, None] * np.ones((1, 32), np.float32),
        np.zeros(8, np.float32),
    )
    dl.fit(
        model,
        data,
        loss=losses.mean_squared_error,
        optimizer=optax.sgd(0.0),
        epochs=2,
        batch_size=4,
        progress=False,
    )
    batches = [batch for batch in seen if batch.shape == (4, 32)]
    assert len(batches) == 4
    masks = [(batch != 0).astype(int).tolist() for batch in batches]
    assert all(masks[0] != mask for mask in masks[1:])
    order = [(batch.max(axis=1) / 2).tolist() for batch in batches]
    assert sorted(order[0] + order[1]) == sorted(order[2] + order[3]) == list(range(1, 9))
    assert order[0] + order[1] != order[2] + order[3]


def loop_arguments():
    """What the compiled loop of a step is called with, the platform left open."""
    from jaxdl.training import program
    from jaxdl.training.data_checks import check_arrays
    from jaxdl.training.sources import resident

    feed = resident(check_arrays("data", (X, Y)), 16, jax.random.key(0), True)
    source, step = feed.source, dl.Supervised(MODEL, losses.softmax_cross_entropy, OPTIMIZER)
    state = step.init(jax.random.key(0), feed.example)
    made = program.Program("epoch", step, state)
    fixed = made._fixed(source)
    data = (source, None, state, source.orders(0, 1), made.init_carry(source).sums)
    bounds = program.bounds(source, 0, 1)
    return fixed.form, 4, False, None, fixed.numbers, *data, *fixed.room, bounds


@pytest.mark.slow
def test_data_are_arguments_and_not_constants():
    from jaxdl.training import program

    text = program.epoch_loop.lower(*loop_arguments()).as_text()
    assert max(len(line) for line in text.splitlines()) < 20_000
    assert "tensor<50x8x8x1xf32>" in text.split("{", 2)[1] or "tensor<50x8x8x1xf32>" in text


@pytest.mark.sampled
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_training_loop_lowers_for_every_platform(platform):
    from jaxdl.training import program

    text = (
        program.epoch_loop.trace(*loop_arguments())
        .lower(lowering_platforms=(platform,))
        .as_text()
    )
    assert ("stablehlo.convolution" in text) == (platform != "cpu")


@pytest.mark.slow
def test_a_key_of_another_kind_trains_the_same_in_all_ways():
    runs = [train(way, seed=jax.random.key(3, impl="rbg")) for way in ("epoch", "step")]
    close(runs[0].params, runs[1].params, 1e-4)
    assert runs[0].history["loss"] == pytest.approx(runs[1].history["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_with_64_bits_enabled_all_ways_train(way):
    with jax.enable_x64(True):
        run = train(way, epochs=2)
    assert all(np.isfinite(run.history["loss"]))
    assert run.history["validation_loss"][1] != run.history["validation_loss"][0]


@pytest.mark.parametrize("compile", ["epoch", "step", "eager"])
def test_a_model_without_parameters_or_state_predicts_and_evaluates(compile):
    x = np.ones((7, 3), np.float32)
    empty = dl.Sequential()
    np.testing.assert_array_equal(dl.predict(empty, {}, {}, x, compile=compile), x)
    measured = dl.evaluate(
        empty, {}, {}, (x, x + 2), loss=dl.losses.mean_squared_error, compile=compile
    )
    assert measured == {"loss": 4.0}
