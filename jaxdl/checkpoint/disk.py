"""Writing that survives a kill, a full disk and a power cut: the new is whole before the old
goes.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Puts a file in place in one move; whatever fails before leaves the old one as it was.

    As a plain `open(path, "w")` has it, what a symbolic link leads to is written, a file that was
    there keeps its permissions, and a new one has those that the umask leaves.

    Args:
        path: where it shall lie.
        write: writes all of it to the path it is given, in the same folder.
    """
    target = _behind_links(path)
    part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.touch(exist_ok=False)
        mode = stat.S_IMODE((target if target.exists() else part).stat().st_mode)
        write(part)
        flush(part)
        part.chmod(mode)  # safetensors makes a file of its own, which is its owner's alone
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    flush(target.parent)


def _behind_links(path: Path) -> Path:
    """The regular file that a path leads to, be it there or not."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return target


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
    hidden = (
        path
        if path.name.startswith(".")
        else path.with_name(f".removing-{path.name}-{secrets.token_hex(4)}")
    )
    if hidden != path:
        os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)
