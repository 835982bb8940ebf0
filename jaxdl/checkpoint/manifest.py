"""The manifest of a checkpoint: what it holds, with a digest of every array and every file.

000012-step-600/
    manifest.json    what was saved; SHA-256 of each array, of each file, and of the manifest itself
    arrays/          an Orbax checkpoint, `array.PATH` for each leaf
"""

import base64
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from jaxdl.checkpoint.disk import flush
from jaxdl.checkpoint.error import (
    FileCorruptionError,
    FormatError,
    ManifestCorruptionError,
    reason,
)
from jaxdl.checkpoint.leaves import Leaf, as_dtype
from jaxdl.core.versions import versions

FORMAT = "jaxdl checkpoint"
VERSION = 3
NAME = "manifest.json"
ARRAYS = "arrays"
_MAX_BYTES = 2**28
_ARRAY = "numpy array"

Json = dict[str, Any]
"""An object of JSON."""

_ArrayRecord = TypedDict("_ArrayRecord", {"numpy array": str, "dtype": str, "shape": list[int]})


def now() -> str:
    """The time in UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Args:
        step: of the run.
        description: of the run, as it was given: numbers, strings, lists, dicts and NumPy arrays.
        metric: the value that `Checkpoints.best` compares, or None.
        leaves: what is recorded of each array, by path.
        files: size and SHA-256 of each file of `arrays`, by its path there.
        versions: of the software that wrote it.
        saved: when, in UTC.
    """

    step: int
    description: object
    metric: float | None
    leaves: Mapping[str, Leaf]
    files: Mapping[str, tuple[int, str]]
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)
    saved: str = dataclasses.field(default_factory=now)

    def write(self, folder: Path) -> None:
        """Writes the manifest, and waits until it is on the disk.

        Args:
            folder: of the checkpoint.
        """
        path = folder / NAME
        path.write_bytes(digested_text(self._fields()))
        flush(path)

    def _fields(self) -> Json:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["leaves"] = {path: leaf.to_record() for path, leaf in self.leaves.items()}
        fields["description"] = to_json(self.description)
        return {"format": FORMAT, "version": VERSION, **fields}

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads the manifest of a checkpoint.

        Args:
            folder: of the checkpoint.

        Raises:
            ManifestCorruptionError: it is missing, or not as it was written.
            FormatError: it is of another format or version.
        """
        fields = read_fields(folder / NAME)
        version = fields.get("version")
        if fields.get("format") != FORMAT or not isinstance(version, int):
            raise FormatError(f"has a {NAME} that is not of a jaxdl checkpoint")
        if version != VERSION:
            age = "a newer" if version > VERSION else "an older"
            raise FormatError(
                f"is of format {version}, which {age} jaxdl wrote; this one reads format {VERSION}"
            )
        kept = {field.name: fields[field.name] for field in dataclasses.fields(cls)}
        kept["leaves"] = {
            path: Leaf.from_record(leaf) for path, leaf in fields["leaves"].items()
        }
        kept["files"] = {
            name: (size, digest) for name, (size, digest) in fields["files"].items()
        }
        kept["description"] = from_json(fields["description"])
        return cls(**kept)


def digested_text(fields: Json) -> bytes:
    """The only valid text of an object of JSON: the digest of all its fields, then these."""
    digest = hashlib.sha256(_plain(fields)).hexdigest()
    return _plain({"digest": digest} | fields)


def _plain(fields: Json) -> bytes:
    return json.dumps(fields, indent=1).encode()


def read_fields(path: Path) -> Json:
    """Reads what `digested_text` was written of, and checks its digest.

    Args:
        path: of the file.

    Raises:
        ManifestCorruptionError: it is missing, or not as it was written.
    """
    data = _bytes(path)
    try:
        fields = json.loads(data)
        fields.pop("digest")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ManifestCorruptionError(f"has a damaged {path.name} ({reason(error)})") from error
    if digested_text(fields) != data:
        raise ManifestCorruptionError(f"has a damaged {path.name}: its digest does not match")
    return fields


def _bytes(path: Path) -> bytes:
    name = path.name
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ManifestCorruptionError(f"has a {name} of more than {_MAX_BYTES} bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        kind = "checkpoint" if name == NAME else "run"
        message = f"has no {name}: it is incomplete, or no {kind} of jaxdl"
        raise ManifestCorruptionError(message) from error
    except OSError as error:
        message = f"has a {name} that cannot be read ({reason(error)})"
        raise ManifestCorruptionError(message) from error


def to_json(description: object) -> Any:
    """A description as JSON holds it, with the bytes of NumPy arrays.

    Args:
        description: numbers, strings, lists, tuples, dicts and NumPy arrays.

    Raises:
        TypeError: it holds anything else.
    """
    return json.loads(json.dumps(description, default=_array_record))


def from_json(description: object) -> object:
    """The description that `to_json` was given; tuples have become lists."""
    if isinstance(description, list):
        return [from_json(part) for part in description]
    if not isinstance(description, dict):
        return description
    if set(description) == {_ARRAY, "dtype", "shape"}:
        data = base64.b64decode(description[_ARRAY])
        array = np.frombuffer(data, as_dtype(description["dtype"]))
        return array.reshape(description["shape"]).copy()[()]
    return {name: from_json(part) for name, part in description.items()}


def _array_record(value: object) -> _ArrayRecord:
    if not hasattr(value, "dtype") or np.asarray(value).dtype.kind not in "biufcV":
        raise TypeError(
            f"a checkpoint's description holds numbers, strings, lists, dicts and arrays, got "
            f"{value!r:.60}."
        )
    array = np.asarray(value)
    return {
        "numpy array": base64.b64encode(array.tobytes()).decode(),
        "dtype": array.dtype.name,
        "shape": list(array.shape),
    }


def file_digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file in a folder and below; waits until each is on the disk.

    Args:
        folder: is searched recursively.

    Returns:
        By path within the folder, with slashes.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        flush(path)
        if not path.is_dir():
            name = path.relative_to(folder).as_posix()
            found[name] = path.stat().st_size, _file_digest(path)
    flush(folder)
    return found


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Compares the files of a folder with those that were written, before anything parses them.

    Args:
        folder: is searched recursively.
        files: what `file_digests` returned.

    Raises:
        FileCorruptionError: a file is missing, was added, or has another size or digest.
    """
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    missing = sorted(files.keys() - found.keys())
    if missing:
        raise FileCorruptionError(
            f"is missing {len(missing)} of its files, such as {ARRAYS}/{missing[0]}"
        )
    added = sorted(found.keys() - files.keys())
    if added:
        raise FileCorruptionError(f"contains {ARRAYS}/{added[0]}, which was not saved with it")
    for name, (size, digest) in files.items():
        _check_file(found[name], f"{ARRAYS}/{name}", size, digest)


def _check_file(path: Path, name: str, size: int, digest: str) -> None:
    try:
        actual = path.stat().st_size
        matches = actual == size and _file_digest(path) == digest
    except OSError as error:
        raise FileCorruptionError(
            f"has a {name} that cannot be read ({reason(error)})"
        ) from error
    if actual != size:
        raise FileCorruptionError(f"has {actual} bytes in {name}, expected {size}")
    if not matches:
        raise FileCorruptionError(f"has a damaged {name}: its digest does not match")
