"""Archives, and folders in their place, that are made to do harm; for `benchmarks.malicious`."""

import gzip
import itertools
import lzma
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.honest import (
    BLOCK,
    PACKINGS,
    Attack,
    Honest,
    collection_of,
    header,
    member,
    pax,
    pax_record,
)

Blocks = Sequence[tuple[bytes, int]]
"""Bytes, and how often they come one behind the other."""


def archives(honest: Honest, packing: str, outside: Path) -> Iterator[Attack]:
    """Each block of an attack in an otherwise honest archive, at its beginning and before its last
    file.
    """
    pack, end = PACKINGS[packing], PACKINGS[packing](bytes(2 * BLOCK))
    kinds = {
        "a path that leads out": paths(outside),
        "a link": links(honest, outside),
        "a device or pipe": devices(honest),
        "an odd name": names(),
        "a header that lies": headers(honest) | sparse(),
        "a bomb": bombs(honest),
    }
    attacks = [
        (kind, *variant) for kind, variants in kinds.items() for variant in variants.items()
    ]
    for number, (kind, name, blocks) in enumerate(attacks):
        if packing == "plain" and sum(len(data) * count for data, count in blocks) > 64 << 20:
            continue  # a file of that size is no bomb
        if packing == "xz" and number % 3:
            continue  # what lies under the packing is the same, and this one is slow
        packed = b"".join(pack(data) * count for data, count in blocks)
        late = (number + [*PACKINGS].index(packing)) % 2  # so that each is tried in both places
        around = ("most", "last") if late else ("none", "all")
        before, after = (honest.packing(packing, part) for part in around)
        where = f"{name}, {'late' if late else 'first'}, {packing}"
        yield honest.attack(kind, where, before + packed + after + end, packing)
    for prefix in ("../../outside/", f"{outside}/", "./../", "//", "a/" * 500, "a/../" * 20):
        moved = pack(honest.members(prefix=prefix)) + end
        yield honest.attack(
            "a path that leads out", f"all under {prefix[:20]}, {packing}", moved, packing
        )


def paths(outside: Path) -> dict[str, Blocks]:
    """Members that are not asked for, under names that lead out."""
    starts = [
        "../",
        "../../outside/",
        "../" * 60,
        f"{outside}/",
        f"/{outside}/",
        "a/../../../outside/",
        "./../../outside/",
    ]
    starts += [
        "..\\..\\outside\\",
        "C:\\outside\\",
        "~/",
        "/proc/self/cwd/",
        "/dev/shm/",
        "\\\\host\\share\\",
        ".//..//",
    ]
    found: dict[str, Blocks] = {}
    for start in starts:
        found[start] = [(member(f"{start}planted", b"planted"), 1)]
        found[f"folder {start}"] = [(member(f"{start}planted/", kind=b"5"), 1)]
        found[f"pax {start}"] = [
            (pax({"path": f"{start}planted"}) + member("a", b"planted"), 1)
        ]
    return found


def links(honest: Honest, outside: Path) -> dict[str, Blocks]:
    """Links out of the folder, files written through them, and links in the place of what is asked
    for.
    """
    wanted = honest.prefix + [*honest.files][-1]
    targets = [
        "../../outside",
        str(outside),
        "/",
        ".",
        "..",
        "/etc",
        "/dev/zero",
        f"{outside}/secret",
        "link",
        "a/" * 300,
    ]
    found: dict[str, Blocks] = {}
    for (how, kind), target in itertools.product((("symbolic", b"2"), ("hard", b"1")), targets):
        link = member("link", kind=kind, link=target)
        found[f"{how} to {target[:30]}"] = [(link, 1)]
        found[f"{how} to {target[:30]}, written through"] = [
            (link + member("link/planted", b"planted"), 1)
        ]
        found[f"{how} to {target[:30]}, overwritten"] = [(link + member("link", b"planted"), 1)]
        found[f"{how} to {target[:30]}, as what is wanted"] = [
            (member(wanted, kind=kind, link=target), 1)
        ]
    found["symbolic by pax"] = [
        (pax({"linkpath": f"{outside}/secret"}) + member(wanted, kind=b"2"), 1)
    ]
    return found


