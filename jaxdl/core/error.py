"""Errors that name the layer, and its path in the model."""

import contextlib
from collections.abc import Iterator

import jax

from jaxdl.compiling.pytree import PyTree

_NOTE = "in the part '"


class LayerError(ValueError):
    """The arguments or inputs of a layer do not fit it.

    The message names the layer and its path in the model, what was expected, what it got, and a
    likely fix.

    Args:
        layer: the kind of the layer, such as `Dense`.
        problem: the message.
        path: the names of the parts that lead to the layer, outermost first.
    """

    def __init__(self, layer: str, problem: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(layer, problem, path)
        self.layer = layer
        self.problem = problem
        self.path = path

    def __str__(self) -> str:
        path = f" at '{'.'.join(self.path)}'" if self.path else ""
        return f"{self.layer}{path}: {self.problem}"


@contextlib.contextmanager
def located(name: str) -> Iterator[None]:
    """Adds a part's name to the path of an error that is raised inside, and to the names of the
    operations that profiles show.
    """
    try:
        with jax.named_scope(name):
            yield
    except LayerError as error:
        error.path = (name, *error.path)
        raise
    except Exception as error:
        _add_path(error, name)
        raise


def _add_path(error: Exception, name: str) -> None:
    """Prepends a part's name to the path in the note of an error."""
    path = [name, *getattr(error, "jaxdl_path", [])]
    error.jaxdl_path = path  # type: ignore[attr-defined]
    notes = getattr(error, "__notes__", [])
    error.__notes__ = [note for note in notes if not note.startswith(_NOTE)]
    error.add_note(f"{_NOTE}{'.'.join(path)}' of the model")


def describe(value: object) -> str:
    """A value in a sentence: an array by shape and dtype, anything else by itself and its type."""
    shape = getattr(value, "shape", None)
    dtype = getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"an array of shape {tuple(shape)} and dtype {dtype}"
    return f"{value!r} of type {type(value).__name__}"


def describe_tree(tree: PyTree) -> str:
    """A tree in a sentence: its type and its first leaves."""
    leaves = jax.tree.leaves(tree)
    described = ", ".join(map(describe, leaves[:3]))
    if len(leaves) == 1 and leaves[0] is tree:
        return described
    return f"{type(tree).__name__} of {described or 'nothing'}"
