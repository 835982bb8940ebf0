"""Arrays, pickles, sounds and texts that are made to do harm; for `benchmarks.malicious`."""

import gzip
import itertools
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.honest import Attack, Honest, batch, collection_of, contents_of, idx


def numbers(digits: dict[str, bytes]) -> Iterator[Attack]:
    """IDX files whose headers lie."""
    kind, first = "an array whose header lies", "train-images-idx3-ubyte"
    whole = digits[first]
    rows, data, big = struct.unpack(">I", whole[4:8])[0], whole[16:], 2**32 - 1
    lies = {
        "more rows": idx((rows + 1, 28, 28), data),
        "fewer rows": idx((rows - 1, 28, 28), data),
        "most rows": idx((big, 28, 28), data),
        "negative": idx((2**32 - rows, 28, 28), data),
        "all the most": idx((big,) * 3, data),
        "a product that wraps": idx((1 << 31, 1 << 31, 4, 1), b""),
        "255 dimensions of the most": idx((big,) * 255, data),
        "255 dimensions of 1": idx((1,) * 255, b"a"),
        "65 dimensions": idx((1,) * 65, b"a"),
        "none beside the most": idx((0, big, big, big), b""),
        "more dimensions than bytes": b"\0\0\x08\xff" + data[:100],
        "wrong start": b"\1" + whole[1:],
        "unknown type": whole[:2] + b"\x0a" + whole[3:],
        "a wider type": whole[:2] + b"\x0e" + whole[3:],
        "nothing": b"",
        "two bytes": b"\0\0",
        "only a header": whole[:16],
        "a pickle": pickle.dumps(np.zeros(3, object)),
        "an array of NumPy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, "
        b"'shape': (9,)}",
    }
    for name, lie in lies.items():
        yield digits_attack(kind, name, {first: lie}, digits)
        yield digits_attack(kind, f"{name}, gzip", {first: lie}, digits, packed=True)
    for name, wrong in {
        "a bomb": bytes(256 << 20),
        "cut off": whole[:-1],
        "longer": whole + b"!",
        "altered": whole[::-1],
    }.items():
        files = {
            f"{one}.gz": gzip.compress(data, 1)
            for one, data in (digits | {first: wrong}).items()
        }
        yield Attack(
            kind, name, "mnist", files, contents_of(digits), sum(map(len, digits.values()))
        )


def digits_attack(
    kind: str,
    name: str,
    lies: Mapping[str, bytes],
    digits: Mapping[str, bytes],
    packed: bool = False,
) -> Attack:
    """IDX files of which some lie, and whose digests are as expected none the less."""
    files = {**digits, **lies}
    laid: dict[str, bytes] = (
        {f"{one}.gz": gzip.compress(data, 1) for one, data in files.items()}
        if packed
        else files
    )
    return Attack(kind, name, "mnist", laid, contents_of(files), sum(map(len, digits.values())))


class Call:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def pickles(honest: Honest, outside: Path) -> Iterator[Attack]:
    """Batches that run code, or build without end, and whose digests are as expected none the
    less.
    """
    kind = "a pickle with code, or without end"
    for name, content in [*calls(outside), *builders()]:
        files = honest.files | {[*honest.files][-1]: content}
        laid = {f"{honest.prefix}{one}": data for one, data in files.items()}
        yield Attack(kind, name, honest.loader, laid, contents_of(files), honest.size)


def calls(outside: Path) -> Iterator[tuple[str, bytes]]:
    import copyreg
    import operator
    import subprocess

    planted, pixels = str(outside / "planted"), np.zeros((2, 3072), np.uint8)
    wanted = {
        "os.system": Call(os.system, f"touch {planted}"),
        "eval": Call(eval, f"open({planted!r}, 'w')"),
        "exec": Call(exec, f"open({planted!r}, 'w')"),
        "open": Call(open, planted, "w"),
        "import": Call(__import__, "antigravity"),
        "Popen": Call(subprocess.Popen, ["touch", planted]),
        "rmtree": Call(shutil.rmtree, str(outside)),
        "numpy.save": Call(np.save, planted, 1),
        "numpy.load": Call(np.load, str(outside / "secret")),
        "getattr": Call(getattr, "a", "__class__"),
        "attrgetter": Call(operator.attrgetter, "__class__"),
        "copyreg": Call(copyreg.pickle, bytearray, str),
        "nested": Call(getattr, Call(__import__, "os"), Call(str, "system")),
        "deep": Call(
            list,
            Call(map, Call(getattr, Call(__import__, "os"), "system"), [f"touch {planted}"]),
        ),
        "bytearray": Call(bytearray, 1 << 33),
    }
    for (name, call), protocol in itertools.product(wanted.items(), range(5)):
        yield f"{name}, all, {protocol}", pickle.dumps(call, protocol)
        yield f"{name}, as pixels, {protocol}", batch(call, [1, 2], protocol)
        yield f"{name}, in labels, {protocol}", batch(pixels, [1, call], protocol)


