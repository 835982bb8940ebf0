"""`load`: weights from a file, whole or in part, into a model or as they are."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import CheckpointError, CorruptionError, UnreadableError
from jaxdl.checkpoint.foreign import is_foreign, read_foreign
from jaxdl.checkpoint.weights import Contents, read
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.warnings import warn
from jaxdl.ops.floating import DType

Weights = tuple[PyTree, PyTree]
"""`(params, state)`."""


@dataclasses.dataclass(frozen=True)
class WeightDifferences:
    """How a file of weights differs from what it is loaded into; true where it does. It prints as
    a list.

    Args:
        missing: the paths that the file lacks.
        extra: the paths that only the file has.
        changed: the paths that are of another shape or dtype in the file.
        lines: a line for each of them.
    """

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    changed: tuple[str, ...]
    lines: tuple[str, ...] = dataclasses.field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines) or "no differences"


def load(
    path: str | os.PathLike[str],
    like: Weights | None = None,
    *,
    strict: bool = True,
    dtype: DType | None = None,
    foreign: bool = False,
) -> Weights:
    """Reads the weights that `save` wrote, bit by bit as they were.

    Every digest is checked: a file that was altered, truncated or extended is refused.

    Args:
        path: the file.
        like: `(params, state)` of arrays or shapes to load into, such as
            `jax.eval_shape(model.init, key, x)`: the file must hold exactly these leaves, in these
            shapes and dtypes. None takes what is there, as nested dicts.
        strict: False takes from the file what fits `like`, and keeps the arrays of `like` for the
            rest; a warning lists what was left out on either side, which `compare_weights` returns.
        dtype: the dtype that floating arrays are converted to, such as "bfloat16"; None leaves
            them as they are.
        foreign: whether the file may be another program's, without digests: a name with dots,
            `encoder.0.weight`, is that of an array in nested dicts, and all are parameters unless
            every name begins with `params.` or `state.`.

    Returns:
        `(params, state)` of JAX arrays; NumPy arrays where JAX has not enabled the dtype (float64
        and int64 without x64).

    Raises:
        CheckpointError: the file is missing, damaged, not jaxdl's or of a newer format; or it does
            not fit `like`: then the leaves that are missing, extra or of another shape or dtype are
            listed.
        TypeError: `like` is not a pair.
        ValueError: the dtype is not floating, or `strict=False` is given without `like`.
        ModuleNotFoundError: safetensors is not installed.
    """
    if not strict and like is None:
        raise ValueError(
            "load: strict=False takes from the file what fits like — give like=model.init(key, x), "
            "or leave strict out to take all that is there."
        )
    found = _converted(_read(path, foreign), dtype)
    if like is not None:
        return _into(_as_tree(like), found, path, strict)
    tree: dict[str, Any] = {"params": {}, "state": {}}
    for name in found.empty:
        trees.put(tree, trees.split(name), {})
    for name, note in found.leaves.items():
        trees.put(tree, trees.split(name), trees.as_leaf(found.arrays[name], note.key))
    return tree["params"], tree["state"]


def compare_weights(
    path: str | os.PathLike[str],
    like: Weights,
    *,
    dtype: DType | None = None,
    foreign: bool = False,
) -> WeightDifferences:
    """How a file of weights differs from parameters and state, by names, shapes and dtypes: what
    `load(path, like, strict=False)` leaves out.

    Args:
        path, like, dtype, foreign: as in `load`.

    Raises:
        CheckpointError: the file is missing, damaged, not jaxdl's or of a newer format.
        TypeError: `like` is not a pair.
        ModuleNotFoundError: safetensors is not installed.

    >>> import tempfile, jax, jax.numpy as jnp, jaxdl as dl
    >>> params, state = dl.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     dl.save(f"{folder}/dense", params)
    ...     found = dl.compare_weights(f"{folder}/dense", ({"kernel": jnp.ones((2, 4))}, {}))
    >>> print(found)
    params.kernel: expected float32[2, 4], saved was float32[2, 3]
    extra: params.bias, float32[3]
    """
    found = _converted(_read(path, foreign), dtype)
    return _differences(trees.leaves_by_path(_as_tree(like)), found)


def _differences(wanted: Mapping[str, Any], found: Contents) -> WeightDifferences:
    changed = [
        name for name in wanted if name in found.leaves and not _fits(wanted[name], found, name)
    ]
    return WeightDifferences(
        missing=tuple(name for name in wanted if name not in found.leaves),
        extra=tuple(name for name in found.leaves if name not in wanted),
        changed=tuple(changed),
        lines=tuple(trees.differences(wanted, found.leaves)),
    )


def _fits(wanted: Any, found: Contents, name: str) -> bool:
    return not trees.differences({name: wanted}, {name: found.leaves[name]})


def _read(path: str | os.PathLike[str], foreign: bool) -> Contents:
    try:
        if foreign and is_foreign(Path(path)):
            return read_foreign(Path(path))
        return read(Path(path))
    except UnreadableError as error:
        advice = "read it with the program that wrote it"
        if not foreign and is_foreign(Path(path)):
            advice += ", or as it is by load(path, foreign=True)"
        if isinstance(error, CorruptionError):
            advice = "use another copy of it"
        raise CheckpointError(f"load: {path} {error} — {advice}.") from error.__cause__


def _converted(found: Contents, dtype: DType | None) -> Contents:
    """The contents with floating arrays in a dtype."""
    if dtype is None:
        return found
    wanted = _floating(dtype)
    leaves = dict(found.leaves)
    arrays = dict(found.arrays)
    for name, leaf in found.leaves.items():
        if leaf.key is not None or not jnp.issubdtype(arrays[name].dtype, jnp.floating):
            continue
        # What overflows a narrower dtype is infinite in it, as on a device.
        with np.errstate(over="ignore"):
            arrays[name] = arrays[name].astype(wanted)
        leaves[name] = dataclasses.replace(leaf, dtype=wanted.name, digest="")
    return Contents(leaves, found.empty, arrays)


def _floating(dtype: DType) -> np.dtype:
    try:
        known = np.dtype(jnp.dtype(dtype))
    except TypeError:
        known = None
    if known is None or not jnp.issubdtype(known, jnp.floating):
        raise ValueError(f"load: dtype is a floating one such as 'bfloat16', got {dtype!r}.")
    return known


def _as_tree(like: Any) -> dict[str, PyTree]:
    if not isinstance(like, (tuple, list)) or len(like) != 2:
        raise TypeError(f"load: like is a pair (params, state), got {type(like).__name__}.")
    return {"params": like[0], "state": like[1]}


def _into(
    tree: dict[str, PyTree], found: Contents, path: str | os.PathLike[str], strict: bool
) -> Weights:
    wanted = trees.leaves_by_path(tree)
    differences = _differences(wanted, found)
    if differences and strict:
        raise CheckpointError(
            f"load: {path} does not fit what it is loaded into:{trees.listed(differences.lines)}"
        )
    kept = {*differences.missing, *differences.changed}
    _check_arrays({name: wanted[name] for name in kept}, path)
    if differences:
        warn(
            f"load: {path} was loaded in part, and the rest is as it was given:"
            f"{trees.listed(differences.lines)}",
            UserWarning,
        )
    filled = [
        leaf
        if name in kept
        else trees.as_wanted(found.arrays[name], found.leaves[name].key, leaf)
        for name, leaf in wanted.items()
    ]
    tree = jax.tree.unflatten(jax.tree.structure(tree), filled)
    return tree["params"], tree["state"]


def _check_arrays(kept: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Refuses shapes in place of arrays that are kept."""
    shapes = sorted(
        name for name, leaf in kept.items() if isinstance(leaf, jax.ShapeDtypeStruct)
    )
    if shapes:
        raise CheckpointError(
            f"load: {path} does not have {shapes[0]} as it is wanted, and strict=False keeps the "
            f"array of like, which has only its shape — give arrays, like=model.init(key, x)."
        )
