"""`PyTree`, any tree of arrays, as an annotation that type checkers know.

jaxtyping's own is unknown to them, and so would be every function that takes one.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    PyTree: TypeAlias = Any
else:
    from jaxtyping import PyTree as PyTree
