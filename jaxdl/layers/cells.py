"""A recurrent layer of any cell, and the contract of a cell."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
from jax import Array

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, describe, describe_tree
from jaxdl.core.layer import Params
from jaxdl.core.mode import Mode
from jaxdl.core.number import is_hashable
from jaxdl.core.representation import call_repr
from jaxdl.core.tree import shapes
from jaxdl.core.values import Value
from jaxdl.layers import arguments
from jaxdl.layers.recurrence import Recurrent
from jaxdl.ops.floating import DType, floating_dtype


class Cell(Value, abc.ABC):
    """One step of a recurrence, which `RNN` runs over sequences: a value that holds hyperparameters
    and no arrays.

    A subclass is a frozen dataclass that implements `weights`, `first` and `step`. The state is a
    tree of floating-point arrays [batch, ...], such as one array or a tuple (h, c); its first leaf
    is the output of the step.
    """

    def __init_subclass__(cls) -> None:
        if "__repr__" not in cls.__dict__:
            setattr(cls, "__repr__", call_repr)  # noqa: B010 — as in `Layer`

    @abc.abstractmethod
    def weights(self, key: Array, x: PyTree) -> Params:
        """Draws the parameters.

        Args:
            key: a typed key.
            x: the `jax.ShapeDtypeStruct` of the input of one step, [batch, ...].

        Returns:
            The parameters by name.
        """

    @abc.abstractmethod
    def first(self, x: PyTree) -> PyTree:
        """The default initial state, such as zeros [batch, features].

        Args:
            x: the `jax.ShapeDtypeStruct` of the input of one step, [batch, ...], in the dtype of
                the computation, which is that of the state.
        """

    @abc.abstractmethod
    def step(self, params: Params, state: PyTree, x: PyTree) -> PyTree:
        """The next state, of the same structure, shapes and dtypes; a pure function.

        Args:
            params: the parameters, in the dtype of the computation.
            state: the state before the step.
            x: the input of the step, [batch, ...], as `project` returns it.
        """

    def project(self, params: Params, steps: Array) -> PyTree:
        """What the inputs of all steps are mapped to before the loop: one product of all steps is
        faster than one in each. By default the inputs themselves.

        Args:
            params: as in `step`.
            steps: [time, batch, ...].

        Returns:
            A tree of arrays [time, batch, ...].
        """
        del params
        return steps


@dataclasses.dataclass(frozen=True)
class RNN(Recurrent):
    """sₜ = step(sₜ₋₁, xₜ), with any cell: [batch, time, ...] to the outputs of all steps, or to the
    last.

    `Padded` sequences give the outputs that each gives alone, as `Padded` with zeros for padding.
    It runs in `Bidirectional`, and step by step, as the other recurrent layers. `SimpleRNN`, `LSTM`
    and `GRU` have faster gradients than the same cells here.

    Parameters: those of the cell.

    Args:
        cell: the step.
        sequence, backward: as in `SimpleRNN`.
        carry: whether the input is a pair (sequences, initial state or None), and the output a
            pair (outputs, final state).
        dropout: the probability that an element of the input is dropped, the same in all steps.
        dtype: of the computation; None is the input's own.

    Raises:
        LayerError: the cell is none, an argument is invalid, an input is not [batch, time, ...], or
            a step changes the shape of the state.

    >>> import dataclasses, jax, jax.numpy as jnp, jaxdl as dl
    >>> @dataclasses.dataclass(frozen=True)
    ... class MovingAverage(dl.Cell):
    ...     momentum: float
    ...     def weights(self, key, x):
    ...         return {}
    ...     def first(self, x):
    ...         return jnp.zeros(x.shape, x.dtype)
    ...     def step(self, params, state, x):
    ...         return self.momentum * state + (1 - self.momentum) * x
    >>> layer = dl.RNN(MovingAverage(0.5))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 3, 1)))
    >>> layer.apply(params, state, jnp.ones((1, 3, 1)))[0].ravel()
    Array([0.5  , 0.75 , 0.875], dtype=float32)
    """

    cell: Cell
    sequence: bool = True
    backward: bool = False
    carry: bool = False
    dropout: float | Array = 0.0
    dtype: DType | None = None
    reads_vectors: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.cell, Cell):
            raise LayerError("RNN", f"cell is a dl.Cell, got {describe(self.cell)}.")
        if not is_hashable(self.cell):
            raise LayerError(
                "RNN",
                f"cell cannot be hashed, as the arguments of a layer have to be, got {self.cell!r} "
                f"— decorate its class with @dataclasses.dataclass(frozen=True).",
            )
        arguments.check_probability("RNN", dropout=self.dropout)
        arguments.check_fields(self)

    def draw_parameters(self, key: Array, x: PyTree) -> Params:
        step = _first_step(x, floating_dtype(x, self.dtype))
        params = self.cell.weights(key, step)
        if not isinstance(params, dict):
            raise LayerError(
                "RNN",
                f"{self.cell!r}.weights returns a dict of parameters, got {describe_tree(params)}.",
            )
        return params

    def check_parameters(self, params: Params, x: Array) -> None:
        del params, x

    def default_state(self, x: Array) -> PyTree:
        return self.cell.first(_first_step(x, x.dtype))

    def run(self, params: Params, steps: Array, first: PyTree, mode: Mode) -> PyTree:
        del mode
        step = functools.partial(self.cell.step, params)
        projected = self.cell.project(params, steps)
        self._check_step(step, first, projected)
        return ops.recurrent_variants.scan(step, first, projected)

    def _check_step(
        self, step: Callable[[PyTree, PyTree], PyTree], first: PyTree, steps: PyTree
    ) -> None:
        """Checks that a step keeps the structure, shapes and dtypes of the state."""
        if not all(leaf.shape[0] for leaf in jax.tree.leaves(steps)):
            return
        before = shapes(first)
        after = jax.eval_shape(
            lambda state, xs: step(state, jax.tree.map(lambda leaf: leaf[0], xs)), first, steps
        )
        if before != shapes(after):
            raise LayerError(
                "RNN",
                f"{self.cell!r} steps from a state of {describe_tree(before)} to one of "
                f"{describe_tree(after)} — a step keeps structure, shapes and dtypes.",
            )


def _first_step(x: PyTree, dtype: DType) -> jax.ShapeDtypeStruct:
    """The shape of the input of one step, of sequences [batch, time, ...]."""
    return jax.ShapeDtypeStruct((x.shape[0], *x.shape[2:]), dtype)