def devices(honest: Honest) -> dict[str, Blocks]:
    wanted = honest.prefix + [*honest.files][-1]
    kinds = {
        "character device": b"3",
        "block device": b"4",
        "pipe": b"6",
        "folder": b"5",
        "tape label": b"V",
        "unknown": b"Z",
    }
    return {
        f"{name} {called}": [(member(called, kind=kind), 1)]
        for (name, kind), called in itertools.product(
            kinds.items(), (wanted, "dev/zero", "../dev")
        )
    }


def names() -> dict[str, Blocks]:
    odd: dict[str, str | bytes] = {
        "nul": b"a\0b",
        "only nul": b"\0",
        "no UTF-8": b"\xff\xfe\x80",
        "a lone surrogate": b"\xed\xa0\x80",
        "overlong": b"\xc0\xae\xc0\xae/planted",
        "line ends": b"a\r\nb\n",
        "a terminal's commands": b"\x1b]0;owned\x07\x1b[2J",
        "right to left": "\u202egpj.exe",
        "dots": "..",
        "a dot": ".",
        "slashes": "/" * 99,
        "spaces": " " * 99,
        "long": "n" * 30_000,
        "deep": "d/" * 15_000,
        "a device of Windows": "NUL",
        "a stream of Windows": "a:stream",
        "JSON": '{"a": [',
    }
    found: dict[str, Blocks] = {
        name: [(member(text, b"planted"), 1)] for name, text in odd.items()
    }
    found |= {
        f"{name} by pax": [(pax({"path": text}) + member("a", b"planted"), 1)]
        for name, text in odd.items()
    }
    found["binary by pax"] = [
        (pax({"hdrcharset": "BINARY", "path": b"\xff\xfe"}) + member("a", b"planted"), 1)
    ]
    found["of an unknown encoding"] = [
        (pax({"hdrcharset": b"\xff\xfe", "path": "a"}) + member("a", b"planted"), 1)
    ]
    return found


