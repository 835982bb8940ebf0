"""Weights alone, as a safetensors file that knows its own digests."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.disk import write_atomically
from jaxdl.checkpoint.error import CheckpointError, Flaw, reason
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.checkpoint.versions import versions

FORMAT, VERSION = "jaxdl weights", 1
_NOTE = "jaxdl"
_NO_DIGEST = "0" * 64
_STORED = {
    **{
        name: name
        for name in (
            "bool",
            "bfloat16",
            "float16",
            "float32",
            "float64",
            "float8_e4m3fn",
            "float8_e5m2",
        )
    },
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "complex64": "float32",  # as pairs, which readers of any age know
    "complex128": "float64",
}


def save(path: str | os.PathLike[str], params: Any, state: Any = None) -> None:
    """Writes the weights of a model to a safetensors file, with a digest of each array and one of
    all else.

    Any reader of safetensors opens the file: the arrays are called `params.…` and `state.…`, by
    dotted path, with a dot within a name written `\\.`. It is written beside its place and moved
    there once it is whole: a full disk or a kill leaves the old file as it was.

    Args:
        path: the file; folders above it are made.
        params, state: nested dicts of arrays, as from `init` or `fit`; typed keys too.

    Raises:
        CheckpointError: the file cannot be written.
        TypeError, ValueError: a leaf is no array, or a name is no string.
        ModuleNotFoundError: safetensors is not installed.
    """
    writer = _library("numpy")
    target, notes, arrays = Path(path), {}, {}
    empty: list[str] = []
    for name, leaf in _walk({"params": params, "state": {} if state is None else state}, (), empty):
        try:
            plain, key = trees.as_plain(leaf)
            note = trees.note_of(plain, key)
            arrays[name] = _stored(plain, note)
        except TypeError as error:
            raise TypeError(f"save: {name} {error}") from None
        notes[name] = note.noted()
    manifest = {"digest": _NO_DIGEST, "format": FORMAT, "version": VERSION, "versions": versions()}
    told = json.dumps(manifest | {"leaves": notes, "empty": empty})

    def write(part: Path) -> None:
        writer.save_file(arrays, str(part), metadata={_NOTE: told})
        _seal(part)

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, write)
    except Exception as error:  # the library has its own errors for what the disk says
        raise CheckpointError(
            f"save: {target} cannot be written ({reason(error)}) — what was there before is "
            f"unchanged; free some space or give "
            "another path."
        ) from error


def load(path: str | os.PathLike[str], like: Any = None) -> tuple[Any, Any]:
    """Reads weights that `save` wrote: `(params, state)`, bit by bit as they were.

    Every digest is checked: a file that was altered, cut off or added to is refused.

    Args:
        path: the file.
        like: `(params, state)` of arrays or shapes to load into, such as
            `jax.eval_shape(model.init, key, x)`: the file must hold exactly these leaves, in these
            shapes and dtypes. None takes what is there, as nested dicts.

    Returns:
        JAX arrays; NumPy arrays where JAX has the dtype not enabled (float64 and int64 without
        x64).

    Raises:
        CheckpointError: the file is missing, damaged, not jaxdl's or of a newer format; or it does
            not fit `like`: then the leaves that are missing, extra or of another shape or dtype are
                listed.
        ModuleNotFoundError: safetensors is not installed.
    """
    try:
        notes, empty, arrays = _read(Path(path))
    except Flaw as flaw:
        advice = "use another copy of it" if flaw.damaged else "read it with what wrote it"
        raise CheckpointError(f"load: {path} {flaw} — {advice}.") from flaw.__cause__
    if like is not None:
        return _into(like, notes, arrays, path)
    tree: dict[str, Any] = {"params": {}, "state": {}}
    for name in empty:
        _put(tree, trees.split(name), {})
    for name, note in notes.items():
        _put(tree, trees.split(name), trees.as_leaf(arrays[name], note.key))
    return tree["params"], tree["state"]


def _library(module: str | None = None) -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'files of weights need safetensors: pip install "jaxdl[checkpoints]".'
        ) from error
    return safetensors if module is None else getattr(safetensors, module)


def _walk(tree: Any, names: tuple[str, ...], empty: list[str]) -> Any:
    """The leaves of nested dicts by path, and by the way the paths of dicts that are empty."""
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


def _stored(array: Any, note: Leaf) -> np.ndarray:
    if note.dtype not in _STORED:
        raise TypeError(
            f"is of {note.dtype}, which safetensors cannot hold; convert it to one of "
            f"{', '.join(_STORED)}."
        )
    host = np.asarray(array)
    if _STORED[note.dtype] == note.dtype:
        return np.ascontiguousarray(host).reshape(host.shape)
    return np.ascontiguousarray(host).reshape(*host.shape, 1).view(_STORED[note.dtype])


def _seal(path: Path) -> None:
    """Writes into the header the digest of the header, computed with zeros in the digest's
    place.
    """
    with path.open("r+b") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        place = header.index(_NO_DIGEST.encode())
        file.seek(8 + place)
        file.write(hashlib.sha256(start + header).hexdigest().encode())


def _read(path: Path) -> tuple[dict[str, Leaf], list[str], dict[str, np.ndarray]]:
    library = _library()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Flaw(f"cannot be read ({reason(error)})") from error
    manifest, header = _manifest(data)
    notes = {name: Leaf.of_note(note) for name, note in manifest["leaves"].items()}
    size, expected = len(data) - header, sum(note.size for note in notes.values())
    if size != expected:
        raise Flaw(f"is damaged: it holds {size} bytes of arrays where {expected} are expected")
    try:
        raw = dict(library.deserialize(data))
    except Exception as error:
        raise Flaw(f"is damaged: safetensors cannot read it ({reason(error)})") from error
    arrays = {name: _checked(name, raw[name]["data"], note) for name, note in notes.items()}
    return notes, manifest["empty"], arrays


def _manifest(data: bytes) -> tuple[dict[str, Any], int]:
    """What the header says of the arrays, once its digest is checked, and where the header ends."""
    if len(data) < 8:
        raise Flaw(f"is damaged: it ends after {len(data)} bytes, within the length of its header")
    end = 8 + int.from_bytes(data[:8], "little")
    if end > len(data):
        raise Flaw(
            f"is damaged, or no safetensors file: its header shall end at byte {end}, the file "
            f"ends at {len(data)}"
        )
    try:
        manifest = json.loads(json.loads(data[8:end])["__metadata__"][_NOTE])
        digest, version, kind = manifest["digest"], manifest["version"], manifest["format"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        what = "has a header without jaxdl's digests: it is damaged, or another program wrote it"
        raise Flaw(what, damaged=not isinstance(error, KeyError)) from error
    shown = str(digest).encode()
    sealed = (
        data[:end].replace(shown, _NO_DIGEST.encode(), 1) if len(shown) == len(_NO_DIGEST) else b""
    )
    if hashlib.sha256(sealed).hexdigest() != digest or kind != FORMAT:
        raise Flaw("is damaged: its header is not the one that was written")
    if version != VERSION:
        raise Flaw(
            f"is of format {version}, which a newer jaxdl wrote; this one reads format {VERSION}",
            damaged=False,
        )
    return manifest, end


def _checked(name: str, data: Any, note: Leaf) -> np.ndarray:
    if hashlib.sha256(data).hexdigest() != note.digest:
        raise Flaw(f"is damaged: the bytes of {name} are not those that were written")
    return np.frombuffer(data, trees.as_dtype(note.dtype)).reshape(note.shape)


def _into(
    like: Any, notes: dict[str, Leaf], arrays: dict[str, np.ndarray], path: Any
) -> tuple[Any, Any]:
    if not isinstance(like, (tuple, list)) or len(like) != 2:
        raise TypeError(f"load: like is a pair (params, state), got {type(like).__name__}.")
    tree = {"params": like[0], "state": like[1]}
    wanted = trees.leaves_by_path(tree)
    if lines := trees.differences(wanted, notes):
        raise CheckpointError(
            f"load: {path} does not fit what it is loaded into:{trees.told(lines)}"
        )
    filled = [trees.as_wanted(arrays[name], notes[name].key, leaf) for name, leaf in wanted.items()]
    tree = jax.tree.unflatten(jax.tree.structure(tree), filled)
    return tree["params"], tree["state"]


def _put(tree: dict[str, Any], names: list[str], leaf: Any) -> None:
    *above, last = names
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = leaf
