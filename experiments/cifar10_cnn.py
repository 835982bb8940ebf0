"""A plain convolutional network on CIFAR-10: what ten epochs of the simplest recipe reach.

Conv32-pool-Conv64-pool-Conv128-pool-Dense128-Dense10: 3×3 convolutions without padding, each
followed by relu, maximum pooling over 2×2; Adam with step size 1e-3, batches of 64, 10 epochs.
Images stay uint8, and the first layer reads them as x / 255. `cifar10_resnet` shows what
normalisation, residual blocks, augmentation and a schedule add.

    python -m experiments.cifar10_cnn                # about 10 minutes on two cores; --seeds 1 for
    a third of that

Data: 50,000 + 10,000 photographs of 32×32 pixels in ten classes (Krizhevsky, 2009), downloaded
once.
Expect: mean test accuracy of 3 runs at least 0.69. Keras, with the same recipe: 0.700 ± 0.007.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import optax

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, metrics, models

GOALS = (Goal("mean_test_accuracy", 0.69),)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the first run; each further run has the next.
        seeds: how many runs.
        epochs: of each run.
        batch_size: examples a step.
        learning_rate: Adam's.
        out: where the results go.
        quick: one run of two epochs on 2,000 images.
    """

    seed: int = 0
    seeds: int = 3
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    out: Path = Path("runs/cifar10_cnn")
    quick: bool = False


def subject(config: Config) -> dict[str, Any]:
    """The arguments of `fit` that `python -m jaxdl compare cifar10_cnn` times, too."""
    train, test = data.cifar10()
    if config.quick:
        train, test = first(2000, train), first(1000, test)
    return {
        "model": models.cnn(32, 64, 128, pool=2, padding="VALID", head=(128, 10)),
        "data": train,
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(config.learning_rate),
        "batch_size": config.batch_size,
        "metrics": {"accuracy": metrics.accuracy},
        "validation": test,
    }


def main(config: Config) -> dict[str, Any]:
    recipe = subject(config)
    model, test = recipe["model"], recipe["validation"]
    epochs = min(config.epochs, 2) if config.quick else config.epochs
    runs = [
        dl.fit(**recipe, epochs=epochs, seed=config.seed + index)
        for index in range(1 if config.quick else config.seeds)
    ]

    accuracies = [each.history["validation_accuracy"][-1] for each in runs]
    confusion = dl.evaluate(
        model,
        runs[0].params,
        runs[0].state,
        test,
        metrics={"matrix": metrics.ConfusionMatrix(10)},
    )
    figures = {
        "mean_test_accuracy": statistics.mean(accuracies),
        "test_accuracies": accuracies,
        "seconds_an_epoch": statistics.median(
            seconds for each in runs for seconds in each.history["seconds"]
        ),
        "compile_seconds": runs[0].compile_seconds,
        "confusion_matrix": confusion["matrix"],
        "histories": [each.history for each in runs],
    }
    show_table(
        f"CIFAR-10: mean test accuracy {figures['mean_test_accuracy']:.4f}",
        ["seed", "epochs", "training accuracy", "test accuracy", "s an epoch", "s to step 1"],
        [
            row(config.seed + index, each.history, each.compile_seconds)
            for index, each in enumerate(runs)
        ],
        "All runs share the program that the first compiles." if len(runs) > 1 else None,
    )
    pictures.save(
        pictures.curves_of_seeds([each.history for each in runs], "accuracy"),
        config.out,
        "accuracy",
    )
    pictures.save(
        pictures.confusion(confusion["matrix"], data.CIFAR10_CLASSES),
        config.out,
        "confusion_matrix",
    )
    write_result("cifar10_cnn", config, figures, GOALS)
    return figures


def row(seed: int, history: dict[str, list[Any]], compile_seconds: float) -> list[Any]:
    accuracies = (f"{history[name][-1]:.4f}" for name in ("accuracy", "validation_accuracy"))
    return [
        seed,
        len(history["loss"]),
        *accuracies,
        f"{statistics.median(history['seconds']):.1f}",
        f"{compile_seconds:.1f}",
    ]


if __name__ == "__main__":
    run(main, Config, __doc__)
