"""Atomic writes: a process that is killed, a full disk and a power cut leave the old file or the
new one, never a part of either.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file under a temporary name and renames it; a failure leaves the old file as it was.

    As with `open(path, "w")`, the target of a symbolic link is written, an existing file keeps its
    permissions, and a new one gets those that the umask leaves.

    Args:
        path: the file to write.
        write: is called with a temporary path in the same folder, and writes all of the file there.

    Raises:
        OSError: the file cannot be written, or the path leads to something that is no regular file.
    """
    target = _resolve_links(path)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.touch(exist_ok=False)
        model = target if target.exists() else part
        mode = stat.S_IMODE(model.stat().st_mode)
        write(part)
        flush(part)
        # safetensors replaces the file by one that only its owner can read.
        part.chmod(mode)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    flush(target.parent)


def _resolve_links(path: Path) -> Path:
    """The regular file that a path leads to, whether it exists or not."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return target


def flush(path: Path) -> None:
    """Waits until a file, or the list of a folder's entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Removes a folder; an interrupted removal never leaves a part of it under its name."""
    if not path.exists():
        return
    hidden = path
    if not path.name.startswith("."):
        hidden = path.with_name(f".removing-{path.name}-{secrets.token_hex(4)}")
        os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
