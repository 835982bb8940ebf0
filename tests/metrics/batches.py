"""Random outputs, targets and weights, and a metric of them over padded batches."""

import functools

import jax
import numpy as np

from jaxdl.metrics import as_metric

CLASSES = 4


def float32(values):
    return np.asarray(values, np.float32)


@functools.partial(jax.jit, static_argnums=0)
def measured(metric, outputs, targets, weights):
    return metric.measure(outputs, targets, weights)


def evaluated(metric, outputs, targets, weights=None, batches=1):
    """The metric as a loop takes it: padded batches of one size, sums added in float64, the gathered joined."""
    metric = as_metric(metric)
    weights = (
        np.ones(len(targets), np.float32)
        if weights is None
        else np.asarray(weights, np.float32)
    )
    size = -(-len(targets) // batches)
    pieces = []
    for start in range(0, len(targets), size):
        rows = [values[start : start + size] for values in (outputs, targets, weights)]
        padding = [(0, size - len(rows[0]))]
        rows = [np.pad(values, padding + [(0, 0)] * (values.ndim - 1)) for values in rows]
        pieces.append(jax.device_get(measured(metric, *rows)))
    sums = jax.tree.map(
        lambda *leaves: np.sum(np.stack(leaves).astype(np.float64), axis=0),
        *[s for s, _ in pieces],
    )
    gathered = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[g for _, g in pieces])
    return metric.result(sums, gathered)


def multiclass(seed, n=37, classes=CLASSES):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    return logits.astype(np.float32), labels.astype(np.int32), weights.astype(np.float32)


def binary(seed, n=37):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    logits = np.round(generator.normal(size=n) + labels, 1)  # rounded, so that many are tied
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    return logits.astype(np.float32), labels.astype(np.int32), weights.astype(np.float32)


def regression(seed, n=37, columns=1):
    generator = np.random.default_rng(seed)
    targets = 5 + generator.normal(size=(n, columns))
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    outputs = targets + 0.5 * generator.normal(size=(n, columns))
    return outputs.astype(np.float32), targets.astype(np.float32), weights.astype(np.float32)


def multilabel(seed, n=37, labels=CLASSES):
    generator = np.random.default_rng(seed)
    targets = generator.uniform(size=(n, labels)) < 0.4
    logits = np.round(generator.normal(size=(n, labels)) + 1.5 * targets - 0.7, 1)
    weights = generator.uniform(0.1, 2, n) * (generator.uniform(size=n) > 0.3)
    return logits.astype(np.float32), targets.astype(np.int32), weights.astype(np.float32)
