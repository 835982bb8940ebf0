"""Is a film review for or against? Three kinds of recurrent layer read 25,000 real ones, word by
word.

Each word of the 20,000 commonest is a vector (Embedding), a recurrent layer with 64 features reads
them in order, the largest value of each of its features over all words goes to Dense(1); binary
cross-entropy, Adam. The layer is SimpleRNN, GRU or LSTM.
Reviews have 10 to 2,500 words: they are padded to the next of five lengths, so that each cell
compiles five programs and computes little in vain, and what lies behind a review's end changes
nothing. Half of the words' features are dropped in training. A tenth of the training reviews is
kept from training, and tells which epoch was the best.

    python -m experiments.imdb_sentiment             # about 8 minutes on two cores; --cells lstm
    for a third of that

Data: 25,000 + 25,000 reviews (Maas et al., 2011), downloaded once; the words are those of the
training part alone.
Expect: test accuracy of the LSTM at least 0.86.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optax
from matplotlib.figure import Figure

import jaxdl as dl
from experiments import pictures
from experiments.reporting import Goal, run, show_table, write_result
from jaxdl import data, losses, metrics
from jaxdl.training.history import History

GOALS = (Goal("lstm_test_accuracy", 0.86),)
CELLS = {"simple_rnn": dl.SimpleRNN(64), "gru": dl.GRU(64), "lstm": dl.LSTM(64)}
BOUNDARIES = (100, 150, 200, 300, 400)

Reviews = tuple[list[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings.

    Args:
        seed: of the split, the initial weights, the order and dropout.
        cells: which kinds of layer.
        epochs: the most passes over the training reviews; a cell ends one epoch after its best.
        batch_size: reviews a step.
        learning_rate: Adam's.
        vocabulary: how many words have a vector of their own.
        out: where the results go.
        quick: the LSTM alone, one epoch on 640 short reviews, and 2,000 words.
    """

    seed: int = 0
    cells: tuple[Literal["simple_rnn", "gru", "lstm"], ...] = ("simple_rnn", "gru", "lstm")
    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 1e-3
    vocabulary: int = 20_000
    out: Path = Path("runs/imdb_sentiment")
    quick: bool = False


def main(config: Config) -> dict[str, Any]:
    size, boundaries = (2000, (100,)) if config.quick else (config.vocabulary, BOUNDARIES)
    train, held, test = reviews(config, size)
    runs, accuracies = {}, {}
    for cell in ("lstm",) if config.quick else config.cells:
        model = dl.Sequential(
            dl.Embedding(size, 64),
            dl.Dropout(0.5),
            CELLS[cell],
            dl.GlobalMaxPool(),
            dl.Dropout(0.5),
            dl.Dense(1),
        )
        runs[cell] = dl.fit(
            model,
            data.Buckets(
                *train, batch_size=config.batch_size, boundaries=boundaries, seed=config.seed
            ),
            loss=losses.binary_cross_entropy,
            optimizer=optax.adam(config.learning_rate),
            epochs=1 if config.quick else config.epochs,
            metrics={"accuracy": metrics.accuracy},
            validation=data.Buckets(*held, batch_size=256, boundaries=boundaries),
            early_stopping=dl.EarlyStopping(patience=2),
            new_shapes=True,
            seed=config.seed,
        )
        tested = data.Buckets(*test, batch_size=256, boundaries=boundaries)
        accuracies[cell] = dl.evaluate(
            model,
            runs[cell].params,
            runs[cell].state,
            tested,
            metrics={"accuracy": metrics.accuracy},
        )["accuracy"]

    figures = {
        **{f"{cell}_test_accuracy": accuracy for cell, accuracy in accuracies.items()},
        "histories": {cell: each.history for cell, each in runs.items()},
        "seconds": {cell: sum(each.history["seconds"]) for cell, each in runs.items()},
    }
    show_table(
        "IMDB: accuracy on reviews never seen",
        [
            "cell",
            "best epoch",
            "training accuracy",
            "held-out accuracy",
            "test accuracy",
            "s an epoch",
        ],
        [row(cell, each, accuracies[cell]) for cell, each in runs.items()],
    )
    pictures.save(
        curves({cell: each.history for cell, each in runs.items()}), config.out, "accuracy"
    )
    write_result("imdb_sentiment", config, figures, GOALS)
    return figures


def reviews(config: Config, size: int) -> tuple[Reviews, Reviews, Reviews]:
    """Reviews as word numbers: nine tenths of the training part, the tenth that is held out, and
    the test part.
    """
    (texts, labels), (test_texts, test_labels) = data.imdb()
    order = np.random.default_rng(config.seed).permutation(len(texts))
    test_order = np.arange(len(test_texts))
    if config.quick:
        order, test_order = order[:711], np.random.default_rng(0).permutation(test_order)[:200]
    count = len(order) // 10
    words = data.Vocabulary.of([texts[index] for index in order[count:]], size=size)

    def read(texts: list[str], labels: np.ndarray, rows: np.ndarray) -> Reviews:
        return words.encode([texts[index] for index in rows]), labels[rows, None]

    return (
        read(texts, labels, order[count:]),
        read(texts, labels, order[:count]),
        read(test_texts, test_labels, test_order),
    )


def row(cell: str, trained: dl.Run, accuracy: float) -> list[Any]:
    history, best = trained.history, trained.best.epoch if trained.best else 0
    shown = (f"{history[name][best]:.4f}" for name in ("accuracy", "validation_accuracy"))
    return [cell, best + 1, *shown, f"{accuracy:.4f}", f"{np.median(history['seconds']):.1f}"]


def curves(histories: dict[str, History]) -> Figure:
    """Accuracy over the epochs, training dashed and held-out solid, a colour for each cell."""
    figure, (axis,) = pictures.panels(1)
    for number, (cell, history) in enumerate(histories.items()):
        epochs = range(1, len(history["accuracy"]) + 1)
        axis.plot(
            epochs,
            history["accuracy"],
            "o--",
            markersize=3,
            color=f"C{number}",
            label=f"{cell}, training",
        )
        axis.plot(
            epochs,
            history["validation_accuracy"],
            "o-",
            markersize=3,
            color=f"C{number}",
            label=f"{cell}, held out",
        )
    axis.set_ylabel("accuracy")
    pictures.count_epochs(axis)
    axis.legend(fontsize="small")
    return figure


if __name__ == "__main__":
    run(main, Config, __doc__)
