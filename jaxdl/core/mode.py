"""The modes of a pass through a model: training, which carries the random key, and evaluation."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxdl.core.error import describe
from jaxdl.core.keys import fold_in, name_hash

Mask = ArrayLike | None
Static = tuple[str | None, bool]


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Train:
    """The mode of a training pass; it carries the key that training draws with.

    It is a pytree, whose leaves are the key and the mask.

    Args:
        key: a typed key, `jax.random.key(seed)`.
        mask: [batch] bool, the examples that count, or None if all do. Rows that pad the last
            batch are False, so that statistics over the batch leave them out.
        across: the name of the mapped axis along which the batch is sharded over devices; each
            pass sees one shard, and statistics over the batch are reduced along the axis. None if
            the pass sees the whole batch.

    Raises:
        TypeError: the key is not a typed key.
    """

    key: Array
    mask: Any
    across: str | None
    is_nested: bool = dataclasses.field(compare=False)

    def __init__(self, key: Array, mask: Mask = None, across: str | None = None) -> None:
        if not (isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
            raise TypeError(
                f"Train(key): expected a typed key, jax.random.key(seed), got {describe(key)}."
            )
        self._set(key, mask, (across, False))

    def for_part(self, name: str) -> "Train":
        """The mode of a part, whose key is folded with the part's name.

        Args:
            name: the name of the part.
        """
        return self.fold_in(name_hash(name))

    def fold_in(self, data: ArrayLike) -> "Train":
        """The mode with `jax.random.fold_in(key, data)` as its key.

        Args:
            data: an integer scalar, such as a step or the index of a device.
        """
        return self._replace(fold_in(self.key, data), self.mask, self.is_nested)

    def with_mask(self, mask: Mask) -> "Train":
        """The mode with another mask.

        Args:
            mask: [batch] bool, or None.
        """
        return self._replace(self.key, mask, self.is_nested)

    def nested(self) -> "Train":
        """The mode of the parts of a model, whose inputs are prepared already: the padding of
        `Padded` sequences is not set to zero again.
        """
        if self.is_nested:
            return self
        return self._replace(self.key, self.mask, True)

    def _replace(self, key: Array, mask: Mask, is_nested: bool) -> "Train":
        return Train.tree_unflatten((self.across, is_nested), (key, mask))

    def _set(self, key: object, mask: object, static: Static) -> None:
        across, is_nested = static
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "across", across)
        object.__setattr__(self, "is_nested", is_nested)

    def __repr__(self) -> str:
        return f"Train({self.key!r}, mask={self.mask!r}, across={self.across!r})"

    def tree_flatten(self) -> tuple[tuple[object, object], Static]:
        return (self.key, self.mask), (self.across, self.is_nested)

    @classmethod
    def tree_unflatten(cls, static: Static, children: tuple[object, object]) -> "Train":
        # JAX also unflattens placeholders, which __init__ would refuse.
        mode = object.__new__(cls)
        key, mask = children
        mode._set(key, mask, static)
        return mode


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Eval:
    """The mode of an evaluation pass: layers draw nothing, running statistics are used, and the
    state is returned unchanged.

    Args:
        key: a typed key of what an objective draws in evaluation, such as noise; None where there
            is none.
    """

    is_nested: bool = dataclasses.field(default=False, compare=False, repr=False, kw_only=True)
    key: Any = dataclasses.field(default=None, compare=False, repr=False)

    def for_part(self, name: str) -> "Eval":
        """The mode of a part: itself, and of another key, where there is one.

        Args:
            name: the name of the part.
        """
        return self if self.key is None else self.fold_in(name_hash(name))

    def fold_in(self, data: ArrayLike) -> "Eval":
        """The mode with `jax.random.fold_in(key, data)` as its key.

        Args:
            data: an integer scalar.
        """
        return Eval(fold_in(self.key, data), is_nested=self.is_nested)

    def nested(self) -> "Eval":
        """The mode of the parts of a model, as in `Train`."""
        return Eval(self.key, is_nested=True)

    def tree_flatten(self) -> tuple[tuple[object], bool]:
        return (self.key,), self.is_nested

    @classmethod
    def tree_unflatten(cls, is_nested: bool, children: tuple[object]) -> "Eval":
        return cls(children[0], is_nested=is_nested)


Mode = Train | Eval
"""How a model is applied: `Train(key)` or `Eval()`."""
