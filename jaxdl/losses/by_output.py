"""Losses by the name of an output, for a model that returns a dict of several."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.number import is_number
from jaxdl.losses.batchwise import is_batchwise
from jaxdl.losses.bound import Arguments, Keywords, check_bound, format_bound, rebound, unbound
from jaxdl.losses.per_example import format_shapes
from jaxdl.ops.floating import widest

Function = Callable[..., Array]


@dataclasses.dataclass(frozen=True)
class Term:
    """One term of `ByOutput`: the loss of an output, and its weight.

    Args:
        output: the name of the output, and of its targets.
        function: without its `functools.partial`.
        arguments: bound by position.
        keywords: bound by name.
        weight: of the term in the sum.
    """

    output: str
    function: Function
    arguments: Arguments
    keywords: Keywords
    weight: float

    @property
    def loss(self) -> Function:
        """The loss as it was given: a function of one output and its targets."""
        return rebound(self.function, self.arguments, self.keywords)

    @property
    def figure(self) -> str:
        """The name of the term in a history."""
        return f"{self.output}_loss"

    def operands(self, outputs: PyTree, targets: PyTree) -> tuple[PyTree, PyTree]:
        """The output and its targets.

        Raises:
            ValueError: one of them is missing.
        """
        return (
            named_part("ByOutput", "outputs", outputs, self.output),
            named_part("ByOutput", "targets", targets, self.output),
        )


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class ByOutput:
    """A loss for each of several outputs by name, summed with weights: `Σ_n w_n f_n(x_n, y_n)`.

    For a model whose outputs x and targets y are dicts. `fit` and `evaluate` take a plain dict for
    `ByOutput(dict)`. Beside the loss a history then has every term by itself, without its weight,
    as "rating_loss" of the output "rating": its exact weighted mean over the examples.

    Outputs without a loss are allowed, and so are their targets, which metrics may read. Weights of
    examples weigh all terms alike; `class_weight` is refused, since the targets are several. A
    batchwise loss cannot be a term.

    Args:
        losses: `loss(outputs, targets) -> [batch]` by the name of the output; a
            `functools.partial` with hashable arguments is one too.
        weights: of the terms, by the same names; 1 where one is missing.

    Raises:
        TypeError: the losses are no dict by strings, or one is not a function, is batchwise, or
            binds an argument that cannot be hashed.
        ValueError: there are none, a weight is not a finite number, or has no loss.

    Source: Caruana, *Multitask learning* (1997).

    Example:
        >>> from jaxdl import losses
        >>> loss = ByOutput(
        ...     {"rating": losses.mean_squared_error, "click": losses.binary_cross_entropy},
        ...     weights={"rating": 0.5},
        ... )
        >>> outputs = {"rating": jnp.array([3.0, 5.0]), "click": jnp.array([9.0, -99.0])}
        >>> targets = {"rating": jnp.array([1.0, 5.0]), "click": jnp.array([1, 0])}
        >>> loss(outputs, targets).round(3)
        Array([2., 0.], dtype=float32)
    """

    terms: tuple[Term, ...]

    def __init__(
        self, losses: Mapping[str, Function], weights: Mapping[str, float] | None = None
    ) -> None:
        _check_mapping("losses", losses)
        weights = {} if weights is None else weights
        _check_mapping("weights", weights)
        if not losses:
            raise ValueError(
                "ByOutput: there are no losses — give one for each output to train."
            )
        for name, weight in weights.items():
            _check_weight(name, weight, losses)
        terms = [_term(name, loss, weights.get(name, 1.0)) for name, loss in losses.items()]
        object.__setattr__(self, "terms", tuple(terms))

    def __call__(self, outputs: PyTree, targets: PyTree) -> Float[Array, " batch"]:
        """The weighted sum of each example's losses.

        Args:
            outputs: by name, each `[batch, ...]`.
            targets: by name, each `[batch, ...]`.

        Returns:
            `[batch]`, in at least float32.

        Raises:
            ValueError: a term has no output or no targets, or there are targets of no output.
        """
        check_targets_of_outputs(outputs, targets)
        first, *others = [self._weighted(term, outputs, targets) for term in self.terms]
        return functools.reduce(jnp.add, others, first)

    def _weighted(self, term: Term, outputs: PyTree, targets: PyTree) -> Float[Array, " batch"]:
        values = jnp.asarray(term.loss(*term.operands(outputs, targets)))
        return term.weight * values.astype(widest(values.dtype))

    def __repr__(self) -> str:
        shown = [
            f"{term.output!r}: {format_bound(term.function, term.arguments, term.keywords)}"
            for term in self.terms
        ]
        weights = {term.output: term.weight for term in self.terms if term.weight != 1}
        losses = "{" + ", ".join(shown) + "}"
        if not weights:
            return f"ByOutput({losses})"
        return f"ByOutput({losses}, weights={weights})"


def named_part(name: str, what: str, tree: PyTree, part: Hashable) -> PyTree:
    """One of several outputs or targets.

    Args:
        name: the loss or metric, for the error.
        what: "outputs" or "targets".
        tree: a dict, or a tuple or list.
        part: a key, or an index.

    Raises:
        ValueError: there is no such part; the error names those there are.
    """
    parts: dict[Hashable, PyTree] = {}
    if isinstance(tree, Mapping):
        parts = dict(tree)
    elif isinstance(tree, (tuple, list)):
        parts = dict(enumerate(tree))
    if part in parts:
        return parts[part]
    known = " and ".join(sorted(map(repr, parts))) or "not named"
    fix = "give targets of that name"
    if what == "outputs":
        fix = "name one of those, or let the model return it"
    raise ValueError(
        f"{name}: there is no {part!r} among the {what}, which are {known} "
        f"({format_shapes(tree)}) — {fix}."
    )


def check_targets_of_outputs(outputs: PyTree, targets: PyTree) -> None:
    """Checks that every target has an output of its name.

    Raises:
        ValueError: some have none.
    """
    if not isinstance(outputs, Mapping) or not isinstance(targets, Mapping):
        return
    others = [name for name in targets if name not in outputs]
    if not others:
        return
    raise ValueError(
        f"ByOutput: there are targets {', '.join(map(repr, others))}, and the outputs are "
        f"{' and '.join(sorted(map(repr, outputs)))} — leave those targets out, or give the model "
        "outputs of their names."
    )


def _check_mapping(what: str, given: object) -> None:
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return
    raise TypeError(
        f"ByOutput: {what} are a dict by the names of outputs, such as "
        f"{{'rating': losses.mean_squared_error}}, got {given!r}."
    )


def _check_weight(name: str, weight: object, losses: Mapping[str, Function]) -> None:
    if name not in losses:
        raise ValueError(
            f"ByOutput: there is a weight of {name!r} and no loss — losses are of "
            f"{' and '.join(map(repr, losses))}."
        )
    if not is_number(weight):
        raise ValueError(
            f"ByOutput: the weight of {name!r} is a finite number, got {weight!r}."
        )


def _term(name: str, loss: Function, weight: float) -> Term:
    """A term, with its function taken out of a `functools.partial`."""
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(
            f"ByOutput: the loss of {name!r} is {loss!r}, expected a function loss(outputs, "
            "targets) -> [batch], such as losses.mean_squared_error."
        )
    if is_batchwise(loss):
        raise TypeError(
            f"ByOutput: the loss of {name!r} is batchwise, and terms are of each example — write "
            "one batchwise loss of all outputs: losses.batchwise of a function (outputs, targets, "
            "*, mask) that adds up the terms."
        )
    function, arguments, keywords = unbound(loss)
    check_bound(f"loss of {name!r}", function, arguments, keywords)
    return Term(name, function, arguments, keywords, float(weight))
