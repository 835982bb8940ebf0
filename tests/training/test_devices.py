"""One training over several devices: the batch in parts, the numbers of one device."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.training import program
from jaxdl.training.spread import SMALL, added_up, as_mesh, in_parts, own_draws

pytestmark = pytest.mark.usefixtures("quickly_compiled")
COUNT = 4
several = pytest.mark.skipif(
    jax.device_count() < COUNT,
    reason=f"runs where there are {COUNT} devices: see the first test",
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 8, 8, 2)).astype(np.float32)
Y = RNG.integers(0, 3, 50).astype(np.int32)
WEIGHTS = RNG.uniform(0.1, 2, 50).astype(np.float32)
MODEL = dl.Sequential(
    dl.Conv(4, 3, use_bias=False),
    dl.BatchNorm(momentum=0.9),
    jax.nn.relu,
    dl.MaxPool(2),
    dl.Flatten(),
    dl.Dense(3),
)
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


@pytest.mark.slow
def test_on_four_devices(request: pytest.FixtureRequest) -> None:
    """All of this file again, in a process whose CPU is four devices."""
    if jax.device_count() >= COUNT:
        return
    root = Path(__file__).parents[2]
    environment = dict(os.environ) | {"JAX_NUM_CPU_DEVICES": str(COUNT)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "0",
        "-rs",
        "-m",
        "not once" if "not once" in request.config.option.markexpr else "",
        str(Path(__file__)),
    ]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "SKIPPED" not in done.stdout


def train(devices, data=(X, Y, WEIGHTS), model=MODEL, **options):
    settings = {
        "loss": losses.softmax_cross_entropy,
        "optimizer": OPTIMIZER,
        "epochs": 2,
        "batch_size": 16,
        "metrics": {
            "accuracy": metrics.accuracy,
            "confusion": metrics.ConfusionMatrix(3),
            "auc": metrics.ROCAUC(),
        },
        "progress": False,
    }
    return dl.fit(model, data, devices=devices, **(settings | options))


def four():
    return jax.devices()[:COUNT]


def close(a, b, tolerance=2e-5):
    for name, leaf in dl.tree.named_leaves(a).items():
        np.testing.assert_allclose(
            leaf, dl.tree.named_leaves(b)[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


def same(a: dl.Run, b: dl.Run, tolerance: float = 2e-5) -> None:
    assert a.history.keys() == b.history.keys()
    for name in set(a.history) - {"seconds"}:
        np.testing.assert_allclose(
            a.history[name], b.history[name], rtol=tolerance, atol=tolerance, err_msg=name
        )
    close((a.params, a.state), (b.params, b.state), tolerance)


@pytest.mark.sampled
@several
@pytest.mark.parametrize("way", ["epoch", "step"])
def test_the_numbers_are_those_of_one_device(way):
    options = {
        "validation": (X[:21], Y[:21]),
        "class_weight": {0: 1.0, 1: 3.0, 2: 0.5},
        "clip_norm": 1.0,
        "average": 0.9,
    }
    one, all_ = train(None, **options), train(four(), compile=way, **options)
    same(one, all_)
    close(one.average, all_.average)
    close(one.best.params, all_.best.params)


@pytest.mark.slow
@dataclasses.dataclass(frozen=True)
class Each(dl.Objective):
    """The loss of each example."""

    model: dl.Layer

    def loss(self, params, state, batch, mode):
        outputs, state = self.model.apply(params, state, batch.inputs, mode)
        each = losses.softmax_cross_entropy(outputs, batch.targets)
        return each, state, {"right": metrics.accuracy(outputs, batch.targets)}


@dataclasses.dataclass(frozen=True)
class Mixed(Each):
    """What is least alike of each two examples of a batch, as one number."""

    mixes = True

    def loss(self, params, state, batch, mode):
        outputs, state = self.model.apply(params, state, batch.inputs, mode)
        present = jnp.ones(batch.size, bool) if batch.mask is None else batch.mask
        apart = jnp.square(outputs[:, None] - outputs[None]).sum(-1)
        both = present[:, None] & present[None]
        return jnp.mean(apart, where=both), state, {}


@several
@pytest.mark.parametrize("kind", [Each, Mixed])
def test_an_objective_is_minimised_as_on_one_device(kind):
    def trained(devices):
        return dl.train(
            kind(MODEL),
            (X, Y),
            optimizer=OPTIMIZER,
            epochs=2,
            batch_size=16,
            validation=(X[:21], Y[:21]),
            devices=devices,
            progress=False,
        )

    same(trained(None), trained(four()))


@several
@pytest.mark.once
def test_eagerly():
    model = dl.Sequential(dl.Flatten(), dl.Dense(3))
    options = {
        "data": (X[:8], Y[:8]),
        "model": model,
        "batch_size": 8,
        "epochs": 1,
        "metrics": {},
    }
    same(train(None, **options), train(four(), compile="eager", **options))


@pytest.mark.slow
@pytest.mark.once
@several
def test_moments_of_what_is_mapped():
    x = X.reshape(50, 8, 16)
    model = dl.Sequential(
        dl.Map(dl.Sequential(dl.Dense(4, use_bias=False), dl.BatchNorm(momentum=0.9))),
        dl.Flatten(),
        dl.Dense(3),
    )
    same(train(None, (x, Y), model), train(four(), (x, Y), model))


@pytest.mark.slow
@pytest.mark.once
@several
def test_the_last_batch_has_parts_without_examples():
    x, y = X[:18], Y[:18]  # 16, and 2 in a part of 4; three parts have none
    same(train(None, (x, y)), train(four(), (x, y)))


def apart(outputs, targets, *, mask):
    """− log softmax of each output's likeness to its own class's mean output, over the classes."""
    own = jax.nn.one_hot(targets, 3) * mask[:, None].astype(jnp.float32)
    means = own.T @ outputs / jnp.maximum(own.sum(0), 1)[:, None]
    return losses.softmax_cross_entropy(outputs @ means.T, targets)


@pytest.mark.slow
@several
@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate": 2}, {"class_weight": {0: 1.0, 1: 3.0, 2: 0.5}}, {"drop_last": True}],
)
def test_a_loss_that_mixes_examples_sees_all_of_a_batch(options):
    model = dl.Sequential(dl.Flatten(), dl.Dense(8), jax.nn.tanh, dl.Dense(3))
    options = options | {
        "loss": losses.batchwise(apart),
        "validation": (X[:21], Y[:21]),
        "epochs": 3,
    }
    same(
        train(None, (X, Y), model=model, **options),
        train(four(), (X, Y), model=model, **options),
    )
    number = losses.batchwise(
        lambda outputs, targets, *, mask: jnp.mean(
            apart(outputs, targets, mask=mask), where=mask
        )
    )
    if "class_weight" not in options:
        options |= {"loss": number}
        same(
            train(None, (X, Y), model=model, **options),
            train(four(), (X, Y), model=model, **options),
        )


@several
def test_a_loss_that_mixes_examples_undeclared_is_refused():
    def centred(outputs, targets):
        return ((outputs - outputs.mean(0, keepdims=True)) ** 2).mean(-1)

    data = (X[:48], Y[:48])
    assert train(None, data, loss=centred).stopped == "finished"
    with pytest.raises(
        ValueError, match="each part of a batch would be a batch to it — declare it"
    ):
        train(four(), data, loss=centred)


@pytest.mark.slow
@pytest.mark.once
@several
@pytest.mark.parametrize(
    "options",
    [
        {"accumulate": 2},
        {"precision": "bfloat16"},
        {"if_not_finite": "skip"},
        {"if_not_finite": "rollback"},
    ],
)
def test_what_else_fit_does(options):
    model = dl.Sequential(dl.Flatten(), dl.Dense(8), jax.nn.tanh, dl.Dense(3))
    same(
        train(None, model=model, **options),
        train(four(), model=model, **options),
        1e-2 if "precision" in options else 2e-5,
    )


@pytest.mark.slow
@pytest.mark.once
@several
def test_an_update_that_overflows_on_one_device_is_skipped_on_all():
    x, y = np.full((16, 1), 0.01, np.float32), np.ones((16, 1), np.float32)
    x[3], y[3] = 10, 100  # its gradient alone overflows float16 at the first scales
    given = {
        "model": dl.Dense(1),
        "loss": losses.mean_squared_error,
        "metrics": {},
        "optimizer": optax.sgd(1e-4),
    }
    one, all_ = (
        train(devices, (x, y), precision="float16", epochs=12, **given)
        for devices in (None, four())
    )
    assert 0 < one.history["skipped_steps"][-1] < 12
    np.testing.assert_array_equal(one.history["skipped_steps"], all_.history["skipped_steps"])
    same(one, all_, 1e-2)


@pytest.mark.slow
@pytest.mark.once
@several
def test_batches_of_a_stream_are_filled_up():
    batches = [(X[:14], Y[:14]), (X[14:27], Y[14:27]), (X[27:30], Y[27:30])]
    same(
        train(None, batches, validation=batches[:2]),
        train(four(), batches, validation=batches[:2]),
    )


@pytest.mark.slow
@pytest.mark.once
@several
def test_padded_sequences():
    words = dl.Padded(
        RNG.integers(1, 9, (8, 7)).astype(np.int32),
        np.array([3, 5, 2, 7, 4, 6, 1, 5], np.int32),
    )
    data = (words, Y[:8])
    model = dl.Sequential(dl.Embedding(9, 4), dl.LSTM(5, sequence=False), dl.Dense(3))
    same(train(None, data, model, batch_size=8), train(four(), data, model, batch_size=8))


@pytest.mark.slow
@pytest.mark.once
@several
def test_each_part_draws_for_itself_and_anew_in_each_step():
    mesh, mode = as_mesh(four()), dl.Train(jax.random.key(0))
    drawn = in_parts(
        mesh,
        lambda mode, rows, across: (
            (),
            jax.random.bits(own_draws(mode, across).key, rows.shape),
        ),
        mode,
        jnp.zeros((8, 3)),
    )[1]
    assert len(np.unique(np.asarray(drawn).reshape(-1))) == 24
    seen = []

    def noted(key, inputs, targets):
        jax.debug.callback(
            lambda bits: seen.append(int(bits)), jax.random.bits(key, (), jnp.uint32)
        )
        return inputs, targets

    train(four(), (X[:32], Y[:32]), augment=noted, epochs=2)
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 2 * 2 * COUNT


@pytest.mark.slow
@pytest.mark.once
@several
def test_dropout_keeps_its_share():
    model = dl.Sequential(dl.Flatten(), dl.Dropout(0.5), dl.Dense(3))
    run = train(four(), model=model, epochs=3)
    assert run.history["loss"][-1] < run.history["loss"][0]
    same(run, train(four(), model=model, epochs=3), 0)


@pytest.mark.slow
@several
def test_evaluate_and_predict():
    run = train(None)
    for size in (50, 3):
        data = (X[:size], Y[:size], WEIGHTS[:size])
        given = {
            "loss": losses.softmax_cross_entropy,
            "metrics": {"confusion": metrics.ConfusionMatrix(3)},
            "batch_size": 16,
        }
        one, all_ = (
            dl.evaluate(MODEL, run.params, run.state, data, devices=devices, **given)
            for devices in (None, four())
        )
        for name in one:
            np.testing.assert_allclose(one[name], all_[name], rtol=1e-5)
        one, all_ = (
            dl.predict(MODEL, run.params, run.state, X[:size], batch_size=16, devices=devices)
            for devices in (None, four())
        )
        assert all_.shape == (size, 3)
        np.testing.assert_allclose(one, all_, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.once
@several
def test_a_run_comes_back_on_the_first_device_and_goes_on_anywhere():
    devices = four()[1:3]
    run = train(devices, validation=0.2)
    trees = (run.params, run.state, run.best.params, run.train_state)
    assert {tuple(leaf.devices()) for leaf in jax.tree.leaves(trees)} == {(devices[0],)}
    same(
        train(devices, initial=(run.params, run.state)),
        train(None, initial=jax.device_put((run.params, run.state), four()[0])),
    )


@pytest.mark.slow
@several
def test_equal_calls_compile_once():
    train(four())
    programs = program.epoch_loop._cache_size()
    train(four(), seed=1)
    assert program.epoch_loop._cache_size() == programs


@pytest.mark.slow
@several
def test_moments_are_those_of_the_whole_batch_and_so_are_their_derivatives():
    x, mask = jnp.asarray(X[:16, ..., 0] + 100), jnp.asarray(np.arange(16) % 3 != 0)

    def value(x, mask, across):
        return dl.ops.norm.moments(x, (0, 1, 2), mask, across)

    def part(given, rows, across):
        x, mask = rows
        return value(x, mask, across), jax.grad(
            lambda x: jnp.sin(value(x, mask, across)[1]).sum() / (COUNT if across else 1)
        )(x)

    for whole in (True, False):
        rows = (x, None if whole else mask)
        (mean, variance), slope = in_parts(None, part, (), rows)
        (means, variances), slopes = in_parts(as_mesh(four()), part, (), rows)
        np.testing.assert_allclose(mean, means, rtol=1e-6)
        np.testing.assert_allclose(variance, variances, rtol=1e-5)
        np.testing.assert_allclose(slope, slopes, rtol=1e-4, atol=1e-7)


@several
def test_sums_add_up_once():
    rows = {
        "small": X[:8, 0, 0],
        "whole": np.arange(8, dtype=np.int32),
        "other": X[:8],
        "large": np.ones((8, SMALL + 1), np.float32),
    }

    def part(given, rows, across):
        return added_up(jax.tree.map(lambda x: x.sum(0), rows), across), ()

    total = in_parts(as_mesh(four()), part, (), rows)[0]
    for name, x in rows.items():
        assert total[name].dtype == x.dtype
        np.testing.assert_allclose(total[name], x.sum(0), rtol=1e-5, atol=1e-6)
    assert added_up({}, "devices") == {}


@pytest.mark.slow
@several
def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path):
    model = dl.Sequential(dl.Flatten(), dl.Dropout(0.5), dl.Dense(3))
    whole = train(four(), model=model, epochs=4)
    train(four(), model=model, epochs=2, checkpoint=dl.Checkpoints(tmp_path / "run"))
    same(
        train(four(), model=model, epochs=4, checkpoint=dl.Checkpoints(tmp_path / "run")),
        whole,
        0,
    )


@pytest.mark.slow
@pytest.mark.once
@several
def test_debug_names_the_operation():
    model = dl.Sequential(dl.Flatten(), lambda x: jnp.log(x - 100), dl.Dense(3))
    with pytest.warns(RuntimeWarning, match="NaN first appeared in the forward pass.*log"):
        train(four(), model=model, debug=True)


@pytest.mark.slow
def test_one_device_in_the_list_draws_what_none_draws():
    model = dl.Sequential(MODEL, dl.Dropout(0.3))
    same(train(None, model=model), train(jax.devices()[:1], model=model))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("devices", "error", "words"),
    [
        (2, TypeError, "devices: expected a list of devices, such as jax.devices(), got 2"),
        ([], ValueError, "devices: at least one is needed"),
        ("twice", ValueError, "devices: each stands in the list once"),
    ],
)
def test_what_is_no_list_of_devices(devices, error, words):
    given = [jax.devices()[0]] * 2 if devices == "twice" else devices
    for call in (
        lambda: train(given),
        lambda: dl.evaluate(MODEL, {}, {}, (X, Y), devices=given),
        lambda: dl.predict(MODEL, {}, {}, X, devices=given),
    ):
        with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
            call()


@several
def test_batches_that_cannot_be_split():
    with pytest.raises(
        ValueError, match="batch_size: 18 examples cannot be split evenly over 4 devices"
    ):
        train(four(), batch_size=18)
    with pytest.raises(
        ValueError,
        match="accumulate: what each device has of a batch, 4 examples, cannot be cut into 3",
    ):
        train(four(), batch_size=16, accumulate=3)


@several
def test_a_step_says_its_mesh_by_equality():
    step = dl.Supervised(MODEL, losses.softmax_cross_entropy, OPTIMIZER)
    spread = dataclasses.replace(step, mesh=as_mesh(four()))
    assert spread != step
    assert spread == dataclasses.replace(step, mesh=as_mesh(four()))
    assert spread.on_one_device() == step
