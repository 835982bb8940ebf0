"""Numbers that go wrong: stop, skip, go back, and where they came from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl
from jaxdl import losses, metrics

pytestmark = pytest.mark.usefixtures("quickly_compiled")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5], np.float32)).astype(np.float32)
MODEL = dl.Dense(1)
WAYS = (pytest.param("eager", marks=pytest.mark.once), "step", "epoch")


def poisoned(outputs, targets):
    """Squared error, NaN for one target."""
    return jnp.where(targets == 7, jnp.nan, jnp.square(outputs[:, 0] - targets))


@jax.custom_vjp
def _spoiled(x, where):
    return x


_spoiled.defvjp(
    lambda x, where: (x, where), lambda where, slope: (jnp.where(where, jnp.nan, slope), None)
)


def bad_slope(outputs, targets):
    """Squared error, whose gradient is NaN for one target: the loss stays finite."""
    return jnp.square(_spoiled(outputs[:, 0], targets == 7) - targets)


def run(loss, targets=Y, **options):
    options = {
        "optimizer": optax.sgd(0.05),
        "batch_size": 10,
        "epochs": 3,
        "progress": False,
        "shuffle": False,
    } | options
    return dl.fit(MODEL, (X, targets), loss=loss, **options)


def with_sevens(*places):
    targets = Y.copy()
    targets[list(places)] = 7
    return targets


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.sampled
@pytest.mark.parametrize("way", WAYS)
def test_skipping_is_the_run_without_that_batch(way):
    start = MODEL.init(jax.random.key(0), X)
    skipped = run(
        poisoned,
        with_sevens(25),
        if_not_finite="skip",
        compile=way,
        initial=start,
        metrics={"error": poisoned},
    )
    kept = np.delete(np.arange(60), np.arange(20, 30))
    plain = dl.fit(
        MODEL, (X[kept], Y[kept]), loss=poisoned, optimizer=optax.sgd(0.05), batch_size=10, epochs=3, progress=False,
        shuffle=False, initial=start, compile=way, metrics={"error": poisoned},
    )  # fmt: skip
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), skipped.params, plain.params
    )
    for name in ("loss", "error"):
        np.testing.assert_allclose(skipped.history[name], plain.history[name], rtol=1e-5)
    assert skipped.history["skipped_steps"] == [1, 2, 3]
    assert skipped.stopped == "finished"
    assert int(skipped.train_state.step) == 18  # keys and orders go on


@pytest.mark.sampled
@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_that_is_not_finite_stops_a_run_whose_loss_is(way):
    with pytest.warns(
        RuntimeWarning, match=r"the loss or a gradient was not finite at step 3 \(epoch 1\)"
    ):
        stopped = run(bad_slope, with_sevens(25), compile=way)
    assert finite(stopped.params)
    assert int(stopped.train_state.step) == 2


def test_a_gradient_that_is_not_finite_in_the_last_step_of_all_is_seen():
    with pytest.warns(RuntimeWarning, match="not finite at step 6"):
        stopped = run(bad_slope, with_sevens(59), epochs=1)
    assert finite(stopped.params)
    assert int(stopped.train_state.step) == 5


@pytest.mark.slow
def test_a_parameter_that_no_loss_reads_is_found_by_halving():
    class Idle(dl.Layer):
        """A layer whose second parameter is of no use, and has a gradient of NaN from one example on."""

        def init(self, key, x):
            return {"w": jnp.zeros(3), "idle": jnp.ones(())}, {}

        def apply(self, params, state, x, mode=dl.Eval()):
            nothing = 0 * _spoiled(params["idle"], (x[:, 0] > 90).any())
            return (x @ params["w"] + jnp.where(jnp.isfinite(nothing), nothing, 0))[
                :, None
            ], state

    marked = X.copy()
    marked[35, 0] = 91  # in step 4 of each 6
    with pytest.warns(RuntimeWarning, match="not finite at step 4 "):
        stopped = dl.fit(
            Idle(), (marked, Y[:, None]), loss=losses.mean_squared_error, optimizer=optax.sgd(1e-6), epochs=20, batch_size=10,
            shuffle=False, progress=False,
        )  # fmt: skip
    assert finite(stopped.params)
    assert int(stopped.train_state.step) == 3


def test_skipping_counts_a_gradient_that_is_not_finite():
    skipped = run(bad_slope, with_sevens(25), if_not_finite="skip")
    assert skipped.history["skipped_steps"] == [1, 2, 3]
    assert finite(skipped.params)
    assert skipped.history["loss"][-1] < skipped.history["loss"][0]


@pytest.mark.slow
def test_an_optimizer_whose_state_overflows_is_skipped_too():
    def steep(outputs, targets):
        return jnp.where(targets == 7, 1e30, 1.0) * jnp.square(
            outputs[:, 0] - targets
        )  # its square overflows in Adam

    skipped = run(steep, with_sevens(25), optimizer=optax.adam(1e-2), if_not_finite="skip")
    assert skipped.history["skipped_steps"][-1] >= 1
    assert finite((skipped.params, skipped.train_state.optimizer_state))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_going_back_halves_the_updates_until_they_hold(way):
    options = {"optimizer": optax.sgd(3.0), "epochs": 40, "batch_size": 20, "compile": way}
    with pytest.warns(RuntimeWarning, match="not finite at step"):
        assert run(losses.mean_squared_error, Y[:, None], **options).stopped.startswith(
            "the loss or a gradient"
        )
    back = run(losses.mean_squared_error, Y[:, None], if_not_finite="rollback", **options)
    times = back.history["rollbacks"][-1]
    assert times >= 1
    np.testing.assert_allclose(back.history["learning_rate"][-1], 3.0 / 2**times)
    assert back.stopped == "finished"
    assert finite(back.params)
    if way == "epoch":
        longer = run(
            losses.mean_squared_error,
            Y[:, None],
            if_not_finite="rollback",
            **options | {"epochs": 400},
        )
        assert longer.history["loss"][-1] < 1e-3


@pytest.mark.slow
def test_the_rate_is_that_of_the_last_update_that_stayed():
    """One step an epoch, by a schedule: three updates, a set-back of all of them, and two updates half as long."""
    schedule = optax.linear_schedule(0.1, 0.0, 100)
    targets = with_sevens(35)
    stream = [(X[i : i + 10], targets[i : i + 10]) for i in range(0, 60, 10)]
    options = {
        "optimizer": optax.sgd(schedule),
        "steps_per_epoch": 1,
        "epochs": 6,
        "progress": False,
    }
    back = dl.fit(MODEL, stream, loss=poisoned, if_not_finite="rollback", **options)
    assert back.history["rollbacks"] == [0, 0, 0, 1, 1, 1]
    expected = [
        schedule(0),
        schedule(1),
        schedule(2),
        schedule(2),
        schedule(0) / 2,
        schedule(1) / 2,
    ]
    np.testing.assert_allclose(back.history["learning_rate"], expected, rtol=1e-6)


@pytest.mark.slow
def test_going_back_takes_a_state_of_before():
    """A step that is spoiled once: the state comes back, and all later updates are half as long."""
    guarded = dl.Guarded(dl.Supervised(MODEL, poisoned, optax.sgd(0.05)), "rollback", every=2)
    batches = [
        dl.Batch(jnp.asarray(X[k : k + 10]), jnp.asarray(Y[k : k + 10]))
        for k in range(0, 60, 10)
    ]
    spoiled = batches[0]._replace(targets=jnp.full(10, 7.0))
    state = guarded.init(jax.random.key(0), batches[0])
    seen = [state]
    for batch in batches[:5]:
        state, _ = guarded(state, batch)
        seen.append(state)
    back, measured = guarded(
        state, spoiled
    )  # states were kept after 2 and 4 updates: the older comes back
    jax.tree.map(np.testing.assert_array_equal, back.params, seen[2].params)
    assert int(back.step) == 6
    assert float(measured.sums["step"]["loss"][0]) == 0
    after, _ = guarded(back, batches[0])
    single = dl.Supervised(MODEL, poisoned, optax.sgd(0.025))
    half, _ = single(single.start(jax.random.key(0), back.params, {}), batches[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after.params, half.params
    )


def test_a_guard_that_is_not_needed_changes_nothing():
    plain = run(losses.mean_squared_error, Y[:, None])
    for rule in ("skip", "rollback"):
        guarded = run(losses.mean_squared_error, Y[:, None], if_not_finite=rule)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
            guarded.params,
            plain.params,
        )
        np.testing.assert_allclose(guarded.history["loss"], plain.history["loss"], rtol=1e-6)


def test_a_run_of_which_nothing_is_finite_ends():
    with pytest.warns(RuntimeWarning, match="training stopped"):
        ended = run(lambda o, t: o[:, 0] * jnp.nan, if_not_finite="skip", epochs=100)
    assert int(ended.train_state.step) < 110
    assert finite(ended.params)


@pytest.mark.slow
def test_other_steps_skip_too():
    step = dl.Reconstruction(dl.models.mlp(2, 3), losses.mean_squared_error, optax.sgd(1e30))
    with pytest.warns(RuntimeWarning, match="training stopped"):
        dl.train(step, X, epochs=5, progress=False, batch_size=10)
    kept = dl.train(step, X, epochs=5, progress=False, batch_size=10, if_not_finite="skip")
    assert kept.history["skipped_steps"][-1] > 0
    assert finite(kept.params)


@pytest.mark.usefixtures("unchecked")
def test_rules_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="if_not_finite is 'stop', 'skip' or 'rollback', got 'ignore'"
    ):
        run(losses.mean_squared_error, Y[:, None], if_not_finite="ignore")
    with pytest.raises(ValueError, match="leave out if_not_finite='skip'"):
        run(losses.mean_squared_error, Y[:, None], if_not_finite="skip", debug=True)
    with pytest.raises(ValueError, match="a schedule-free optimizer averages whole ones"):
        run(
            losses.mean_squared_error,
            Y[:, None],
            if_not_finite="rollback",
            optimizer="schedule_free_sgd",
            learning_rate=0.1,
        )


@pytest.mark.slow
def test_a_guarded_run_goes_on_from_its_checkpoint(tmp_path):
    options = {"optimizer": optax.sgd(3.0), "batch_size": 20, "if_not_finite": "rollback"}
    whole = run(losses.mean_squared_error, Y[:, None], epochs=30, **options)
    saved = dl.Checkpoints(tmp_path / "run", every="5 epochs")
    run(losses.mean_squared_error, Y[:, None], epochs=12, checkpoint=saved, **options)
    again = run(losses.mean_squared_error, Y[:, None], epochs=30, checkpoint=saved, **options)
    jax.tree.map(np.testing.assert_array_equal, again.params, whole.params)
    assert again.history["rollbacks"] == whole.history["rollbacks"]


class Logarithm(dl.Layer):
    """log x; not finite where x is not positive."""

    def init(self, key, x):
        return {}, {}

    def apply(self, params, state, x, mode=dl.Eval()):
        return jnp.log(x), state


@pytest.mark.slow
def test_debug_names_the_layer_and_the_operation():
    model = dl.Sequential(
        first=dl.Dense(4),
        body=dl.Sequential(dl.Dense(2), jax.nn.relu, Logarithm()),
        last=dl.Dense(1),
    )
    with pytest.warns(RuntimeWarning, match="training stopped"):
        ended = dl.fit(
            model,
            (X, Y[:, None]),
            loss=losses.mean_squared_error,
            optimizer=optax.sgd(0.1),
            progress=False,
            debug=True,
        )
    assert (
        "infinity first appeared in the forward pass of 'body.logarithm_0': log (test_not_finite.py, line "
        in ended.stopped
    )
    assert "gave it from float32[32, 2] of 0 to " in ended.stopped


@pytest.mark.slow
def test_debug_names_the_gradient_where_the_loss_is_finite():
    with pytest.warns(RuntimeWarning, match="training stopped"):
        ended = run(bad_slope, with_sevens(25), debug=True)
    assert "first appeared in the" in ended.stopped
    assert "of 'loss'" in ended.stopped
    if jax.__version_info__ < (0, 12):  # from then on a transposed conversion has no line
        assert "(test_not_finite.py, line " in ended.stopped


@pytest.mark.slow
def test_debug_follows_loops_to_the_iteration():
    def grows(x):
        return jax.lax.scan(lambda c, r: (c * 1e10 * r, None), 1.0, x)[0]

    origin = dl.first_not_finite(grows, jnp.ones(10))
    assert origin is not None
    assert (origin.operation, origin.gave, origin.iteration) == ("mul", "infinity", 3)

    def until(x):
        return jax.lax.while_loop(
            lambda s: s[0] < 9, lambda s: (s[0] + 1, s[1] * 1e10), (0, x)
        )[1]

    origin = dl.first_not_finite(until, jnp.ones(()))
    assert origin is not None
    assert origin.iteration == 3


def test_an_infinity_that_is_meant_is_no_origin():
    def masked(x, keep):
        scores = jnp.where(keep, x, -jnp.inf)
        return jax.nn.softmax(scores)

    assert dl.first_not_finite(masked, jnp.ones(3), jnp.array([True, False, True])) is None
    origin = dl.first_not_finite(masked, jnp.ones(3), jnp.zeros(3, bool))
    assert origin is not None
    assert origin.gave == "NaN"
    assert dl.first_not_finite(jnp.exp, jnp.array(jnp.nan)) is None


def test_only_what_goes_on_to_the_result_counts():
    def guarded(x):
        unused = jnp.log(x - 1).sum()
        return jnp.where(x > 0, jnp.exp(100 * x), unused).sum()

    origin = dl.first_not_finite(guarded, jnp.ones(2))
    assert origin is not None
    assert origin.operation == "exp"


def test_what_a_skipped_batch_measured_does_not_count():
    def loss(outputs, labels):
        return jnp.where(
            labels == 7, jnp.nan, jnp.square(outputs[:, 0] - labels.astype(jnp.float32))
        )

    step = dl.Supervised(MODEL, loss, optax.sgd(0.05), (("auc", metrics.ROCAUC()),))
    guarded = dl.Guarded(step, "skip")
    batch = dl.Batch(jnp.asarray(X[:10]), jnp.asarray(Y[:10] > 0, jnp.int32))
    state = guarded.init(jax.random.key(0), batch)
    _, whole = guarded(state, batch)
    _, spoiled = guarded(state, batch._replace(targets=jnp.full(10, 7)))
    assert all(
        np.any(np.asarray(leaf))
        for leaf in jax.tree.leaves((whole.sums["step"]["loss"], whole.gathered))
    )
    assert not any(
        np.any(np.asarray(leaf))
        for leaf in jax.tree.leaves((spoiled.sums["step"], spoiled.gathered))
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_of_a_tree_that_is_not_finite_is_seen(dtype, bad):
    from jaxdl.training.finite import all_finite, is_finite

    whole = {
        "a": jnp.ones((3, 4), dtype),
        "none": jnp.zeros((0, 2)),
        "count": jnp.int32(3),
        "key": jax.random.key(0),
    }
    assert is_finite(whole)
    for place in ((0, 0), (1, 2), (2, 3)):
        broken = whole | {"a": whole["a"].at[place].set(bad)}
        assert not is_finite(broken)
        assert not all_finite(broken)


@pytest.mark.slow
def test_whether_parameters_are_finite_compiles_nothing_on_a_cpu():
    from jaxdl.training.finite import is_finite

    tree = {
        "a": jax.device_put(np.ones((7, 11), np.float32)),
        "b": jax.device_put(np.ones(13, np.float32)),
    }
    with dl.why_compiled(show=False) as compiled:
        assert is_finite(tree)
    assert not compiled
