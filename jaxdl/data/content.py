"""The content that files must have: lengths and digests."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Content:
    """What one file must hold once decompressed, whatever its compression.

    Attributes:
        name: the file's own name, without folder or compression suffix.
        size: its length in bytes.
        sha256: its digest, in hexadecimal.
    """

    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, data: bytes) -> "Content":
        """The content of some bytes."""
        digest = hashlib.sha256(data)
        return cls(name, len(data), digest.hexdigest())


@dataclass(frozen=True)
class Collection:
    """What many files must hold once unpacked, under one digest.

    Their folder may lie anywhere, and have other files beside them.

    Attributes:
        pattern: a regular expression for the name of each, with as many of its folders as make it
            unique.
        count: the number of files.
        size: the sum of their lengths in bytes.
        sha256: the digest, in hexadecimal, of the lines `NAME SIZE SHA-256` of all files, in the
            order of their names.
    """

    pattern: str
    count: int
    size: int
    sha256: str

    @classmethod
    def of(cls, pattern: str, files: Mapping[str, bytes]) -> "Collection":
        """The collection of some files, by their names."""
        contents = [Content.of(name, files[name]) for name in sorted(files)]
        lines = [f"{content.name} {content.size} {content.sha256}\n" for content in contents]
        digest = hashlib.sha256("".join(lines).encode())
        return cls(
            pattern=pattern,
            count=len(files),
            size=sum(map(len, files.values())),
            sha256=digest.hexdigest(),
        )
