"""Two LSTM layers listen to spoken digits: ten words, six voices, 100 frames of 10 cepstral
coefficients each.

LSTM(64), LSTM(64), Dense(10) on the last state; softmax cross-entropy; Adam with gradients clipped
to norm 1, its step size going from 4e-3 to 0 along a cosine; batches of 64. The frames of a
recording span it from its beginning to its end, however long it is.

    python -m experiments.spoken_digits_lstm         # about 3 minutes on two cores; --seeds 1 for a
    third of that

Data: 3,000 recordings of 0.1 to 2.3 seconds (Jackson et al., 2018), in the official split into
2,700 and 300, downloaded once.
Expect: mean test accuracy of 3 runs at least 0.95.
"""

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import optax

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, first, run, show_table, write_result
from jaxdl import data, losses, metrics

GOALS = (Goal("mean_test_accuracy", 0.95),)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the first run; each further run has the next.
        seeds: how many runs.
        epochs: of each run.
        batch_size: recordings a step.
        learning_rate: Adam's, at the start.
        out: where the results go.
        quick: one run of two epochs on 500 recordings.
    """

    seed: int = 0
    seeds: int = 3
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 4e-3
    out: Path = Path("runs/spoken_digits_lstm")
    quick: bool = False


def subject(config: Config) -> dict[str, Any]:
    """The arguments of `fit` that `python -m jaxdl compare spoken_digits_lstm` times, too."""
    train, test = data.spoken_digits()
    if config.quick:
        train = first(500, train)
    steps = epochs_of(config) * -(-len(train[1]) // config.batch_size)
    return {
        "model": dl.Sequential(dl.LSTM(64), dl.LSTM(64, sequence=False), dl.Dense(10)),
        "data": train,
        "loss": losses.softmax_cross_entropy,
        "optimizer": optax.adam(optax.cosine_decay_schedule(config.learning_rate, steps)),
        "batch_size": config.batch_size,
        "metrics": {"accuracy": metrics.accuracy},
        "validation": test,
        "clip_norm": 1.0,
    }


def epochs_of(config: Config) -> int:
    return min(config.epochs, 2) if config.quick else config.epochs


def main(config: Config) -> dict[str, Any]:
    recipe = subject(config)
    model, test = recipe["model"], recipe["validation"]
    runs = [
        dl.fit(**recipe, epochs=epochs_of(config), seed=config.seed + index)
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
        f"Spoken digits: mean test accuracy {figures['mean_test_accuracy']:.4f}",
        ["seed", "epochs", "training accuracy", "test accuracy", "s an epoch"],
        [row(config.seed + index, each.history) for index, each in enumerate(runs)],
    )
    pictures.save(
        pictures.curves_of_seeds([each.history for each in runs], "accuracy"),
        config.out,
        "accuracy",
    )
    pictures.save(
        pictures.confusion(confusion["matrix"], range(10)), config.out, "confusion_matrix"
    )
    write_result("spoken_digits_lstm", config, figures, GOALS)
    return figures


def row(seed: int, history: dict[str, list[Any]]) -> list[Any]:
    accuracies = (f"{history[name][-1]:.4f}" for name in ("accuracy", "validation_accuracy"))
    return [
        seed,
        len(history["loss"]),
        *accuracies,
        f"{statistics.median(history['seconds']):.2f}",
    ]


if __name__ == "__main__":
    run(main, Config, __doc__)
