"""The checkpoints in a folder: their names, and how one is read."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdl.checkpoint import arrays as orbax_arrays
from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import CheckpointError, UnreadableError
from jaxdl.checkpoint.manifest import ARRAYS, Manifest, check_files
from jaxdl.compiling.pytree import PyTree

_NAME = re.compile(r"(\d{6,})-step-(\d+)")


class Restored(NamedTuple):
    """What was read from a checkpoint.

    Args:
        step: of the run when it was saved.
        tree: of the structure asked for.
        description: as it was given to `save`; tuples have become lists.
        path: of the checkpoint.
    """

    step: int
    tree: PyTree
    description: Any
    path: Path


def found(folder: Path) -> list[Path]:
    """The folders of the checkpoints in a folder, the newest first."""
    paths = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(paths, key=serial, reverse=True)


def serial(path: Path) -> int:
    """The number of a checkpoint among those of its run, from its name."""
    return int(path.name.partition("-")[0])


def metrics(folder: Path) -> dict[str, float]:
    """The metric of each checkpoint that can be read and has one, by the checkpoint's name."""
    found_metrics = {}
    for path in found(folder):
        with contextlib.suppress(UnreadableError):
            metric = Manifest.read(path).metric
            if metric is not None:
                found_metrics[path.name] = metric
    return found_metrics


def read_checkpoint(path: Path) -> tuple[Manifest, dict[str, np.ndarray]]:
    """Reads one checkpoint, and checks every digest.

    Args:
        path: of its folder.

    Returns:
        The manifest, and the arrays by path.

    Raises:
        UnreadableError: it is incomplete, corrupt, or of another format.
    """
    manifest = Manifest.read(path)
    check_files(path / ARRAYS, manifest.files)
    return manifest, orbax_arrays.read(path / ARRAYS, manifest.leaves)


def fill(
    like: PyTree, manifest: Manifest, found: Mapping[str, np.ndarray], path: Path
) -> PyTree:
    """The arrays of a checkpoint, in the structure of a tree.

    Args:
        like: arrays, shapes, numbers, or `...` for an array of any shape.
        manifest: of the checkpoint.
        found: its arrays, by path.
        path: of the checkpoint.

    Raises:
        CheckpointError: a leaf is missing, extra, or of another shape or dtype.
    """
    wanted = trees.leaves_by_path(like)
    saved = manifest.leaves
    lines = trees.differences(wanted, saved)
    if lines:
        raise CheckpointError(
            f"checkpoint: {path} was saved by a run that differs from this one — give this one a "
            f"folder of its own:{trees.listed(lines)}"
        )
    filled = [
        trees.as_wanted(found[name], saved[name].key, leaf) for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(like), filled)
