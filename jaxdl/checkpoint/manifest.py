"""A checkpoint's folder: arrays as Orbax lays them, and a manifest that knows every byte of them.

000012-step-600/
    manifest.json    what was saved, and SHA-256 of each array, of each file and of the manifest
    itself arrays/          an Orbax checkpoint, `array.PATH` for each leaf
"""

import base64
import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.checkpoint.disk import flush
from jaxdl.checkpoint.error import Flaw, reason
from jaxdl.checkpoint.leaves import Leaf, as_dtype
from jaxdl.checkpoint.versions import versions

FORMAT, VERSION = "jaxdl checkpoint", 2
NAME = "manifest.json"
ARRAYS = "arrays"
_LARGEST = 2**28
_ARRAY = "numpy array"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    Args:
        step: of the run.
        description: of the run, as it was given.
        figure: what `best` compares, or None.
        leaves: by path.
        files: size and SHA-256 of each file of `arrays`, by its path there.
        versions: of what wrote it.
        saved: when, in UTC.
    """

    step: int
    description: Any
    figure: float | None
    leaves: Mapping[str, Leaf]
    files: Mapping[str, tuple[int, str]]
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)
    saved: str = dataclasses.field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    def write(self, folder: Path) -> None:
        """Writes it, and waits until it lies on the disk."""
        path = folder / NAME
        path.write_bytes(_text(self._fields()))
        flush(path)

    def _fields(self) -> dict[str, Any]:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        leaves = {path: leaf.noted() for path, leaf in self.leaves.items()}
        head = {"format": FORMAT, "version": VERSION}
        return head | fields | {"leaves": leaves, "description": frozen(self.description)}

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads it.

        Raises:
            Flaw: it is not there, not what was written, or of another format.
        """
        fields = _fields(folder / NAME)
        if fields.get("format") != FORMAT or not isinstance(fields.get("version"), int):
            raise Flaw(f"has a {NAME} that is not of a jaxdl checkpoint", damaged=False)
        if fields["version"] != VERSION:
            age = "a newer" if fields["version"] > VERSION else "an older"
            other = (
                f"is of format {fields['version']}, which {age} jaxdl wrote; this one reads format "
                f"{VERSION}"
            )
            raise Flaw(other, damaged=False)
        kept = {field.name: fields[field.name] for field in dataclasses.fields(cls)}
        kept["leaves"] = {path: Leaf.of_note(note) for path, note in fields["leaves"].items()}
        kept["files"] = {name: (size, digest) for name, (size, digest) in fields["files"].items()}
        return cls(**kept | {"description": thawed(fields["description"])})


def _text(fields: Mapping[str, Any]) -> bytes:
    """The one way to write these fields, with the digest of all others before them."""
    digest = hashlib.sha256(_plain(fields)).hexdigest()
    return _plain({"digest": digest} | dict(fields))


def _plain(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=1).encode()


def _fields(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise Flaw(f"has a {NAME} of more than {_LARGEST} bytes")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise Flaw(f"has no {NAME}: it is not whole, or not jaxdl's") from error
    except OSError as error:
        raise Flaw(f"has a {NAME} that cannot be read ({reason(error)})") from error
    try:
        fields = json.loads(data)
        fields.pop("digest")
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise Flaw(f"has a damaged {NAME} ({reason(error)})") from error
    if _text(fields) != data:
        raise Flaw(f"has a damaged {NAME}: it is not what was written")
    return fields


def frozen(description: Any) -> Any:
    """A description as JSON holds it, NumPy arrays by their bytes.

    Raises:
        TypeError: something in it is neither.
    """
    return json.loads(json.dumps(description, default=_array_note))


def thawed(description: Any) -> Any:
    """What `frozen` gave, with its arrays; tuples have become lists."""
    if isinstance(description, list):
        return [thawed(part) for part in description]
    if not isinstance(description, dict):
        return description
    if set(description) == {_ARRAY, "dtype", "shape"}:
        data = base64.b64decode(description[_ARRAY])
        return (
            np.frombuffer(data, as_dtype(description["dtype"]))
            .reshape(description["shape"])
            .copy()[()]
        )
    return {name: thawed(part) for name, part in description.items()}


def _array_note(value: Any) -> dict[str, Any]:
    if not hasattr(value, "dtype") or np.asarray(value).dtype.kind not in "biufcV":
        raise TypeError(
            f"a checkpoint's description holds numbers, texts, lists, dicts and arrays, got "
            f"{value!r:.60}."
        )
    array = np.asarray(value)
    return {
        _ARRAY: base64.b64encode(array.tobytes()).decode(),
        "dtype": array.dtype.name,
        "shape": list(array.shape),
    }


def digests(folder: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file in a folder and below; waits until each lies on the disk."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            flush(path)
            continue
        flush(path)
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = (
                path.stat().st_size,
                hashlib.file_digest(file, "sha256").hexdigest(),
            )
    flush(folder)
    return found


def check_files(folder: Path, files: Mapping[str, tuple[int, str]]) -> None:
    """Compares the files of a folder with what was written, before anything parses them.

    Raises:
        Flaw: one is missing, too much, shorter, longer or altered.
    """
    found = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()
    }
    if lacking := sorted(files.keys() - found.keys()):
        raise Flaw(f"lacks {len(lacking)} of its files, {ARRAYS}/{lacking[0]} for one")
    if added := sorted(found.keys() - files.keys()):
        raise Flaw(f"holds {ARRAYS}/{added[0]}, with which it was not saved")
    for name, (size, digest) in files.items():
        try:
            came = found[name].stat().st_size
            if came != size:
                raise Flaw(f"has {came} bytes in {ARRAYS}/{name} where {size} were written")
            with found[name].open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise Flaw(
                        f"has a damaged {ARRAYS}/{name}: its bytes are not those that were written"
                    )
        except OSError as error:
            raise Flaw(f"has an {ARRAYS}/{name} that cannot be read ({reason(error)})") from error
