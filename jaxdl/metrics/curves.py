"""Scores of a ranking of positive and negative examples, and of pairs of classes, on the host.

Each takes scores, which examples are positive, and their weights, all of them with some weight.
Equal scores have one rank: of two zeros of either sign, or of two classes of equal logits, neither
stands above the other.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Area = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""`area(scores, positive, weights)`, each `[examples]`."""


class Ranks(NamedTuple):
    """The weights of positive and negative examples by their score, the highest score first."""

    positives: np.ndarray
    """Of each distinct score, `[scores]`."""
    negatives: np.ndarray


def ranks(
    scores: Float[np.ndarray, " examples"],
    positive: Bool[np.ndarray, " examples"],
    weights: Float[np.ndarray, " examples"],
) -> Ranks | None:
    """The weights by score, or None where a score is nan, as nothing is known of its rank then."""
    if np.isnan(scores).any():
        return None
    values, group = np.unique(scores, return_inverse=True)
    positives = np.bincount(group, weights * positive, minlength=len(values))
    negatives = np.bincount(group, weights * ~positive, minlength=len(values))
    return Ranks(positives[::-1], negatives[::-1])


def area_under_roc(
    scores: Float[np.ndarray, " examples"],
    positive: Bool[np.ndarray, " examples"],
    weights: Float[np.ndarray, " examples"],
) -> float:
    """The weighted fraction of pairs of a positive and a negative example that are in order.

    Ties count half.

    Returns:
        From 0 to 1; nan if all examples are positive, or all negative, or a score is nan.
    """
    ranked = ranks(scores, positive, weights)
    if ranked is None:
        return float("nan")
    positives = ranked.positives[::-1]
    negatives = ranked.negatives[::-1]
    below = np.concatenate([[0.0], np.cumsum(negatives)[:-1]])
    pairs = positives.sum() * negatives.sum()
    if not pairs:
        return float("nan")
    ordered = positives * (below + negatives / 2)
    return float(ordered.sum() / pairs)


def average_precision(
    scores: Float[np.ndarray, " examples"],
    positive: Bool[np.ndarray, " examples"],
    weights: Float[np.ndarray, " examples"],
) -> float:
    """The mean of the precisions at the scores of the positive examples.

    Returns:
        From 0 to 1; nan if no example is positive, or a score is nan.
    """
    ranked = ranks(scores, positive, weights)
    if ranked is None or not ranked.positives.sum():
        return float("nan")
    found = ranked.positives.cumsum()
    precisions = found / (found + ranked.negatives.cumsum())
    return float((precisions * ranked.positives).sum() / ranked.positives.sum())


def at(
    best: Callable[[Ranks, float], float],
    least: float,
    scores: Float[np.ndarray, " examples"],
    positive: Bool[np.ndarray, " examples"],
    weights: Float[np.ndarray, " examples"],
) -> float:
    """The best point of a curve where another figure is at least some value; nan of a nan score."""
    ranked = ranks(scores, positive, weights)
    if ranked is None:
        return float("nan")
    return best(ranked, least)


def best_precision(ranked: Ranks, recall: float) -> float:
    """The highest precision of a threshold whose recall is at least some value."""
    if not ranked.positives.sum():
        return float("nan")
    found = ranked.positives.cumsum()
    precisions = found / (found + ranked.negatives.cumsum())
    return float(precisions[found / found[-1] >= recall].max())


def best_recall(ranked: Ranks, precision: float) -> float:
    """The highest recall of a threshold whose precision is at least some value; 0 if none is."""
    if not ranked.positives.sum():
        return float("nan")
    found = ranked.positives.cumsum()
    precisions = found / (found + ranked.negatives.cumsum())
    recalls = found / found[-1]
    return float(recalls[precisions >= precision].max(initial=0.0))


def best_sensitivity(ranked: Ranks, specificity: float) -> float:
    """The highest sensitivity of a threshold whose specificity is at least some value.

    The threshold may lie above all scores, where the sensitivity is 0 and the specificity 1.
    """
    if not ranked.positives.sum() or not ranked.negatives.sum():
        return float("nan")
    sensitivities, specificities = _rates(ranked)
    return float(sensitivities[specificities >= specificity].max(initial=0.0))


def best_specificity(ranked: Ranks, sensitivity: float) -> float:
    """The highest specificity of a threshold whose sensitivity is at least some value.

    The threshold may lie above all scores, where the sensitivity is 0 and the specificity 1.
    """
    if not ranked.positives.sum() or not ranked.negatives.sum():
        return float("nan")
    if sensitivity <= 0:
        return 1.0
    sensitivities, specificities = _rates(ranked)
    return float(specificities[sensitivities >= sensitivity].max())


def _rates(ranked: Ranks) -> tuple[np.ndarray, np.ndarray]:
    """The sensitivity and the specificity where the threshold is each of the scores."""
    found = ranked.positives.cumsum()
    wrong = ranked.negatives.cumsum()
    return found / found[-1], (wrong[-1] - wrong) / wrong[-1]


def of_pairs(
    scores: Float[np.ndarray, "examples classes"],
    labels: np.ndarray,
    weights: Float[np.ndarray, " examples"],
    area: Area,
) -> tuple[Float[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """An area for each pair of classes, over the examples of the two alone.

    Args:
        scores: of the classes.
        labels: `[examples]`, class numbers.
        weights: of the examples.
        area: of one class against the other; the mean of both is taken.

    Returns:
        The areas, and the weights of the examples of each pair.
    """
    areas = []
    supports = []
    for one, other in combinations(range(scores.shape[1]), 2):
        rows = (labels == one) | (labels == other)
        is_one = labels[rows] == one
        weight = weights[rows]
        both = scores[rows]
        first = area(both[:, one], is_one, weight)
        second = area(both[:, other], ~is_one, weight)
        areas.append((first + second) / 2)
        supports.append(weight.sum())
    return np.array(areas), np.array(supports)


def log_odds(
    logits: Float[np.ndarray, "examples classes"],
) -> Float[np.ndarray, "examples classes"]:
    """Log-odds of each class, `log p / (1 - p) = x_c - log Σ exp x_j` over j ≠ c, on the host.

    They have the order of the softmax probabilities, and differ where those round to 0 or 1.
    They are computed in the order of the logits, and once for equal ones, so that the place of a
    class changes no rounding, and equal logits have equal log-odds.
    """
    order = np.argsort(logits, axis=-1, kind="stable")
    rising = np.take_along_axis(logits, order, axis=-1)
    before = np.full(logits.shape, -np.inf, logits.dtype)
    after = np.full(logits.shape, -np.inf, logits.dtype)
    # NaN, and ∞ - ∞: nothing is known of the class then.
    with np.errstate(invalid="ignore"):
        accumulate = np.logaddexp.accumulate
        before[:, 1:] = accumulate(rising[:, :-1], axis=-1)
        reverse = accumulate(rising[:, :0:-1], axis=-1)
        after[:, :-1] = reverse[:, ::-1]
        odds = rising - np.logaddexp(before, after)
    larger = np.ones(logits.shape, bool)
    larger[:, 1:] = rising[:, 1:] != rising[:, :-1]
    first = np.where(larger, np.arange(logits.shape[-1]), 0)
    first = np.maximum.accumulate(first, axis=-1)
    odds = np.take_along_axis(odds, first, axis=-1)
    found = np.empty_like(odds)
    np.put_along_axis(found, order, odds, axis=-1)
    return found
