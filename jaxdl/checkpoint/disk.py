"""Writing that survives a kill, a full disk and a power cut: the new is whole before the old goes."""

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Puts a file in place in one move; whatever fails before leaves the old one as it was.

    Args:
        path: where it shall lie.
        write: writes all of it to the path it is given, in the same folder.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        write(part)
        flush(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file, or the list of a folder's entries, lies on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Takes a folder away so that a removal broken off never leaves part of it under its name."""
    if not path.exists():
        return
    hidden = path if path.name.startswith(".") else path.with_name(f".removing-{path.name}-{secrets.token_hex(4)}")
    if hidden != path:
        os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
