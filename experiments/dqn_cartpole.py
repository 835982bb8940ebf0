"""A pole balanced on a cart by deep Q-learning: the game, the memory and the training step are one
program.

A network of 128-128 units estimates the discounted return Q(s, a) of pushing the cart left or
right. Its loss is the square of Q(s, a) − r − γ Q⁻(s′, argmax Q(s′, ·)), with 0 in place of Q⁻
where the pole fell (double Q-learning); the target network Q⁻ follows by θ⁻ ← θ⁻ + τ (θ − θ⁻) as a
part of the objective's state. Sixteen games are played side by side with an ε-greedy policy; after
each push one batch is drawn from all transitions so far. The game is pure JAX and `make_step`
returns a pure function, so that playing, remembering and learning are the body of one `lax.scan`.
γ = 0.98, τ = 0.02, Adam, and a step size that falls to zero. A good policy rarely falls, and
Huber's loss, to whose slope a fall is one more error, let the cart run off the track again.

    python -m experiments.dqn_cartpole               # --quick for a short form

After every thousand updates 32 games are played greedily; the parameters that played best are
judged in 100 other games. There are three runs.

Data: none; the equations of motion, bounds and time step of Barto, Sutton and Anderson, integrated
by Euler's method and ended after 500 pushes, as in CartPole-v1.
Source: Mnih et al., *Human-level control through deep reinforcement learning* (2015); van Hasselt,
Guez, Silver, *Deep reinforcement learning with double Q-learning* (2016); Barto, Sutton, Anderson,
*Neuronlike adaptive elements that can solve difficult learning control problems* (1983).
Expect: a mean return of 100 games of at least 475 in the worst of three runs, which is the bar of
CartPole-v1.
"""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Key
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import losses, models
from jaxdl.core.layer import Params, State

GOALS = (Goal("least_mean_return", 475.0),)
LIMIT = 500
UPDATES = 1000
"""Of a stage."""
GRAVITY = 9.8
CART = 1.0
POLE = 0.1
HALF_LENGTH = 0.5
FORCE = 10.0
INTERVAL = 0.02
LARGEST_POSITION = 2.4
LARGEST_ANGLE = 12 * np.pi / 180
SCALE = np.array([LARGEST_POSITION, 2.0, LARGEST_ANGLE, 2.0], np.float32)
"""What states are divided by for the network."""


def scaled(state: Float[Array, "batch 4"]) -> Float[Array, "batch 4"]:
    return state / SCALE[None]


