"""Files of weights: safetensors files with a digest of each array and of the header."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.disk import write_atomically
from jaxdl.checkpoint.error import (
    ArrayCorruptionError,
    CheckpointError,
    FileCorruptionError,
    FormatError,
    ManifestCorruptionError,
    reason,
)
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.versions import versions

FORMAT = "jaxdl weights"
VERSION = 1
_METADATA = "jaxdl"
_NO_DIGEST = "0" * 64
_SAME = (
    *("bool", "bfloat16", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
_STORED = {
    **{name: name for name in _SAME},
    "complex64": "float32",  # as pairs, which readers of any version of safetensors know
    "complex128": "float64",
}
"""The dtype that each dtype is stored in."""


class Contents(NamedTuple):
    """What a file of weights holds: what is recorded of each array, the paths of dicts that are
    empty, and the arrays.
    """

    leaves: dict[str, Leaf]
    empty: list[str]
    arrays: dict[str, np.ndarray]


def save(path: str | os.PathLike[str], params: PyTree, state: PyTree = None) -> None:
    """Writes the weights of a model to a safetensors file, with digests of all its contents.

    Any reader of safetensors opens the file: the arrays are called `params.…` and `state.…`, by
    dotted path, with a dot within a name written `\\.`. The file is written under a temporary name
    and renamed once it is complete: a full disk or a kill leaves the old file as it was.

    Args:
        path: the file; folders above it are created.
        params: nested dicts of arrays, as from `init` or `fit`; typed keys too.
        state: as `params`; None is the state of a model that has none.

    Raises:
        CheckpointError: the file cannot be written.
        TypeError: a leaf is not an array, or is of a dtype that safetensors cannot hold.
        ValueError: a name is not a string.
        ModuleNotFoundError: safetensors is not installed.
    """
    target = Path(path)
    empty: list[str] = []
    tree = {"params": params, "state": {} if state is None else state}
    contents = contents_of("save", dict(_walk(tree, (), empty)), empty)
    try:
        write(target, contents)
    except Exception as error:  # safetensors has errors of its own for what the system reports
        raise CheckpointError(
            f"save: {target} cannot be written ({reason(error)}) — what was there before is "
            f"unchanged; free some space or give another path."
        ) from error


def contents_of(caller: str, leaves: Mapping[str, object], empty: Sequence[str]) -> Contents:
    """What a file of weights holds of leaves by path.

    Args:
        caller: what an error begins with.
        leaves: arrays, typed keys and numbers, by dotted path.
        empty: the paths of dicts without leaves.

    Raises:
        TypeError: a leaf is not an array, or is of a dtype that safetensors cannot hold.
        ModuleNotFoundError: safetensors is not installed.
    """
    library()
    notes: dict[str, Leaf] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in leaves.items():
        try:
            plain, key = trees.as_plain(leaf)
            notes[name] = trees.record_of(plain, key)
            arrays[name] = _stored(plain, notes[name])
        except TypeError as error:
            raise TypeError(f"{caller}: {name} {error}") from None
    return Contents(notes, list(empty), arrays)


def write(target: Path, contents: Contents) -> None:
    """Writes a file of weights, whole or not at all; folders above it are created."""
    from_numpy = library().numpy
    records = {name: note.to_record() for name, note in contents.leaves.items()}
    manifest = {
        "digest": _NO_DIGEST,
        "format": FORMAT,
        "version": VERSION,
        "versions": versions(),
    }
    text = json.dumps(manifest | {"leaves": records, "empty": contents.empty})

    def write_part(part: Path) -> None:
        from_numpy.save_file(contents.arrays, str(part), metadata={_METADATA: text})
        _seal(part)

    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, write_part)


def library() -> ModuleType:
    """The package safetensors.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    try:
        import safetensors
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'files of weights need safetensors: pip install "jaxdl[checkpoints]".'
        ) from error
    return safetensors


def _walk(
    tree: object, names: tuple[str, ...], empty: list[str]
) -> Iterator[tuple[str, object]]:
    """The leaves of nested dicts by path; appends the paths of dicts that are empty."""
    if not isinstance(tree, Mapping):
        yield trees.joined(names), tree
        return
    if not tree and names:
        empty.append(trees.joined(names))
    for name, part in tree.items():
        if not isinstance(name, str):
            raise ValueError(
                f"save: {trees.joined(names)} has the name {name!r}; expected nested dicts named "
                f"by strings."
            )
        yield from _walk(part, (*names, name), empty)


