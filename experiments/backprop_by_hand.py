"""What does the library do for you? Two networks with every derivative written by hand, beside the
same two in jaxdl.

A network learns by walking downhill: each of its numbers is moved against the derivative of the
loss by that number. Here the derivatives are found twice. By hand, in plain NumPy, as one would on
paper: `experiments/by_hand` has two chapters, to be read in order and before this page, a network
of two layers of sigmoids and a convolutional one. And by jaxdl, where a network is one expression,
as below, and `jax.grad` gives the derivatives of whatever was written.

Then it asks three things. Are the derivatives the same? (By every parameter and every pixel, with
16 digits, before training and after it.) Do both learn the same? (From the same weights, on the
same batches in the same order.) And how long does a step
of learning take: in NumPy; in JAX one operation after another ("eager"); in JAX as one compiled
program; and in `dl.fit`, which makes one program of whole epochs?

    python -m experiments.backprop_by_hand           # half a minute on two cores

Data: 1,797 digits of 8×8 pixels (Alpaydin and Kaynak, 1998), which come with scikit-learn.
Source: Rumelhart, Hinton, Williams, *Learning representations by back-propagating errors* (1986).
Expect: derivatives that agree to 1e-14 of the largest (at most 1e-8), losses to 1e-5, and 0.96 of
the test digits read aright. Compiled, `fit` takes about a third of NumPy's time for the first
network and two thirds for the second. Eager takes sixty to
two hundred times as long as NumPy: in each step JAX works out the derivatives anew and calls every
operation from Python, which for arrays this small costs far more than the arithmetic.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from matplotlib.axes import Axes
from rich.console import Console

import jaxdl as dl
from experiments import pictures
from experiments.by_hand import convolutional_network, sigmoid_network
from experiments.by_hand.sigmoid_network import Params
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses

GOALS = (Goal("gradient_error", 1e-8, "at most"), Goal("loss_difference", 1e-4, "at most"))

BY_HAND, BY_FIT = "NumPy, by hand", "jaxdl, fit"

Examples = tuple[np.ndarray, np.ndarray]
"""Inputs and targets, with one entry an example."""

Step = Callable[[Params, Any, Any], tuple[Any, Params]]
"""`step(params, x, targets) -> (loss, params)`: one move downhill."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the initial weights.
        epochs: passes over the training set; the examples keep their order, so that both sides see
            the same batches.
        batch_size: examples a step.
        rounds: how often each way is timed, one after another in turn; medians count.
        out: where the results go.
        quick: 2 epochs over the first four batches, and one round.
    """

    seed: int = 0
    epochs: int = 40
    batch_size: int = 32
    rounds: int = 7
    out: Path = Path("runs/backprop_by_hand")
    quick: bool = False


@dataclasses.dataclass(frozen=True)
class Network:
    """One network, written twice.

    Args:
        by_hand: the chapter, with `outputs` and `gradients`.
        model: in jaxdl, which needs no backward pass.
        loss: what is to fall.
        rate: how far a step goes, in w ← w − rate · ∂L/∂w.
        prepare: images [n, 8, 8, 1] and labels [n] as this network takes them.
    """

    by_hand: ModuleType
    model: dl.Layer
    loss: Callable[..., jax.Array]
    rate: float
    prepare: Callable[[Examples], Examples]


def rows_and_ones(examples: Examples) -> Examples:
    """Each picture as a row of 64 numbers; for its digit a 1 among nine zeros."""
    images, labels = examples
    return images.reshape(len(images), -1), np.eye(10, dtype=images.dtype)[labels]


NETWORKS = {
    "sigmoid": Network(
        by_hand=sigmoid_network,
        model=dl.Sequential(dl.Dense(32), jax.nn.sigmoid, dl.Dense(10), jax.nn.sigmoid),
        loss=losses.mean_squared_error,
        rate=10.0,
        prepare=rows_and_ones,
    ),
    "convolutional": Network(
        by_hand=convolutional_network,
        model=dl.Sequential(
            dl.Conv(8, 3, padding="VALID"),
            jax.nn.relu,
            dl.MaxPool(2),
            dl.Flatten(),
            dl.Dense(10),
        ),
        loss=losses.softmax_cross_entropy,
        rate=0.1,
        prepare=lambda examples: examples,
    ),
}


def main(config: Config) -> dict[str, Any]:
    console = Console(highlight=False)
    train, test = data.digits()
    if config.quick:
        train = first(4 * config.batch_size, train)
    networks = {}
    for name, network in NETWORKS.items():
        prepared = network.prepare(train)
        start = initial_weights(network, prepared, config.seed)
        epochs = min(config.epochs, 2) if config.quick else config.epochs
        trainings = ways(network)
        with console.status(
            f"{name} network: learning by hand and in jaxdl, then the time of a step"
        ):
            learnt = {
                way: trainings[way](start, prepared, epochs, config.batch_size)
                for way in (BY_HAND, BY_FIT)
            }
            milliseconds = time_ways(trainings, start, prepared, config)
        networks[name] = {
            "gradient_errors": gradient_errors(
                network, (start, learnt[BY_HAND].params), first(64, prepared)
            ),
            "losses": {way: each.losses for way, each in learnt.items()},
            "test_accuracy": {
                way: accuracy(network, way, each.params, test) for way, each in learnt.items()
            },
            "milliseconds_a_step": milliseconds,
        }

    errors = [error for each in networks.values() for error in each["gradient_errors"].values()]
    differences = [
        np.abs(np.subtract(*each["losses"].values())).max() for each in networks.values()
    ]
    figures = {
        "gradient_error": float(np.max(errors)),
        "loss_difference": float(np.max(differences)),
        "networks": networks,
    }
    show(networks)
    draw(networks, config)
    write_result("backprop_by_hand", config, figures, GOALS)
    return figures


def initial_weights(network: Network, train: Examples, seed: int) -> Params:
    """What jaxdl draws to begin with; arrays of NumPy, in dicts that both sides read."""
    params, _ = jax.jit(network.model.init)(jax.random.key(seed), train[0][:1])
    return jax.tree.map(np.asarray, params)


def step_by_hand(network: Network, params: Params, x: Any, targets: Any) -> tuple[Any, Params]:
    """The derivatives of the chapter, and a step against them."""
    loss, by_params, _ = network.by_hand.gradients(params, x, targets)
    return loss, {
        part: {
            name: weights - network.rate * by_params[part][name]
            for name, weights in arrays.items()
        }
        for part, arrays in params.items()
    }


def step_in_jax(network: Network, params: Params, x: Any, targets: Any) -> tuple[Any, Params]:
    """The same from the forward pass alone. It works for any model, and no chapter has to be
    written.
    """
    loss, by_params = jax.value_and_grad(mean_loss, argnums=1)(network, params, x, targets)
    return loss, jax.tree.map(lambda w, by_w: w - network.rate * by_w, params, by_params)


def mean_loss(network: Network, params: Params, x: Any, targets: Any) -> jax.Array:
    outputs = dl.forward(network.model, {})(params, x)
    return network.loss(outputs, targets).mean()


def gradient_errors(
    network: Network, weights: tuple[Params, ...], batch: Examples
) -> dict[str, float]:
    """How far the derivatives by hand are from those of `jax.grad`: by each array, the worst over
    the given weights.

    Both are computed in float64, where a rounding is 1e-16. The error of an array is max |by hand −
    jax| / max |jax|.
    """
    x, targets = in_float64(batch)
    errors: dict[str, list[float]] = {}
    for params in map(in_float64, weights):
        _, *by_hand = network.by_hand.gradients(params, x, targets, pixels=True)
        with jax.enable_x64(True):
            expected = jax.jit(jax.grad(mean_loss, argnums=(1, 2)), static_argnums=0)(
                network, params, x, targets
            )
        differences = jax.tree.map(
            relative_difference, tuple(by_hand), jax.tree.map(np.asarray, expected)
        )
        for path, difference in jax.tree.leaves_with_path(differences):
            place = " ".join(key.key for key in path[1:]) or "input"
            errors.setdefault(place, []).append(difference)
    return {place: float(np.max(each)) for place, each in errors.items()}


def in_float64(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, tree
    )


def relative_difference(ours: np.ndarray, expected: np.ndarray) -> float:
    """max |ours − expected| / max |expected|; where all that is expected is 0, the difference
    itself.
    """
    return float(np.abs(ours - expected).max() / (np.abs(expected).max() or 1.0))


class Learnt(NamedTuple):
    """What came of training.

    Args:
        params: the weights at the end.
        losses: the mean over the examples, by epoch.
        seconds: of all steps together, without compiling.
    """

    params: Params
    losses: list[float]
    seconds: float


Training = Callable[[Params, Examples, int, int], Learnt]
"""`training(start, train, epochs, batch_size)`, on the batches as they lie."""


def ways(network: Network) -> dict[str, Training]:
    """The four ways to train a network."""
    in_jax = functools.partial(step_in_jax, network)
    return {
        BY_HAND: functools.partial(descend, functools.partial(step_by_hand, network)),
        "JAX, eager": functools.partial(descend, in_jax),
        "JAX, compiled": functools.partial(descend, jax.jit(in_jax)),
        BY_FIT: functools.partial(fit, network, optax.sgd(network.rate)),
    }


def descend(
    step: Step, params: Params, train: Examples, epochs: int, batch_size: int
) -> Learnt:
    """A training loop in a few lines, for NumPy and for JAX."""
    inputs, targets = train
    began, met = time.perf_counter(), []
    for _ in range(epochs):
        for row in range(0, len(inputs), batch_size):
            loss, params = step(
                params, inputs[row : row + batch_size], targets[row : row + batch_size]
            )
            met.append(loss)
    jax.block_until_ready(params)
    seconds = time.perf_counter() - began
    sizes = [len(inputs[row : row + batch_size]) for row in range(0, len(inputs), batch_size)]
    by_epoch = np.asarray(met, np.float64).reshape(epochs, -1)
    return Learnt(params, np.average(by_epoch, axis=1, weights=sizes).tolist(), seconds)


def fit(
    network: Network,
    optimizer: optax.GradientTransformation,
    params: Params,
    train: Examples,
    epochs: int,
    batch_size: int,
) -> Learnt:
    """The library's own loop, which also shuffles, measures, validates and stops early where it is
    asked to.
    """
    trained = dl.fit(
        network.model,
        train,
        loss=network.loss,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        initial=(params, {}),
        shuffle=False,
        progress=False,
    )
    return Learnt(trained.params, trained.history["loss"], sum(trained.history["seconds"]))


def accuracy(network: Network, way: str, params: Params, test: Examples) -> float:
    """The share of pictures whose digit has the largest output."""
    x, _ = network.prepare(test)
    outputs = (
        network.by_hand.outputs(params, x)
        if way == BY_HAND
        else dl.predict(network.model, params, {}, x)
    )
    return float((np.asarray(outputs).argmax(1) == test[1]).mean())


def time_ways(
    trainings: dict[str, Training], start: Params, train: Examples, config: Config
) -> dict[str, float]:
    """Milliseconds a step in each way: the median over rounds, in each of which all ways take their
    turn.

    The first round warms up, and does not count. A step is all that happens in it: to cut a batch
    from the training set, the loss, its derivatives, the new weights. In a round each way runs for
    ten epochs, and eager, which is slow, for one.
    """
    steps = -(-len(train[0]) // config.batch_size)
    rounds = []
    for _ in range(2 if config.quick else 1 + config.rounds):
        seconds = {}
        for way, training in trainings.items():
            epochs = 1 if "eager" in way else 10
            seconds[way] = training(start, train, epochs, config.batch_size).seconds / (
                epochs * steps
            )
        rounds.append(seconds)
    return {
        way: 1000 * statistics.median(seconds[way] for seconds in rounds[1:])
        for way in trainings
    }


def show(networks: dict[str, Any]) -> None:
    timed = next(iter(networks.values()))["milliseconds_a_step"]
    show_table(
        "The derivative of the loss by each array: by hand, against jax.grad, in float64",
        ["by", "relative error"],
        [
            (f"{name}: {place}", f"{error:.0e}")
            for name, each in networks.items()
            for place, error in each["gradient_errors"].items()
        ],
        "The largest difference over the largest derivative of the array; the worse of before and "
        "after training.",
    )
    show_table(
        "Learning by hand, and in jaxdl",
        ["network", "loss: by hand", "in jaxdl", "accuracy: by hand", "in jaxdl"],
        [
            (
                name,
                *(f"{losses[-1]:.6f}" for losses in each["losses"].values()),
                *(f"{share:.4f}" for share in each["test_accuracy"].values()),
            )
            for name, each in networks.items()
        ],
        "The mean loss of the last epoch; accuracy on the test set.",
    )
    show_table(
        "Milliseconds a step",
        ["", *networks],
        [
            (way, *(f"{each['milliseconds_a_step'][way]:.2g}" for each in networks.values()))
            for way in timed
        ],
        "Cutting the batch, loss, derivatives and update; medians of rounds taken in turn, without "
        "compiling.",
    )


def draw(networks: dict[str, Any], config: Config) -> None:
    figure, (errors, learning, times) = pictures.panels(3)
    for index, (name, each) in enumerate(networks.items()):
        places = [f"{name}: {place}" for place in each["gradient_errors"]]
        errors.plot(list(each["gradient_errors"].values()), places, "o", color=f"C{index}")
        by_hand, in_jaxdl = each["losses"].values()
        epochs = range(1, len(by_hand) + 1)
        learning.plot(
            epochs,
            by_hand,
            color=f"C{index}",
            linewidth=5,
            alpha=0.35,
            label=f"{name}, by hand",
        )
        learning.plot(
            epochs, in_jaxdl, "--", color=f"C{index}", linewidth=1.5, label=f"{name}, jaxdl"
        )
        bars(times, each["milliseconds_a_step"], name, index, len(networks))
    errors.axvline(
        GOALS[0].limit, color="black", linewidth=0.8, linestyle=":", label="to reach"
    )
    errors.legend(fontsize="small", loc="upper center")
    errors.set(
        title="the same derivatives",
        xlabel="relative error, by hand against jax.grad",
        xscale="log",
        xlim=(1e-17, 1e-7),
    )
    errors.invert_yaxis()
    learning.set(
        title="the same learning", ylabel="training loss (squared error; nats)", yscale="log"
    )
    pictures.count_epochs(learning)
    learning.legend(fontsize="small")
    times.set(title="not the same time", ylabel="milliseconds a step", yscale="log")
    times.margins(y=0.1)
    times.legend(fontsize="small")
    pictures.save(figure, config.out, "by_hand_and_jaxdl")


def bars(axis: Axes, milliseconds: dict[str, float], name: str, index: int, count: int) -> None:
    """A bar for each way, beside those of the other networks, with its number above."""
    width = 0.8 / count
    places = [place + (index - (count - 1) / 2) * width for place in range(len(milliseconds))]
    drawn = axis.bar(places, list(milliseconds.values()), width, color=f"C{index}", label=name)
    axis.bar_label(drawn, [f"{each:.2g}" for each in milliseconds.values()], fontsize="x-small")
    axis.set_xticks(
        range(len(milliseconds)), [way.replace(", ", ",\n") for way in milliseconds]
    )


if __name__ == "__main__":
    run(main, Config, __doc__)
