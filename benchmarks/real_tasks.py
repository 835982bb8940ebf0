"""Small tasks on real data: the next month's air passengers, a transformer's next day, ratings of
films, and images.

The first three are read from the folder `more` in `JAXDL_DATA`: `airline-passengers.csv` (Box and
Jenkins, 1976), `ETTh1.csv.xz` (Zhou et al., *Informer*, 2021), `u1.base` and `u1.test`
(MovieLens-100k: Harper and Konstan, 2015). The others are scikit-learn's, and MNIST.
"""

import csv
import lzma
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.special import logsumexp

import jaxdl as dl
from jaxdl.data.folder import data_folder

Examples = tuple[np.ndarray, np.ndarray]
Figure = Literal["MSE", "RMSE", "cross-entropy"]


class Task(NamedTuple):
    """Examples, and how they are trained on.

    Args:
        train, test: inputs and targets, [n, ...]; integer targets are classes.
        figure: what the task is measured by: the mean squared error, its root, or the cross-entropy
            in nats.
        naive: what is predicted for the test without learning anything, as a model's outputs.
        learning_rate, batch_size, epochs: of Adam; the most passes over `train`.
        validation: what tells when to stop; without it, no run ends early.
        patience: how many epochs without a better validation loss end a run.
    """

    train: Examples
    test: Examples
    figure: Figure
    naive: np.ndarray
    learning_rate: float
    batch_size: int
    epochs: int
    validation: Examples | None = None
    patience: int = 0

    def error(self, outputs: np.ndarray) -> float:
        """The figure of outputs for the test."""
        outputs, targets = outputs.astype(np.float64), self.test[1]
        if self.figure == "cross-entropy":
            return float(
                (logsumexp(outputs, 1) - outputs[np.arange(len(targets)), targets]).mean()
            )
        error = float(np.square(outputs - targets).mean())
        return error**0.5 if self.figure == "RMSE" else error


def folder() -> Path:
    """Where the data lies.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = data_folder() / "more"
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is not there — put airline-passengers.csv, ETTh1.csv.xz, u1.base and u1.test "
            f"into a folder "
            "'more', and let JAXDL_DATA name the folder around it."
        )
    return path


def airline_passengers() -> Task:
    """The logarithm of a month's passengers, 1949 to 1960, from the twelve months before: [12, 1]
    to [1].

    Standardised by the first 70 % of the months, which are trained on; the last quarter is
    predicted, and the months between tell when to stop. The naive prediction is the month before.
    """
    with (folder() / "airline-passengers.csv").open() as file:
        passengers = np.array([row[1] for row in list(csv.reader(file))[1:]], np.float64)
    known = len(passengers) * 7 // 10
    last = len(passengers) * 3 // 4
    series = standardised(np.log(passengers)[:, None], known)
    past, following = windows(series, 12, 1)
    following = following[:, 0]
    rows = np.split(np.arange(len(past)), [known - 12, last - 12])
    train, validation, test = ((past[index], following[index]) for index in rows)
    return Task(train, test, "RMSE", test[0][:, -1], 3e-3, 16, 500, validation, 50)


def electricity_transformer() -> Task:
    """Seven variables of an electricity transformer, hourly, over 24 hours, from the 96 before:
    [96, 7] to [168].

    The standard split, 12, 4 and 4 months of 30 days, standardised by the first. The naive
    prediction is the last hour.
    """
    with lzma.open(folder() / "ETTh1.csv.xz", "rt") as file:
        variables = np.array([row[1:] for row in list(csv.reader(file))[1:]], np.float64)
    month = 30 * 24
    series = standardised(variables, 12 * month)
    spans = (series[: 12 * month], series[16 * month - 96 : 20 * month])
    (past, following), (test_past, test_following) = (windows(span, 96, 24) for span in spans)
    naive = np.repeat(test_past[:, -1:], 24, 1)
    train = past, following.reshape(len(following), -1)
    test = test_past, test_following.reshape(len(test_following), -1)
    return Task(train, test, "MSE", naive.reshape(len(naive), -1), 1e-3, 64, 5)


def film_ratings() -> Task:
    """A user's rating of a film, above the mean of those trained on: [2] int32, a user and a film,
    to [1].

    Fold 1 of MovieLens-100k; 8,000 ratings, drawn from a seed, tell when to stop. The naive
    prediction is the mean.
    """
    base, test = (
        np.loadtxt(folder() / name, np.int64)[:, :3] for name in ("u1.base", "u1.test")
    )
    base = np.random.default_rng(0).permutation(base)
    held, known = base[:8000], base[8000:]
    mean = known[:, 2].mean()

    def examples(rows: np.ndarray) -> Examples:
        return rows[:, :2].astype(np.int32), (rows[:, 2:] - mean).astype(np.float32)

    naive = np.zeros((len(test), 1))
    return Task(
        examples(known), examples(test), "RMSE", naive, 3e-3, 256, 50, examples(held), 3
    )


def digits() -> Task:
    """scikit-learn's handwritten digits, [8, 8, 1] in [0, 1], to ten classes; every third is
    tested.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    images, labels = bunch.data, bunch.target
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    return classes((images, labels.astype(np.int32)), 32, 20)


