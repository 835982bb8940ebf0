"""Three small tasks on real data: the next month's air passengers, a transformer's next day, and ratings of films.

They are read from the folder `more` in `JAXDL_DATA`: `airline-passengers.csv` (Box and Jenkins, 1976),
`ETTh1.csv.xz` (Zhou et al., *Informer*, 2021), `u1.base` and `u1.test` (MovieLens-100k: Harper and Konstan, 2015).
"""

import csv
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxdl.data.folder import data_folder

Examples = tuple[np.ndarray, np.ndarray]


class Task(NamedTuple):
    """Examples, and how they are trained on.

    Args:
        train, validation, test: inputs and targets, [n, ...]; without validation, no run ends early.
        naive: what is predicted for the test without learning anything, as its targets.
        rooted: whether the figure is the root of the mean squared error, or that itself.
        learning_rate, batch_size, epochs: of Adam; the most passes over `train`.
        patience: how many epochs without a better validation loss end a run.
    """

    train: Examples
    validation: Examples | None
    test: Examples
    naive: np.ndarray
    rooted: bool
    learning_rate: float
    batch_size: int
    epochs: int
    patience: int = 0

    def error(self, predicted: np.ndarray) -> float:
        """What the task is measured by, of predictions for the test."""
        error = float(np.square(np.float64(predicted) - self.test[1]).mean())
        return error**0.5 if self.rooted else error


def folder() -> Path:
    """Where the data lies.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = data_folder() / "more"
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is not there — put airline-passengers.csv, ETTh1.csv.xz, u1.base and u1.test into a folder "
            "'more', and let JAXDL_DATA name the folder around it."
        )
    return path


def airline_passengers() -> Task:
    """The logarithm of a month's passengers, 1949 to 1960, from the twelve months before: [12, 1] to [1].

    Standardised by the first 70 % of the months, which are trained on; the last quarter is predicted, and the months
    between tell when to stop. The naive prediction is the month before.
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
    return Task(train, validation, test, test[0][:, -1], True, 3e-3, 16, 500, 50)


def electricity_transformer() -> Task:
    """Seven variables of an electricity transformer, hourly, over 24 hours, from the 96 before: [96, 7] to [168].

    The standard split, 12, 4 and 4 months of 30 days, standardised by the first. The naive prediction is the last hour.
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
    return Task(train, None, test, naive.reshape(len(naive), -1), False, 1e-3, 64, 5)


def film_ratings() -> Task:
    """A user's rating of a film, above the mean of those trained on: [2] int32, a user and a film, to [1].

    Fold 1 of MovieLens-100k; 8,000 ratings, drawn from a seed, tell when to stop. The naive prediction is the mean.
    """
    base, test = (np.loadtxt(folder() / name, np.int64)[:, :3] for name in ("u1.base", "u1.test"))
    base = np.random.default_rng(0).permutation(base)
    held, known = base[:8000], base[8000:]
    mean = known[:, 2].mean()

    def examples(rows: np.ndarray) -> Examples:
        return rows[:, :2].astype(np.int32), (rows[:, 2:] - mean).astype(np.float32)

    naive = np.zeros((len(test), 1))
    return Task(examples(known), examples(held), examples(test), naive, True, 3e-3, 256, 50, 3)


def standardised(series: np.ndarray, known: int) -> np.ndarray:
    """Each variable of [time, variables] less its mean, over its deviation, both of the first `known` steps; float32."""
    first = series[:known]
    return ((series - first.mean(0)) / first.std(0)).astype(np.float32)


def windows(series: np.ndarray, past: int, following: int) -> Examples:
    """All windows of a series [time, variables]: [n, past, variables], and what follows, [n, following, variables]."""
    spans = np.lib.stride_tricks.sliding_window_view(series, past + following, 0).swapaxes(1, 2)
    return np.ascontiguousarray(spans[:, :past]), np.ascontiguousarray(spans[:, past:])