def headers(honest: Honest) -> dict[str, Blocks]:
    """Headers that promise more than there is, or never end, or have no sense."""
    wanted, data = honest.prefix + [*honest.files][-1], honest.files[[*honest.files][-1]]
    extended, empty = {"L": b"L", "K": b"K", "x": b"x", "g": b"g", "X": b"X"}, header("a")
    found: dict[str, Blocks] = {
        "many members": [(header("a/b/c") * 1000, 100)],
        "many names": [(b"".join(header(f"{row}/planted") for row in range(50_000)), 1)],
        "wanted twice": [(member(wanted, data), 1)],
        "wanted twice, otherwise": [(member(wanted, data[::-1]), 1)],
        "wanted and short": [(member(wanted, data[:-1]), 1)],
        "wanted and empty": [(member(wanted), 1)],
        "promises 8 GiB": [(header(wanted, (8 << 30) - 1), 1)],
        "promises 2^88 bytes": [(header(wanted, b"\x80" + b"\xff" * 11), 1)],
        "promises -512 bytes": [(header(wanted, b"\xff" * 10 + b"\xfe\x00"), 1)],
        "size is no number": [(header(wanted, b"many bytes  "), 1)],
        "wrong sum": [(header("a")[:-1] + b"!", 1)],
        "only ones": [(b"\xff" * BLOCK, 1)],
        "an end in the middle": [(bytes(2 * BLOCK), 1)],
        "half a block": [(bytes(BLOCK // 2), 1)],
        "global by the hundred": [
            (b"".join(pax({f"key{row}": "v"}, b"g") + empty for row in range(500)), 1)
        ],
        "global by the megabyte": [
            (b"".join(pax({f"{row}": "v" * 20_000}, b"g") + empty for row in range(1000)), 1)
        ],
        "global path": [(pax({"path": wanted}, b"g"), 1)],
        "global size": [(pax({"size": "0"}, b"g"), 1)],
        "many names by pax": [
            (b"".join(pax({"path": f"{row}" * 5000}) + empty for row in range(500)), 1)
        ],
    }
    for name, kind in extended.items():
        found[f"{name} of 100 MB"] = [
            (header("a", 100 << 20, kind), 1),
            (b"a" * (1 << 20), 100),
            (empty, 1),
        ]
        found[f"{name} of 8 GiB"] = [(header("a", (8 << 30) - 1, kind), 1)]
        found[f"{name} of -512 bytes"] = [(header("a", b"\xff" * 10 + b"\xfe\x00", kind), 1)]
        found[f"{name} upon {name}"] = [(header("a", 0, kind) * 5000 + empty, 1)]
        found[f"{name} and no more"] = [
            (member("a", b"11 path=abc\n", kind), 1),
            (bytes(2 * BLOCK), 1),
        ]
    for value in ("-1", "-512", str(1 << 70), "nan", "1e400", "9" * 5000, "", "٣"):
        found[f"pax size {value[:20]}"] = [(pax({"size": value}) + member(wanted, data), 1)]
        found[f"pax time {value[:20]}"] = [
            (pax({"mtime": value, "uid": value, "gid": value}) + member("a", b"b"), 1)
        ]
    for name, record in {
        "length 0": b"0 path=a\n",
        "length too long": b"99999999 path=a\n",
        "length too short": b"1 path=a\n",
        "length of 5000 digits": b"9" * 5000 + b" path=a\n",
        "only digits": b"1" * 8000,
        "no keyword": b"5 =a\n",
        "no UTF-8": pax_record("\udcff\udcfe", b"\xff\xfe"),
        "keywords of Python": pax_record("__class__", "a")
        + pax_record("offset", "-1")
        + pax_record("type", "5"),
    }.items():
        found[f"pax {name}"] = [(pax(record) + member("a", b"b"), 1)]
    return found


def sparse() -> dict[str, Blocks]:
    """Files with holes, in the four ways that tar has for them."""
    old = header("a", 0, b"S", ending=bytes(12))
    claimed = bytearray(old)
    claimed[386:482] = (b"%011o\0" % 512) * 8
    claimed[482] = 1
    summed = bytes(claimed[:148]) + b" " * 8 + bytes(claimed[156:])
    claims = summed[:148] + b"%06o\0 " % sum(summed) + summed[156:]
    more = (b"%011o\0" % 512) * 42 + b"\x01" + bytes(7)
    found: dict[str, Blocks] = {
        "holes without end": [(claims, 1), (more, 1 << 17)],
        "holes and no more": [(claims + more, 1)],
    }
    for name, records in {
        "0.0": {
            "GNU.sparse.size": str(1 << 60),
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.offset": "0",
        },
        "0.1": {"GNU.sparse.map": "0,1,2," * 4000 + "a"},
        "1.0": {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.realsize": str(1 << 60),
        },
    }.items():
        found[f"holes of kind {name}"] = [
            (pax(records) + member("a", b"1000000000\n" + b"1\n" * 250), 1),
            (b"1\n" * 512, 20_000),
        ]
    return found


def bombs(honest: Honest) -> dict[str, Blocks]:
    """Little that unpacks to much."""
    wanted = honest.prefix + [*honest.files][-1]
    zeros, gigabyte = bytes(8 << 20), 1 << 30
    return {
        "a gigabyte of zeros": [
            (header("zeros", gigabyte), 1),
            (zeros, gigabyte // len(zeros)),
        ],
        "a gigabyte as what is wanted": [
            (header(wanted, gigabyte), 1),
            (zeros, gigabyte // len(zeros)),
        ],
        "a gigabyte of blocks of zeros": [(zeros, gigabyte // len(zeros))],
        "a quarter of a million headers": [(header("a") * (len(zeros) // BLOCK), 16)],
        "an archive of archives": [
            (member("a.tar.gz", gzip.compress(gzip.compress(bytes(32 << 20)))), 1)
        ],
        "many empty streams": [(b"", 20_000)],
    }


def damaged(
    honest: Honest, packing: str, generator: random.Random, flips: int, cuts: int
) -> Iterator[Attack]:
    """The honest archive with its end cut off, or a bit flipped."""
    whole = honest.packing(packing, "all") + PACKINGS[packing](bytes(2 * BLOCK))
    for number in range(cuts):
        yield honest.attack(
            "an archive cut off",
            f"{number}, {packing}",
            whole[: generator.randrange(len(whole))],
            packing,
        )
    for number in range(flips):
        place = generator.randrange(len(whole) if number % 2 else 4 * BLOCK)
        flipped = (
            whole[:place]
            + bytes([whole[place] ^ 1 << generator.randrange(8)])
            + whole[place + 1 :]
        )
        yield honest.attack(
            "an archive with a flipped bit", f"{number}, {packing}", flipped, packing
        )


def dictionaries(honest: Honest) -> Iterator[Attack]:
    """xz files whose header asks for memory: 64 MiB is what `xz -9` asks for, the rest up to 4 GiB
    is not needed.
    """
    zeros = lzma.compress(header("zeros", 96 << 20) + bytes(96 << 20), preset=0)
    official = {
        "imdb": ("aclImdb_v1.tar.xz", 103_990_272),
        "cifar10": ("cifar-10-python.tar.xz", 186_000_000),
    }
    for name, (archive, size) in official.items():
        for exponent in (28, 30, 34, 37, 40):
            asking = {archive: asking_for(zeros, exponent)}
            yield Attack(
                "a bomb", f"a dictionary of size {exponent}", "official", asking, name, size
            )
    for exponent in (30, 34, 37, 40):
        packed = asking_for(honest.packing("xz", "all"), exponent)
        yield honest.attack("a bomb", f"a dictionary of size {exponent}", packed, "xz")


def asking_for(packed: bytes, exponent: int) -> bytes:
    """An xz file whose first block asks for another dictionary: of 2^(exponent / 2 + 12) bytes
    where that is even.
    """
    end = 12 + 4 * (packed[12] + 1)
    place = packed.index(b"\x21\x01", 12, end) + 2
    block = packed[12:place] + bytes([exponent]) + packed[place + 1 : end - 4]
    return packed[:12] + block + struct.pack("<I", zlib.crc32(block)) + packed[end:]


def disguises(honest: Honest, outside: Path) -> Iterator[Attack]:
    """Folders in which something else has the name of the archive, or of an unpacked file."""
    whole = honest.packing("plain", "all") + bytes(2 * BLOCK)
    things: dict[str, bytes | Callable[[Path], object]] = {
        "nothing": b"",
        "a page": b"<html>please log in</html>" * 100,
        "a zip archive": b"PK\x03\x04" + bytes(1000),
        "gzip and no more": b"\x1f\x8b",
        "a name without end in gzip": b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * (4 << 20),
        "gzip of gzip": gzip.compress(gzip.compress(whole, 1), 1),
        "xz and no more": b"\xfd7zXZ\x00",
        "xz with something behind it": lzma.compress(member("a"), preset=0) + b"something",
        "a pipe": os.mkfifo,
        "zeros without end": lambda path: path.symlink_to("/dev/zero"),
        "nothing without end": lambda path: path.symlink_to("/dev/null"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a link out": lambda path: path.symlink_to(outside / "secret"),
        "a link to nowhere": lambda path: path.symlink_to(outside / "planted"),
        "a folder": lambda path: path.mkdir(),
        "what may not be read": lambda path: (path.write_bytes(whole[:BLOCK]), path.chmod(0)),
    }
    for name, thing in things.items():
        for archive in (f"{honest.archive}.gz", f"{honest.archive}.xz"):
            yield Attack(
                "something else in a file's place",
                name,
                honest.loader,
                {archive: thing},
                honest.expected,
                honest.size,
            )
        unpacked = {honest.prefix + file: data for file, data in honest.files.items()} | {
            honest.prefix + next(iter(honest.files)): thing
        }
        yield Attack(
            "something else in a file's place",
            f"{name}, unpacked",
            "cifar10",
            unpacked,
            honest.expected,
            honest.size,
        )
        first = {"aclImdb/train/pos/0_9.txt": thing}
        expected = collection_of(
            r"(?:train|test)/(?:neg|pos)/[0-9]+_[0-9]+\.txt",
            {"train/pos/0_9.txt": b"a" * honest.size},
        )
        yield Attack(
            "something else in a file's place",
            f"{name}, a text",
            "imdb",
            first,
            expected,
            honest.size,
        )
        yield Attack(
            "something else in a file's place",
            f"{name}, a sound",
            "read_wav",
            {"sound.wav": thing},
            None,
            honest.size,
        )
    for suffix in ("lock", "part", "part.json"):
        target = outside / ("secret" if suffix != "part.json" else "planted")
        files = {
            f"{honest.archive}.gz.{suffix}": lambda path, target=target: path.symlink_to(target)
        }
        yield Attack(
            "something else in a file's place",
            f"{suffix} leads out",
            honest.loader,
            files,
            honest.expected,
            honest.size,
        )
