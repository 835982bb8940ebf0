"""Errors about files that cannot be used."""

import os
import re

_MAX_LENGTH = 160


class CheckpointError(ValueError):
    """A checkpoint or a file of weights cannot be used.

    The message names the file or folder, what is wrong with it, and what to do.
    """


class UnreadableError(Exception):
    """A file or folder cannot be read; the message is a predicate whose subject is its path."""


class FormatError(UnreadableError):
    """A file or folder is intact, but was written by another version or another program."""


class CorruptionError(UnreadableError):
    """The contents of a file or folder are not those that were written."""


class ManifestCorruptionError(CorruptionError):
    """The manifest, or the header of a file of weights, is missing or was altered."""


class FileCorruptionError(CorruptionError):
    """A file is missing, was added, or has other bytes than those that were written."""


class ArrayCorruptionError(CorruptionError):
    """An array is missing, or its bytes do not match its digest."""


def reason(error: BaseException) -> str:
    """The message of an exception, short enough for parentheses in a sentence.

    The operating system's own message comes first, where there is one.

    Args:
        error: what was raised.

    Returns:
        One line of at most 160 characters.
    """
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    # Orbax's writer appends the code of the operating system to a message of many lines.
    number = re.search(r"os_error_code='(\d+)'", message)
    if number:
        return os.strerror(int(number[1]))
    first = message.strip().splitlines()[0]
    if len(first) <= _MAX_LENGTH:
        return first
    return first[:_MAX_LENGTH] + "…"
