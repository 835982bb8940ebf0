"""The order in which the libraries that have no loop of their own (Flax, Equinox) go through the data."""

from collections.abc import Iterator

import numpy as np


def batches(
    inputs: np.ndarray, labels: np.ndarray, batch: int, epochs: int, shuffle: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of each epoch, the smaller last one included, from NumPy arrays: their cheapest gather."""
    generator = np.random.default_rng(0)
    for _ in range(epochs):
        order = generator.permutation(len(inputs)) if shuffle else np.arange(len(inputs))
        for start in range(0, len(inputs), batch):
            chosen = order[start : start + batch]
            yield inputs[chosen], labels[chosen]
