"""The parts of `fit` in a loop of one's own."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 50).astype(np.int32)
MODEL = dl.Sequential(dl.Dense(8), jax.nn.relu, dl.Dropout(0.1), dl.Dense(3))
OPTIONS = {"metrics": {"accuracy": metrics.accuracy, "f1": metrics.F1()}}


class Each(dl.Objective):
    def loss(self, params, state, batch, mode):
        return jax.numpy.ones(batch.size), state, {}


def made() -> dl.MadeStep:
    return dl.make_step(
        MODEL, losses.softmax_cross_entropy, optimizer=optax.adam(1e-2), **OPTIONS
    )


def test_stages_by_epoch_are_the_epochs_of_fit():
    step, _ = made()
    given = {"epochs": 3, "batch_size": 16, "validation": (X[:20], Y[:20])}
    stages = list(dl.iterate(step, (X, Y), seed=3, **given))
    run = dl.fit(
        MODEL,
        (X, Y),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(1e-2),
        seed=3,
        progress=False,
        **given,
        **OPTIONS,
    )
    assert [(stage.epoch, stage.steps) for stage in stages] == [(0, 4), (1, 8), (2, 12)]
    for name in run.history.keys() - {"seconds"}:
        assert [stage.metrics[name] for stage in stages] == run.history[name], name
    jax.tree.map(np.testing.assert_array_equal, stages[-1].train_state.params, run.params)
    with pytest.raises(RuntimeError, match="training has gone on from this state"):
        _ = stages[0].train_state


@pytest.mark.sampled
@pytest.mark.parametrize("compile", ["epoch", "step"])
@pytest.mark.parametrize("every", [1, 3, 5, 100])
def test_stages_by_steps_measure_the_steps_between_them(every, compile):
    step, jitted = made()
    batches = {"epochs": 3, "batch_size": 16, "shuffle": False, "compile": compile}
    stages = list(dl.iterate(step, (X, Y), every=f"{every} steps", **batches))
    assert [stage.steps for stage in stages] == [*range(every, 12, every), 12]
    state = step.init(jax.random.key(0), dl.Batch(X[:16], Y[:16]))
    whole = [dl.Batch(X[first : first + 16], Y[first : first + 16]) for first in (0, 16, 32)]
    total, weight, place = 0.0, 0.0, 0
    means = []
    for number in range(1, 13):
        batch = (*whole, dl.Batch(X[48:], Y[48:]))[place]
        size = len(batch.inputs)
        if size < 16:
            fill = np.concatenate([X[48:], X[:14]]), np.concatenate([Y[48:], Y[:14]])
            batch = dl.Batch(*fill, None, np.arange(16) < size)
        state, measured = jitted(state, batch)
        loss = np.asarray(measured.sums["loss"], np.float64)
        total, weight, place = total + loss[0], weight + loss[1], (place + 1) % 4
        if number % every == 0 or number == 12:
            means.append(total / weight)
            total, weight = 0.0, 0.0
    np.testing.assert_allclose([s.metrics["loss"] for s in stages], means, rtol=1e-5)
    assert all(0 <= stage.metrics["f1"] <= 1 for stage in stages)


def test_it_compiles_nothing_more_for_stages_within_an_epoch():
    step, _ = made()
    list(dl.iterate(step, (X, Y), epochs=2, batch_size=16))
    with dl.why_compiled(show=False) as why:
        list(dl.iterate(step, (X, Y), epochs=2, batch_size=16, every="3 steps"))
    assert [each.function for each in why.functions] == []


def test_a_caller_ends_the_loop():
    step, _ = made()
    for stage in dl.iterate(step, (X, Y), epochs=100, steps=7, batch_size=16, every="2 steps"):
        if stage.steps == 4:
            break
    assert stage.steps == 4
    assert int(stage.train_state.step) == 4


def test_what_is_not_finite_is_said():
    step, _ = dl.make_step(dl.Dense(1), losses.mean_squared_error, optimizer=optax.sgd(1e30))
    with pytest.raises(FloatingPointError, match="not finite at step"):
        list(dl.iterate(step, (X, X[:, :1]), epochs=9, batch_size=16))


def test_arguments_are_checked(unchecked):
    with pytest.raises(TypeError, match="loss: give the loss of the model"):
        dl.make_step(MODEL, optimizer="adam")
    with pytest.raises(TypeError, match="class_weight: make_step sees no data"):
        dl.make_step(MODEL, losses.softmax_cross_entropy, optimizer="adam", class_weight=[1.0])
    with pytest.raises(TypeError, match="iterate: there is no argument 'callbacks'"):
        dl.iterate(made().step, (X, Y), callbacks=[])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Each is an Objective — give the step"):
        dl.iterate(Each(), (X, Y))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every is a number and what it counts, in steps or"):
        dl.iterate(made().step, (X, Y), every="0 steps")


def test_a_mesh_that_the_caller_set_changes_nothing():
    step, _ = made()
    given = {"epochs": 2, "batch_size": 16}
    alone = [stage.metrics for stage in dl.iterate(step, (X, Y), **given)]
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        meshes = []
        within = []
        for stage in dl.iterate(step, (X, Y), **given):
            within.append(stage.metrics)
            meshes.append(jax.sharding.get_abstract_mesh().axis_names)
    assert within == alone
    assert meshes == [("data",)] * 2


@dataclasses.dataclass(frozen=True)
class Followed(dl.Objective):
    """A loss beside a second copy of the parameters, which the state holds from the start."""

    model: dl.Layer

    def init(self, key, batch):
        params, _ = self.model.init(key, batch.inputs)
        return params, {"target": params}

    def loss(self, params, state, batch, mode):
        outputs, _ = self.model.apply(params, {}, batch.inputs, mode)
        return jax.numpy.square(outputs)[:, 0], state, {}


@pytest.mark.parametrize("which", ["average", "target"])
def test_a_first_state_gives_each_of_its_arrays_away_once(which):
    if which == "average":
        made = dl.make_step(MODEL, losses.softmax_cross_entropy, optimizer="adam", average=0.9)
    else:
        made = dl.make_step(Followed(MODEL), optimizer="adam")
    batch = dl.Batch(X[:16], Y[:16])
    state = made.step.init(jax.random.key(0), batch)
    second = state.average if which == "average" else state.state["target"]
    first_params = jax.tree.map(np.asarray, state.params)
    jax.tree.map(np.testing.assert_array_equal, second, first_params)
    for _ in range(2):
        state, _ = made.jitted(state, batch)
    assert int(state.step) == 2