def breast_cancer() -> Task:
    """scikit-learn's breast cancers, 30 features, standardised, to two classes; every third is
    tested.
    """
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    features, labels = bunch.data, bunch.target
    return classes((standardised(features, len(features)), labels.astype(np.int32)), 32, 20)


def diabetes() -> Task:
    """scikit-learn's diabetes, 10 features to the progression, both standardised; every third is
    tested.
    """
    from sklearn.datasets import load_diabetes

    bunch: Any = load_diabetes()
    features, progression = bunch.data, bunch.target
    both = standardised(np.column_stack([features, progression]), len(features))
    train, test = thirds((both[:, :-1], both[:, -1:]))
    return Task(train, test, "RMSE", np.zeros((len(test[1]), 1)), 1e-3, 32, 20)


def mnist() -> Task:
    """The first 5,000 images of MNIST, to ten classes; all 10,000 others are tested."""
    (images, labels), test = dl.data.mnist()
    return classification((images[:5000], labels[:5000]), test, 64, 3)


def mnist_itself() -> Task:
    """The first 5,000 images of MNIST to themselves; 2,000 others are tested. The naive prediction
    is the mean image.
    """
    (images, _), (others, _) = dl.data.mnist()
    train, test = (
        (some, some.astype(np.float32) / 255) for some in (images[:5000], others[:2000])
    )
    return Task(
        train, test, "MSE", np.broadcast_to(train[1].mean(0), test[1].shape), 1e-3, 64, 5
    )


def classes(examples: Examples, batch_size: int, epochs: int) -> Task:
    """Classification of examples, every third of which is tested."""
    return classification(*thirds(examples), batch_size, epochs)


def classification(train: Examples, test: Examples, batch_size: int, epochs: int) -> Task:
    """Classification; the naive prediction is that all classes are as likely as any other."""
    count = int(train[1].max()) + 1
    return Task(
        train, test, "cross-entropy", np.zeros((len(test[1]), count)), 1e-3, batch_size, epochs
    )


def thirds(examples: Examples) -> tuple[Examples, Examples]:
    """Two of three examples, and every third."""
    third = np.arange(len(examples[0])) % 3 == 2
    inputs, targets = examples
    return (inputs[~third], targets[~third]), (inputs[third], targets[third])


def standardised(series: np.ndarray, known: int) -> np.ndarray:
    """Each variable of [time, variables] less its mean, over its deviation, both of the first
    `known` steps; float32.
    """
    first = series[:known]
    return ((series - first.mean(0)) / first.std(0)).astype(np.float32)


def windows(series: np.ndarray, past: int, following: int) -> Examples:
    """All windows of a series [time, variables]: [n, past, variables], and what follows, [n,
    following, variables].
    """
    spans = np.lib.stride_tricks.sliding_window_view(series, past + following, 0).swapaxes(1, 2)
    return np.ascontiguousarray(spans[:, :past]), np.ascontiguousarray(spans[:, past:])
