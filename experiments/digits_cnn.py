"""What does compiling buy? A small convolutional network on real handwritten digits, trained three
ways.

The same step, from the same seed and with the same recipe, is run operation by operation ("eager"),
as one compiled step after another ("step"), and as a compiled loop over whole epochs ("epoch"). The
numbers agree to rounding; the time does not.

The network is two convolutions, a pooling and a third convolution, trained for 30 epochs by Adam
whose step size rises and falls once. Shifting images by up to a pixel and dropping three tenths of
the last features makes 1,437 images go further.

    python -m experiments.digits_cnn                 # about half a minute on two cores

Data: 1,797 digits of 8×8 pixels (Alpaydin and Kaynak, 1998), which come with scikit-learn.
Expect: test accuracy 0.99 (at least 0.975); eager takes five to ten times as long as compiled, and
its parameters agree to 1e-6. By the step takes about as long as by the epoch, since a step of this
network is 5 ms of arithmetic; smaller ones gain.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import data, losses, metrics
from jaxdl.data import augment

GOALS = (Goal("test_accuracy", 0.975),)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the weights, the order of examples, dropout and shifts.
        epochs: of the main run; the step size falls to zero at its end.
        compared_epochs: of each of the three ways side by side; few, since eager is slow.
        batch_size: examples a step.
        learning_rate: at its peak.
        out: where the results go.
        quick: the first two epochs of the same recipe, and one of each way.
    """

    seed: int = 0
    epochs: int = 30
    compared_epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 3e-3
    out: Path = Path("runs/digits_cnn")
    quick: bool = False


def network() -> dl.Layer:
    return dl.Sequential(
        dl.Conv(32, 3),
        jax.nn.relu,
        dl.Conv(32, 3),
        jax.nn.relu,
        dl.MaxPool(2),
        dl.Conv(64, 3),
        jax.nn.relu,
        dl.Flatten(),
        dl.Dropout(0.3),
        dl.Dense(10),
    )


def shift(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves each image by up to a pixel in each direction."""
    return augment.crop(key, images, padding=1, mode="constant"), labels


def subject(config: Config) -> dict[str, Any]:
    """The arguments of `fit` that `python -m jaxdl compare digits_cnn` times, too."""
    train, test = data.digits()
    steps = config.epochs * -(-len(train[1]) // config.batch_size)
    return {
        "model": network(),
        "data": train,
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(optax.cosine_onecycle_schedule(steps, config.learning_rate)),
        "batch_size": config.batch_size,
        "augment": shift,
        "metrics": {"accuracy": metrics.accuracy},
        "validation": test,
        "seed": config.seed,
    }


def main(config: Config) -> dict[str, Any]:
    console = Console(highlight=False)
    recipe = subject(config)
    model, test = recipe["model"], recipe["validation"]
    epochs = min(config.epochs, 2) if config.quick else config.epochs
    compared_epochs = 1 if config.quick else min(config.compared_epochs, epochs)
    trained = dl.fit(**recipe, epochs=epochs, compile="epoch")
    ways = {}
    for way in ("epoch", "step", "eager"):
        with console.status(f"the first epochs again, compile={way!r}"):
            ways[way] = dl.fit(**recipe, epochs=compared_epochs, compile=way, progress=False)

    tested = {"accuracy": metrics.accuracy, "confusion": metrics.ConfusionMatrix(10)}
    measured = dl.evaluate(model, trained.params, trained.state, test, metrics=tested)
    figures = {
        "test_accuracy": measured["accuracy"],
        "seconds_an_epoch": statistics.median(trained.history["seconds"]),
        "seconds_to_first_step": trained.compile_seconds,
        "ways": {way: compared(each, ways["epoch"]) for way, each in ways.items()},
        "training": trained.history,
    }
    show(figures)

    pictures.save(trained.plot(), config.out, "learning_curves")
    pictures.save(
        pictures.confusion(measured["confusion"], range(10)), config.out, "confusion_matrix"
    )
    write_result("digits_cnn", config, figures, GOALS)
    return figures


def compared(one: dl.Run, reference: dl.Run) -> dict[str, float]:
    """What a run took, and how far its losses and parameters are from those of the reference."""
    steady, steady_reference = (
        statistics.median(each.history["seconds"]) for each in (one, reference)
    )
    return {
        "epochs": len(one.history["loss"]),
        "test_accuracy": one.history["validation_accuracy"][-1],
        "seconds_an_epoch": steady,
        "times_as_long": steady / steady_reference,
        "seconds_to_first_step": one.compile_seconds,
        "loss_difference": float(
            np.abs(np.subtract(one.history["loss"], reference.history["loss"])).max()
        ),
        "parameter_difference": largest_difference(one.params, reference.params),
    }


def largest_difference(these: dict[str, Any], those: dict[str, Any]) -> float:
    return max(
        jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), these, those))
    )


def show(figures: dict[str, Any]) -> None:
    def row(way: str, each: dict[str, Any], to_first_step: str) -> list[Any]:
        times = (
            f"{each['seconds_an_epoch']:.3f}",
            f"{each['times_as_long']:.1f}" if "times_as_long" in each else None,
        )
        differences = (
            f"{each[name]:.0e}" if name in each else None
            for name in ("loss_difference", "parameter_difference")
        )
        return [
            way,
            each["epochs"],
            f"{each['test_accuracy']:.4f}",
            *times,
            to_first_step,
            *differences,
        ]

    main_run = figures | {"epochs": len(figures["training"]["loss"])}
    compiling = {
        way: f"{each['seconds_to_first_step']:.1f}" for way, each in figures["ways"].items()
    } | {"epoch": "as above"}
    few = figures["ways"]["epoch"]["epochs"]
    show_table(
        "Compiled by the epoch, jitted by the step, and eagerly: accuracy on the test set, and "
        "time",
        [
            "compile",
            "epochs",
            "accuracy",
            "s an epoch",
            "ratio",
            "s to step 1",
            "Δ loss",
            "Δ params",
        ],
        [
            row("epoch", main_run, f"{figures['seconds_to_first_step']:.1f}"),
            *(row(way, each, compiling[way]) for way, each in figures["ways"].items()),
        ],
        f"The first row is the main run; side by side, {few} of its epochs in each way, few "
        f"because eager is slow. Seconds an "
        "epoch are medians without compiling, which comes before step 1. Δ: the largest difference "
        "from compiled epochs.",
    )


if __name__ == "__main__":
    run(main, Config, __doc__)