def builders() -> Iterator[tuple[str, bytes]]:
    """Pickles by hand."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    doubled = b"K\x01" + b"q\x01h\x01\x86" * 200
    laughs = b"K\x01" + b"".join(b"q%ch%c\x86" % (place, place) for place in range(1, 120))
    named = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93."
    yield from {
        "memory for places": b"\x80\x04Nr\xff\xff\xff\x7f.",
        "memory for places, as text": b"Np2000000000\n.",
        "lists without end": b"\x80\x04" + b"]" * 4_000_000 + b".",
        "dicts without end": b"\x80\x04" + b"}" * 4_000_000 + b".",
        "lists in lists": b"\x80\x04" + b"]" * 90_000 + b"a" * 89_999 + b".",
        "tuples in tuples": b"\x80\x04" + b")" + b"\x85" * 90_000 + b".",
        "a key that doubles": b"\x80\x04}" + laughs + b"K\x01s.",
        "a key that doubles in one place": b"\x80\x04}" + doubled + b"K\x01s.",
        "labels that double": b"\x80\x04}(C\x04dataK\x01C\x06labels" + laughs + b"u.",
        "a shape that doubles": b"\x80\x04}(C\x04data"
        + array
        + b"(K\x01"
        + laughs
        + b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R"
        b"\x89C\x01atbC\x06labels]u.",
        "a long type": b"\x80\x04}(C\x04data"
        + array
        + b"(K\x01)cnumpy\ndtype\nX\x40\x42\x0f\x00"
        + b"a\n" * 500_000
        + b"\x85R"
        b"\x89C\x01atbC\x06labels]u.",
        "8 EiB of bytes": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        "4 GiB of bytes": b"\x80\x04B\xff\xff\xff\xff.",
        "8 EiB of a bytearray": b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        "1 TiB of a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        "a frame of 8 EiB": b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f.",
        "a buffer from elsewhere": b"\x80\x05\x97.",
        "an object kept elsewhere": b"Psecret\n.",
        "a registered extension": b"\x80\x02\x82\x01.",
        "an unknown protocol": b"\x80\xff.",
        "no end": b"\x80\x04]",
        "an end at once": b".",
        "a number of 5000 digits": b"L" + b"9" * 5000 + b"L\n.",
        "a number of a megabyte": b"\x80\x04\x8b"
        + struct.pack("<i", 1 << 20)
        + b"\x01" * (1 << 20)
        + b".",
        "a number of negative length": b"\x80\x04\x8b\xff\xff\xff\xff.",
        "an instance": b"(ios\nsystem\n.",
        "an object": b"(cos\nsystem\no.",
        "a global": named,
        "a global in pieces": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "a global with line ends": b"\x80\x04X\x40\x42\x0f\x00"
        + b"o\n" * 500_000
        + b"\x8c\x06system\x93.",
        "a global with a terminal's commands": b"c\x1b]0;owned\x07\nsystem\n.",
        "a new object": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x81.",
        "a new object by name": b"\x80\x04cnumpy\nndarray\n)}\x92.",
        "a call of what is "
        "allowed": b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85R.",
        "state for what has none": b"\x80\x02K\x01}b.",
        "marks": b"(" * 90_000 + b".",
    }.items()


def recordings(honest: Honest) -> Iterator[Attack]:
    """Sounds whose headers lie, and whose digests are as expected none the less; and alone."""
    last = [*honest.files][-1]
    whole, riff = honest.files[last], b"RIFF\xff\xff\xff\x7fWAVE"
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    lies = {
        "nothing": b"",
        "a page": b"<html></html>",
        "more sound": _with(whole, 40, "<I", len(whole)),
        "the most sound": _with(whole, 40, "<I", 2**32 - 1),
        "a sample more": _with(whole, 40, "<I", len(whole) - 42),
        "no sound": _with(whole, 40, "<I", 0),
        "no channel": _with(whole, 22, "<H", 0),
        "the most channels": _with(whole, 22, "<H", 2**16 - 1),
        "no rate": _with(whole, 24, "<I", 0),
        "the highest rate": _with(whole, 24, "<I", 2**32 - 1),
        "another rate": _with(whole, 24, "<I", 999_983),
        "no bits": _with(whole, 34, "<H", 0),
        "40 bits": _with(whole, 34, "<H", 40),
        "the most bits": _with(whole, 34, "<H", 2**16 - 1),
        "an unknown format": _with(whole, 20, "<H", 0x55),
        "floating numbers": _with(whole, 20, "<H", 3),
        "an extended format": _with(whole, 20, "<H", 0xFFFE),
        "a long format": _with(whole, 16, "<I", 2**32 - 1),
        "no format": riff + b"data" + struct.pack("<I", 8) + bytes(8),
        "a format twice": riff + form * 2 + b"data" + struct.pack("<I", 2**31) + bytes(8),
        "a list of 4 GiB": riff + b"LIST" + b"\xff" * 4 + form,
        "many lists": riff + b"LIST\0\0\0\0" * 50_000,
        "sound before its format": riff + b"data" + struct.pack("<I", 8) + bytes(8) + form,
        "half a header": whole[:30],
        "only a header": whole[:44],
        "big-endian": b"RIFX" + whole[4:],
    }
    for name, lie in lies.items():
        files = honest.files | {last: lie}
        laid = {f"recordings/{one}": data for one, data in files.items()}
        expected = collection_of(honest.expected[0], files)
        yield Attack(
            "a sound whose header lies", name, honest.loader, laid, expected, honest.size
        )
        yield Attack(
            "a sound whose header lies",
            f"{name}, alone",
            "read_wav",
            {"sound.wav": lie},
            None,
            honest.size,
        )


def _with(data: bytes, place: int, form: str, number: int) -> bytes:
    """Bytes with a number in another's place."""
    changed = struct.pack(form, number)
    return data[:place] + changed + data[place + len(changed) :]