def _stored(array: Array | np.ndarray, note: Leaf) -> np.ndarray:
    if note.dtype not in _STORED:
        raise TypeError(
            f"is of {note.dtype}, which safetensors cannot hold; convert it to one of "
            f"{', '.join(_STORED)}."
        )
    host = np.asarray(array)
    rows = np.ascontiguousarray(host)
    if _STORED[note.dtype] == note.dtype:
        return rows.reshape(host.shape)
    return rows.reshape(*host.shape, 1).view(_STORED[note.dtype])


def _seal(path: Path) -> None:
    """Writes the digest of the header into the header, computed with zeros in its place."""
    with path.open("r+b") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        position = header.index(_NO_DIGEST.encode())
        file.seek(8 + position)
        file.write(hashlib.sha256(start + header).hexdigest().encode())


def read(path: Path) -> Contents:
    """Reads a file of weights, and checks every digest.

    Raises:
        UnreadableError: it is missing, damaged, or of another format.
    """
    safetensors = library()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileCorruptionError(f"cannot be read ({reason(error)})") from error
    manifest, header = _manifest(data)
    leaves = {name: Leaf.from_record(leaf) for name, leaf in manifest["leaves"].items()}
    size = len(data) - header
    expected = sum(leaf.size for leaf in leaves.values())
    if size != expected:
        raise FileCorruptionError(
            f"is damaged: it holds {size} bytes of arrays where {expected} are expected"
        )
    try:
        raw = dict(safetensors.deserialize(data))
    except Exception as error:
        message = f"is damaged: safetensors cannot read it ({reason(error)})"
        raise FileCorruptionError(message) from error
    arrays = {name: _checked(name, raw[name]["data"], leaf) for name, leaf in leaves.items()}
    return Contents(leaves, manifest["empty"], arrays)


def _manifest(data: bytes) -> tuple[dict[str, Any], int]:
    """The manifest in the header, once its digest is checked, and where the header ends."""
    end = _header_end(data)
    try:
        manifest = json.loads(json.loads(data[8:end])["__metadata__"][_METADATA])
        digest = manifest["digest"]
        version = manifest["version"]
        kind = manifest["format"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        message = (
            "has a header without jaxdl's digests: it is damaged, or another program wrote it"
        )
        if isinstance(error, KeyError):
            raise FormatError(message) from error
        raise ManifestCorruptionError(message) from error
    if not _is_sealed(data[:end], digest) or kind != FORMAT:
        raise ManifestCorruptionError("is damaged: the digest of its header does not match")
    if version != VERSION:
        raise FormatError(
            f"is of format {version}, which a newer jaxdl wrote; this one reads format {VERSION}"
        )
    return manifest, end


def _header_end(data: bytes) -> int:
    """Where the header ends, which its first 8 bytes say."""
    if len(data) < 8:
        raise ManifestCorruptionError(
            f"is damaged: it ends after {len(data)} bytes, within the length of its header"
        )
    end = 8 + int.from_bytes(data[:8], "little")
    if end > len(data):
        raise ManifestCorruptionError(
            f"is damaged, or no safetensors file: its header ends at byte {end}, the file at "
            f"{len(data)}"
        )
    return end


def _is_sealed(header: bytes, digest: object) -> bool:
    """Whether a header has this digest, computed with zeros in its place."""
    written = str(digest).encode()
    if len(written) != len(_NO_DIGEST):
        return False
    unsealed = header.replace(written, _NO_DIGEST.encode(), 1)
    return hashlib.sha256(unsealed).hexdigest() == digest


def _checked(name: str, data: bytes | bytearray, leaf: Leaf) -> np.ndarray:
    if hashlib.sha256(data).hexdigest() != leaf.digest:
        raise ArrayCorruptionError(f"is damaged: the digest of {name} does not match")
    return np.frombuffer(data, trees.as_dtype(leaf.dtype)).reshape(leaf.shape)
