"""Errors that name the layer, and where it lies in the model."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax


def describe_tree(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    told = ", ".join(map(describe, leaves[:3]))
    return (
        told
        if len(leaves) == 1 and leaves[0] is tree
        else f"{type(tree).__name__} of {told or 'nothing'}"
    )


def describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of shape {tuple(value.shape)} and dtype {value.dtype}"
    return f"{value!r} of type {type(value).__name__}"


class LayerError(ValueError):
    """What a layer was given does not fit it; says where in the model, what was expected, what
    came, and the fix.
    """

    def __init__(self, layer: str, problem: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(layer, problem, path)
        self.layer, self.problem, self.path = layer, problem, path

    def __str__(self) -> str:
        place = f" at '{'.'.join(self.path)}'" if self.path else ""
        return f"{self.layer}{place}: {self.problem}"


@contextlib.contextmanager
def located(name: str) -> Iterator[None]:
    """Adds the part's name to the path of an error that comes out of it, and to the operations in
    it, which profiles show.
    """
    try:
        with jax.named_scope(name):
            yield
    except LayerError as error:
        error.path = (name, *error.path)
        raise
    except Exception as error:
        path = getattr(error, "jaxdl_path", None)
        if path is None:
            error.jaxdl_path = path = [name]  # type: ignore[attr-defined]
        else:
            path.insert(0, name)
        error.__notes__ = [
            n for n in getattr(error, "__notes__", []) if not n.startswith("in the part '")
        ]
        error.add_note(f"in the part '{'.'.join(path)}' of the model")
        raise
