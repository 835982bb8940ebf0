"""What goes around the step of libraries that have no loop of their own: the batches, and an
epoch's mean loss.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def batches(
    inputs: np.ndarray, labels: np.ndarray, batch: int, epochs: int, shuffle: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of each epoch, the smaller last one included, from NumPy arrays: their
    cheapest gather.
    """
    generator = np.random.default_rng(0)
    for _ in range(epochs):
        order = generator.permutation(len(inputs)) if shuffle else np.arange(len(inputs))
        for start in range(0, len(inputs), batch):
            chosen = order[start : start + batch]
            yield inputs[chosen], labels[chosen]


def mean_of_epoch(
    fetched: Callable[[list[Any]], Any], losses: list[Any], count: int, batch: int
) -> float:
    """The mean over the `count` examples of the last epoch, from the mean losses of all batches so
    far, brought to the host.
    """
    sizes = [min(batch, count - start) for start in range(0, count, batch)]
    return float(np.average(fetched(losses[-len(sizes) :]), weights=sizes))
