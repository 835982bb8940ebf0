"""The modes of a pass through a model: training, with its key, and evaluation."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.error import describe
from jaxdl.core.keys import fold_in, name_hash


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Train:
    """The mode of a training pass; it carries the randomness that training needs.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        mask: [batch] bool, the examples that count, or None where all do. Rows that only fill up a
            last, smaller batch are False, so that statistics over the batch leave them out.
        across: the name of the mapped axis along which the batch is split over devices, each pass
            seeing one part of it, so that statistics over the batch add up along it; None where the
            pass sees all of the batch.

    Raises:
        TypeError: the key is not a typed key.
    """

    mask: Any
    across: str | None
    _root: Any
    _folds: tuple[Any, ...]
    is_inside: bool = dataclasses.field(compare=False)

    def __init__(self, key: Any, mask: Any = None, across: str | None = None) -> None:
        if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
            raise TypeError(
                f"Train(key): expected a typed key, jax.random.key(seed), got {describe(key)}."
            )
        self._set(key, (), mask, across, False)

    @property
    def key(self) -> Array:
        """The key of this pass or part: derived when it is asked for, so that programs in which
        nothing draws derive none.
        """
        return functools.reduce(fold_in, self._folds, self._root)

    def within(self, name: str) -> "Train":
        """The mode for the part of that name: its key is folded with the name, so that each part
        draws its own.
        """
        return self.folded(name_hash(name))

    def folded(self, number: Any) -> "Train":
        """The mode with `jax.random.fold_in(key, number)` for a key."""
        return self._with(self.mask, (*self._folds, number), self.is_inside)

    def masked(self, mask: Any) -> "Train":
        """The mode with another mask."""
        return self._with(mask, self._folds, self.is_inside)

    def inside(self) -> "Train":
        """The mode for the parts of a model, whose input has entered it: `Padded` sequences are not
        zeroed behind again.
        """
        return self if self.is_inside else self._with(self.mask, self._folds, True)

    def _with(self, mask: Any, folds: tuple[Any, ...], inside: bool) -> "Train":
        return Train.tree_unflatten((self.across, inside), (self._root, mask, folds))

    def _set(
        self, root: Any, folds: tuple[Any, ...], mask: Any, across: str | None, inside: bool
    ) -> None:
        for name, value in {
            "_root": root,
            "_folds": folds,
            "mask": mask,
            "across": across,
            "is_inside": inside,
        }.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Train({self.key!r}, mask={self.mask!r}, across={self.across!r})"

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], tuple[str | None, bool]]:
        return (self._root, self.mask, self._folds), (self.across, self.is_inside)

    @classmethod
    def tree_unflatten(
        cls, static: tuple[str | None, bool], children: tuple[Any, Any, Any]
    ) -> "Train":
        mode = object.__new__(cls)  # JAX also unflattens placeholders, which __init__ would refuse
        root, mask, folds = children
        mode._set(root, folds, mask, *static)
        return mode


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Eval:
    """The mode of an evaluating pass: no randomness, running statistics, state left as it is."""

    is_inside: bool = dataclasses.field(default=False, compare=False, repr=False)

    def within(self, name: str) -> "Eval":
        del name
        return self

    def inside(self) -> "Eval":
        """The mode for the parts of a model, as of `Train`."""
        return Eval(True)

    def tree_flatten(self) -> tuple[tuple[()], bool]:
        return (), self.is_inside

    @classmethod
    def tree_unflatten(cls, inside: bool, children: tuple[()]) -> "Eval":
        del children
        return cls(inside)


Mode = Train | Eval