def texts(honest: Honest) -> Iterator[Attack]:
    """Reviews that are no text, notes of a download that are no JSON, and a book that is
    another.
    """
    last, kind = [*honest.files][-1], "a text that lies"
    for name, wrong in {
        "no UTF-8": b"\xff\xfe",
        "half a letter": b"caf\xc3",
        "a surrogate": b"\xed\xa0\x80",
    }.items():
        files = honest.files | {last: wrong}
        laid = {f"aclImdb/{one}": data for one, data in files.items()}
        yield Attack(
            kind, name, "imdb", laid, collection_of(honest.expected[0], files), honest.size
        )
    book = contents_of({"input.txt": b"text" * (honest.size // 4)})
    place = "tinyshakespeare/input.txt"
    for name, wrong in {
        "altered": b"TEXT" * (honest.size // 4),
        "short": b"text",
        "long": bytes(honest.size * 2),
    }.items():
        yield Attack(kind, name, "shakespeare", {place: wrong}, book, honest.size)
        yield Attack(
            kind,
            f"{name}, packed",
            "shakespeare",
            {f"{place}.gz": gzip.compress(wrong, 1)},
            book,
            honest.size,
        )
    for name, note in {
        "nothing": b"",
        "no JSON": b"\xff\xfe{",
        "deep": b"[" * 100_000,
        "other keys": b'{"address": 1}',
        "a number of 5000 digits": b'{"url": ' + b"9" * 5000 + b"}",
        "64 MB": b'{"url": "' + b"a" * (64 << 20) + b'"}',
    }.items():
        yield Attack(
            kind,
            f"note: {name}",
            "shakespeare",
            {f"{place}.part": b"te", f"{place}.part.json": note},
            book,
            honest.size,
        )
