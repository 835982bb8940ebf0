"""Safetensors files of other programs."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.error import FileCorruptionError, FormatError, reason
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.checkpoint.weights import Contents, library

_DTYPES = {
    "BOOL": "bool",
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}
_TREES = ("params", "state")


def is_foreign(path: Path) -> bool:
    """Whether a file has a header of safetensors without jaxdl's digests."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, path.stat().st_size)))
        return "jaxdl" not in header.get("__metadata__", {})
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, OverflowError):
        return False


def read_foreign(path: Path) -> Contents:
    """The arrays of a file, which has no digests, by path: a name with dots is that of an array in
    nested dicts, which are parameters unless all names begin with "params." or "state.".

    Raises:
        FileCorruptionError: safetensors cannot read it.
        FormatError: an array is of a dtype that is not known, or has the name of a dict.
    """
    safetensors = library()
    try:
        raw: dict[str, Any] = dict(safetensors.deserialize(path.read_bytes()))
    except Exception as error:
        message = f"is damaged: safetensors cannot read it ({reason(error)})"
        raise FileCorruptionError(message) from error
    _check_nested(set(raw))
    named = bool(raw) and all(name.partition(".")[0] in _TREES and "." in name for name in raw)
    leaves: dict[str, Leaf] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, entry in raw.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise FormatError(
                f"has {name} of {entry['dtype']}, a dtype that jaxdl does not know"
            )
        parts = name.split(".") if named else ["params", *name.split(".")]
        path_of = trees.joined(parts)
        flat = np.frombuffer(entry["data"], np.dtype(jnp.dtype(dtype)))
        arrays[path_of] = flat.reshape(entry["shape"])
        leaves[path_of] = Leaf(dtype, tuple(entry["shape"]), "")
    return Contents(leaves, [], arrays)


def _check_nested(names: set[str]) -> None:
    for name in sorted(names):
        parts = name.split(".")
        for end in range(1, len(parts)):
            above = ".".join(parts[:end])
            if above in names:
                raise FormatError(
                    f"has arrays called {above} and {name}, which cannot be nested dicts"
                )