NETWORK = dl.Sequential(scaled, *models.mlp(128, 128, 2))


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the first run; each further run has the next.
        seeds: how many runs.
        epochs: stages of a thousand updates.
        games: how many are played side by side.
        capacity: how many transitions are remembered.
        batch_size: transitions a step.
        learning_rate: Adam's, at the start.
        discount: γ.
        follow: τ, how far the target network moves in a step.
        exploring: after how many updates ε has fallen from 1 to 0.05.
        out: where the results go.
        quick: one run of one stage.
    """

    seed: int = 0
    seeds: int = 3
    epochs: int = 24
    games: int = 16
    capacity: int = 500_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    discount: float = 0.98
    follow: float = 0.02
    exploring: int = 5000
    out: Path = Path("runs/dqn_cartpole")
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class DoubleQ(dl.Objective):
    """The error of Q(s, a) against what one step on, and the target network from there, say.

    Args:
        model: Q, from a state to the return of each action.
        discount: γ.
        follow: τ.
    """

    model: dl.Layer
    discount: float
    follow: float

    def init(self, key: Array, batch: dl.Batch) -> tuple[Params, State]:
        params, _ = self.model.init(key, batch.inputs["before"])
        return params, {"target": params}

    def loss(
        self, params: Params, state: State, batch: dl.Batch, mode: dl.Mode
    ) -> tuple[Array, State, dict[str, Array]]:
        q = dl.forward(self.model, {})
        seen = batch.inputs
        chosen = q(params, seen["after"]).argmax(-1)
        later = of_action(q(state["target"], seen["after"]), chosen)
        goes_on = 1 - seen["fell"].astype(jnp.float32)
        wanted = lax.stop_gradient(seen["reward"] + self.discount * goes_on * later)
        found = of_action(q(params, seen["before"]), seen["action"])
        target = optax.incremental_update(params, state["target"], self.follow)
        return losses.mean_squared_error(found, wanted), {"target": target}, {"value": found}


def of_action(
    values: Float[Array, "batch actions"], action: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """The value of the action of each row."""
    return jnp.take_along_axis(values, action[:, None], axis=1)[:, 0]


def push(
    state: Float[Array, "games 4"], action: Int[Array, " games"]
) -> Float[Array, "games 4"]:
    """The states a fiftieth of a second on.

    Args:
        state: position of the cart in metres, its velocity, the angle of the pole in radians, its
            velocity.
        action: 0 is a push to the left, 1 to the right.

    Source: Barto, Sutton, Anderson (1983), appendix, without friction.
    """
    _, speed, angle, spin = state.T
    sine = jnp.sin(angle)
    cosine = jnp.cos(angle)
    force = jnp.where(action == 1, FORCE, -FORCE)
    mass = CART + POLE
    drive = (force + POLE * HALF_LENGTH * spin**2 * sine) / mass
    inertia = HALF_LENGTH * (4 / 3 - POLE * cosine**2 / mass)
    turning = (GRAVITY * sine - cosine * drive) / inertia
    pull = drive - POLE * HALF_LENGTH * turning * cosine / mass
    rates = jnp.stack([speed, pull, spin, turning], axis=-1)
    return state + INTERVAL * rates


def fallen(state: Float[Array, "games 4"]) -> Bool[Array, " games"]:
    """Whether the cart has left the track, or the pole its cone."""
    return (jnp.abs(state[:, 0]) > LARGEST_POSITION) | (jnp.abs(state[:, 2]) > LARGEST_ANGLE)


def begun(key: Key[Array, ""], games: int) -> Float[Array, "games 4"]:
    """So many games at their beginning, nearly upright and at rest."""
    return jax.random.uniform(key, (games, 4), minval=-0.05, maxval=0.05)


def returns(params: Params, key: Key[Array, ""], games: int) -> Float[Array, " games"]:
    """The returns of games that are played greedily: how many pushes each pole outlives, at most
    500.
    """

    def one(carry: Any, _: None) -> Any:
        state, alive, total = carry
        state = push(state, dl.forward(NETWORK, {})(params, state).argmax(-1))
        total = total + alive
        return (state, alive & ~fallen(state), total), None

    start = (begun(key, games), jnp.ones(games, bool), jnp.zeros(games, jnp.int32))
    (_, _, total), _ = lax.scan(one, start, length=LIMIT)
    return total.astype(jnp.float32)


class Playing(NamedTuple):
    """What a run changes.

    Args:
        train_state: of the training step.
        state: of the games, [games, 4].
        pushes: in each of the games so far, [games].
        memory: the last transitions, a dict of arrays [capacity, ...].
        updates: how many were made, int32 scalar.
        key: what the policy and the memory draw from.
    """

    train_state: dl.TrainState
    state: Array
    pushes: Array
    memory: dict[str, Array]
    updates: Array
    key: Array


def first_playing(step: dl.TrainingStep, config: Config, seed: int) -> Playing:
    """New games and a memory of zeros."""
    key = jax.random.key(seed)
    capacity = config.capacity - config.capacity % config.games
    memory = {
        "before": jnp.zeros((capacity, 4)),
        "after": jnp.zeros((capacity, 4)),
        "action": jnp.zeros(capacity, jnp.int32),
        "reward": jnp.zeros(capacity),
        "fell": jnp.zeros(capacity, bool),
    }
    example = jax.tree.map(lambda rows: rows[: config.batch_size], memory)
    train_state = step.init(jax.random.fold_in(key, 0), dl.Batch(example, ()))
    state = begun(jax.random.fold_in(key, 1), config.games)
    pushes = jnp.zeros(config.games, jnp.int32)
    return Playing(train_state, state, pushes, memory, jnp.int32(0), jax.random.fold_in(key, 2))


@functools.partial(jax.jit, static_argnames=("step", "config", "updates"))
def play(
    playing: Playing, step: dl.TrainingStep, config: Config, updates: int
) -> tuple[Playing, Float[Array, " updates"]]:
    """Pushes each cart, remembers what came of it, and learns from a batch: so many times.

    Returns:
        What the run is then, and the loss of each update.
    """

    def one(playing: Playing, _: None) -> tuple[Playing, Array]:
        keys = jax.random.split(jax.random.fold_in(playing.key, playing.updates), 4)
        playing = remembered(playing, keys, config)
        rows = next(iter(playing.memory.values())).shape[0]
        filled = jnp.minimum((playing.updates + 1) * config.games, rows)
        drawn = jax.random.randint(keys[3], (config.batch_size,), 0, filled)
        batch = jax.tree.map(lambda rows: rows[drawn], playing.memory)
        train_state, measured = step(playing.train_state, dl.Batch(batch, ()))
        loss, weight = measured.sums["loss"]
        updates = playing.updates + 1
        return playing._replace(train_state=train_state, updates=updates), loss / weight

    return lax.scan(one, playing, length=updates)


def remembered(playing: Playing, keys: Key[Array, " 4"], config: Config) -> Playing:
    """One push in each game, written over the oldest transitions; games that ended begin anew."""
    q = dl.forward(NETWORK, {})(playing.train_state.params, playing.state)
    share = jnp.minimum(playing.updates / config.exploring, 1)
    explores = jax.random.uniform(keys[0], (config.games,)) < 1 - 0.95 * share
    at_random = jax.random.randint(keys[1], (config.games,), 0, 2)
    action = jnp.where(explores, at_random, q.argmax(-1))
    after = push(playing.state, action)
    fell = fallen(after)
    transition = {
        "before": playing.state,
        "after": after,
        "action": action,
        "reward": jnp.ones(config.games),
        "fell": fell,
    }
    rows = playing.memory["fell"].shape[0]
    place = playing.updates * config.games % rows
    memory = {
        name: lax.dynamic_update_slice_in_dim(playing.memory[name], new, place, axis=0)
        for name, new in transition.items()
    }
    pushes = playing.pushes + 1
    ended = fell | (pushes >= LIMIT)
    return playing._replace(
        state=jnp.where(ended[:, None], begun(keys[2], config.games), after),
        pushes=jnp.where(ended, 0, pushes),
        memory=memory,
    )


class Played(NamedTuple):
    """The outcome of a run.

    Args:
        returns: of the 100 games that judge it.
        history: of each stage: the mean return of 32 games, and the mean loss.
        best: the number of the stage whose parameters were judged, from 1.
        seconds: of playing and learning, compiled.
    """

    returns: np.ndarray
    history: dict[str, list[float]]
    best: int
    seconds: float


def learn(config: Config, seed: int) -> Played:
    """Plays and learns; judges the parameters of the best stage."""
    schedule = optax.linear_schedule(config.learning_rate, 0.0, config.epochs * UPDATES)
    objective = DoubleQ(NETWORK, config.discount, config.follow)
    step, _ = dl.make_step(objective, optimizer=optax.adam(schedule), clip_norm=100.0)
    judged = jax.jit(returns, static_argnames="games")
    game_key = jax.random.fold_in(jax.random.key(seed), 3)
    playing = first_playing(step, config, seed)
    history: dict[str, list[float]] = {"return": [], "loss": []}
    best = (-1.0, 0, playing.train_state.params)
    seconds = 0.0
    for stage in range(1, config.epochs + 1):
        began = time.perf_counter()
        playing, each = play(playing, step, config, UPDATES)
        history["loss"].append(float(each.mean()))
        seconds += time.perf_counter() - began
        params = playing.train_state.params
        mean = float(judged(params, jax.random.fold_in(game_key, stage), 32).mean())
        history["return"].append(mean)
        if mean >= best[0]:
            best = (mean, stage, params)
    final = judged(best[2], jax.random.fold_in(game_key, 0), 100)
    return Played(np.asarray(final), history, best[1], seconds)


def main(config: Config) -> dict[str, Any]:
    if config.quick:
        config = dataclasses.replace(config, seeds=1, epochs=1)
    played = [learn(config, config.seed + index) for index in range(config.seeds)]
    means = [float(each.returns.mean()) for each in played]
    figures = {
        "least_mean_return": min(means),
        "mean_returns": means,
        "least_returns": [float(each.returns.min()) for each in played],
        "best_stages": [each.best for each in played],
        "seconds_a_run": [each.seconds for each in played],
        "histories": [each.history for each in played],
    }
    show_table(
        f"Cart-pole: mean return of 100 games, at least {min(means):.1f}",
        ["seed", "updates", "best after", "mean return", "least return", "seconds"],
        [row(config.seed + index, each) for index, each in enumerate(played)],
    )
    pictures.save(curves(played), config.out, "returns")
    write_result("dqn_cartpole", config, figures, GOALS)
    return figures


def row(seed: int, played: Played) -> list[Any]:
    return [
        seed,
        f"{len(played.history['loss'])} thousand",
        f"{played.best} thousand",
        f"{played.returns.mean():.1f}",
        f"{played.returns.min():.0f}",
        f"{played.seconds:.0f}",
    ]


def curves(played: list[Played]) -> Figure:
    """The return of greedy games and the loss of learning, over the updates."""
    figure, axes = pictures.panels(2)
    for axis, name, label in zip(
        axes, ("return", "loss"), ("mean return of 32 games", "loss"), strict=True
    ):
        for number, each in enumerate(played):
            stages = range(1, len(each.history[name]) + 1)
            axis.plot(stages, each.history[name], color=f"C{number}", label=f"run {number + 1}")
        axis.set(xlabel="thousand updates", ylabel=label)
        axis.legend(fontsize="small")
    axes[0].axhline(475, color="grey", linestyle=":")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
