"""Archives, arrays, pickles and sounds that are made to do harm, and what becomes of them; a part
of `benchmarks.faults`.

Each attack is a data folder, from which a child process loads a data set as users do. It must end
in one sentence, or give the honest content, bit by bit. Every file that it opens for writing, every
process it starts and every connection it makes is listed by Python itself, and what lies beside the
folder is compared with what lay there before. Memory is what the child takes on top of what it was
born with, as a multiple of what the honest archive unpacks to.
"""

import contextlib
import gzip
import hashlib
import itertools
import json
import lzma
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.honest import (
    BLOCK,
    PACKINGS,
    Attack,
    honest_cifar,
    honest_digits,
    honest_imdb,
    honest_sounds,
    member,
)
from benchmarks.hostile_archives import archives, damaged, dictionaries, disguises
from benchmarks.hostile_files import digits_attack, numbers, pickles, recordings, texts
from benchmarks.processes import Answer, Worker
from benchmarks.saving import Settings

MEGABYTES = 16  # of honest content in an archive; two or three more are taken by any load
PATIENCE = (
    300  # seconds until a load is taken to hang, of those in which this process is let run
)
SECRET = "not for the data set"
ACTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "ctypes.dlopen",
    "socket.connect",
)
CHANGES = (
    "os.mkdir",
    "os.link",
    "os.symlink",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
    "os.chown",
)


def malicious(settings: Settings) -> dict[str, Any]:
    """Counts of outcomes by kind of attack, and the most memory that one took."""
    generator = random.Random(0)
    damages = settings.flips // 50, settings.truncations // 10
    return tried(
        settings.folder / "malicious",
        settings.out,
        corpus(settings.folder / "malicious", generator, *damages),
    )


def tried(folder: Path, out: Path, attacks: Iterator[Attack]) -> dict[str, Any]:
    """What became of each attack in its turn."""
    kinds: dict[str, Counter[str]] = {}
    most: dict[str, float] = {}
    loading, escapes, failures, honest = 0.0, 0, [], {}
    with server(out) as worker:
        for attack in attacks:
            answer = attempted(worker, folder, attack)
            if attack.kind == "honest":
                assert answer["outcome"] == "loaded", answer
                honest[attack.loader] = answer | {"ratio": answer["bytes"] / attack.honest}
                continue
            outcome = judged(answer, attack, honest)
            kinds.setdefault(attack.kind, Counter())[outcome] += 1
            escapes += bool(answer["escapes"])
            if outcome == "harmless":
                ratio = answer["bytes"] / honest[attack.loader]["bytes"]
                loading = max(loading, ratio)
            else:
                ratio = answer["bytes"] / attack.honest
                most[attack.kind] = max(most.get(attack.kind, 0.0), ratio)
            if (
                outcome in ("unnamed error", "silently wrong")
                or answer["escapes"]
                or ratio >= 1.5
            ):
                failures.append(
                    {
                        "kind": attack.kind,
                        "name": attack.name,
                        "loader": attack.loader,
                        "ratio": ratio,
                    }
                    | answer
                )
    return {
        "attacks": sum(counts.total() for counts in kinds.values()),
        "escapes": escapes,
        "kinds": {
            kind: {
                "outcomes": dict(counts),
                "most memory over honest content": round(most.get(kind, 0.0), 2),
            }
            for kind, counts in kinds.items()
        },
        "most memory of a refusal over honest content": round(max(most.values()), 2),
        "most memory of a harmless load over an honest one": round(loading, 2),
        "memory of honest loads over their content": {
            loader: round(answer["ratio"], 2) for loader, answer in honest.items()
        },
        **({"failures": failures} if failures else {}),
    }


def judged(answer: Answer, attack: Attack, honest: Mapping[str, Answer]) -> str:
    """The outcome by name: a sentence, the honest content, or what must not be."""
    said = answer["said"]
    if answer["outcome"] == "loaded":
        right = honest.get(attack.loader, {}).get("digest") == answer["digest"]
        return "harmless" if right else "silently wrong"
    sentence = (
        answer["outcome"] == "refused"
        and "\n" not in said
        and said.isprintable()
        and len(said) < 1000
    )
    return "named in an error" if sentence and " — " in said else "unnamed error"


def server(out: Path) -> Worker:
    """Gives large blocks back to the system when they are free, as in `saving.saving_memory`, and
    has no threads to start.
    """
    environment = {"MALLOC_MMAP_THRESHOLD_": "1048576", "OPENBLAS_NUM_THREADS": "1"}
    return Worker(
        "malicious",
        "benchmarks.faults",
        "--serve",
        log=out / "faults-malicious.log",
        environment=environment,
    )


def attempted(worker: Worker, folder: Path, attack: Attack) -> Answer:
    """Lays out the folder, lets a process load it, and looks at what is beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    data, outside = folder / "data", folder / "outside"
    data.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text(SECRET)
    for name, content in attack.files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
    answer = worker.ask(
        "attempt", loader=attack.loader, folder=str(data), expected=attack.expected
    )
    beside = [str(path) for path in folder.rglob("*") if data not in (path, *path.parents)]
    if (
        sorted(beside) != [str(outside), str(outside / "secret")]
        or (outside / "secret").read_text() != SECRET
    ):
        answer["escapes"].append(f"changed: {beside}")
    shutil.rmtree(folder)
    return answer


def attempt(loader: str, folder: str, expected: Any) -> Answer:
    """Loads in a child process of this one, and says how that went."""
    loading = LOADERS[loader]
    warmed_up()
    receiving, sending = os.pipe()
    child = os.fork()
    if not child:
        os.close(receiving)
        answer = watched(lambda: loading(Path(folder), expected), Path(folder))
        with os.fdopen(sending, "w") as stream:
            stream.write(json.dumps(answer))
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as stream:
        heard = any(select.select([stream], [], [], 1.0)[0] for _ in range(PATIENCE))
        told = stream.read() if heard else ""
    if not heard:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if not told:
        return {"outcome": "died" if heard else "hung", "said": "", "bytes": 0, "escapes": []}
    return json.loads(told)


@cache
def warmed_up() -> None:
    """Imports here, and not in each child, what loaders import late."""
    from jaxdl import data

    data.mfcc(np.zeros(8000))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pack, suffix in ((gzip.compress, "gz"), (lzma.compress, "xz")):
            (folder / f"aclImdb_v1.tar.{suffix}").write_bytes(pack(member("a")))
        with contextlib.suppress(data.DataError):
            data.imdb(folder)
        with contextlib.suppress(data.DataError):
            _shakespeare(folder, [("input.txt", 1, "")])


def watched(load: Callable[[], object], folder: Path) -> Answer:
    """Loads, with a list of all that Python did outside the folder but reading."""
    from jaxdl import data

    data.mfcc(np.zeros(8000))  # a child is born without the pages of its libraries
    escapes: list[str] = []
    sys.dont_write_bytecode = True
    os.close(0)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (_virtual_memory() + (4 << 30), hard)
    )  # so that the machine survives a hole
    sys.addaudithook(lambda event, arguments: _noted(escapes, folder, event, arguments))
    before = machine.peak_memory()
    digest, outcome, said = "", "loaded", ""
    try:
        result = load()
        peak = machine.peak_memory()
        digest = digest_of(result)
    except BaseException as error:
        peak = machine.peak_memory()
        outcome, said = (
            "refused" if type(error) is data.DataError else "unnamed",
            str(error)[:2000],
        )
        said = said if outcome == "refused" else f"{type(error).__name__}: {said}"
    return {
        "outcome": outcome,
        "said": said,
        "digest": digest,
        "bytes": peak - before,
        "escapes": escapes,
    }


def _virtual_memory() -> int:
    pages = Path("/proc/self/statm")
    return (
        int(pages.read_text().split()[0]) * resource.getpagesize()
        if pages.exists()
        else 1 << 40
    )


def _noted(escapes: list[str], folder: Path, event: str, arguments: tuple[Any, ...]) -> None:
    if event in ACTS:
        escapes.append(f"{event}{arguments!r}"[:300])
    writes = event == "open" and arguments[2] & (
        os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    )
    if writes or event in CHANGES:
        for path in arguments[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
            if not isinstance(path, int) and not _inside(
                folder, Path(os.fsdecode(path)), follow=writes
            ):
                escapes.append(f"{event} {path!r}"[:300])


def _inside(folder: Path, path: Path, follow: bool) -> bool:
    """Whether a path, or where it leads to, is the folder or in it."""
    real = (
        Path(os.path.realpath(path))
        if follow
        else Path(os.path.realpath(path.parent), path.name)
    )
    return real.is_relative_to(os.path.realpath(folder))


def digest_of(value: Any) -> str:
    """Over what a loader gives: arrays and lists of texts, in tuples."""
    if isinstance(value, tuple | list):
        return hashlib.sha256("".join(map(digest_of, value)).encode()).hexdigest()
    data = (
        f"{value.dtype} {value.shape}".encode() + value.tobytes()
        if isinstance(value, np.ndarray)
        else value.encode()
    )
    return hashlib.sha256(data).hexdigest()


def _cifar(folder: Path, expected: Any) -> object:
    from jaxdl.data.cifar import read_cifar

    *train, test = _contents(expected)
    return read_cifar(folder, tuple(train), test, ())


def _imdb(folder: Path, expected: Any) -> object:
    from jaxdl.data.content import Collection
    from jaxdl.data.imdb import read_imdb

    return read_imdb(folder, (Collection(*expected),), ())


def _spoken_digits(folder: Path, expected: Any) -> object:
    from jaxdl.data.content import Collection
    from jaxdl.data.spoken_digits import read_spoken_digits

    return read_spoken_digits(folder, Collection(*expected), (), "mfcc")


def _mnist(folder: Path, expected: Any) -> object:
    from jaxdl.data.idx import read_mnist

    return read_mnist(folder, _contents(expected), ())


def _shakespeare(folder: Path, expected: Any) -> object:
    from jaxdl.data.shakespeare import read_text

    return read_text(folder, _contents(expected)[0], ())


def _wav(folder: Path, _: Any) -> object:
    from jaxdl import data

    return data.read_wav(folder / "sound.wav")


def _official(folder: Path, name: str) -> object:
    from jaxdl import data

    return getattr(data, name)(folder)


def _contents(expected: Any) -> tuple[Any, ...]:
    from jaxdl.data.content import Content

    return tuple(Content(*one) for one in expected)


LOADERS: dict[str, Callable[[Path, Any], object]] = {
    "cifar10": _cifar,
    "imdb": _imdb,
    "spoken_digits": _spoken_digits,
    "mnist": _mnist,
    "shakespeare": _shakespeare,
    "read_wav": _wav,
    "official": _official,
}


def corpus(
    folder: Path, generator: random.Random, flips: int, cuts: int, size: int = MEGABYTES << 20
) -> Iterator[Attack]:
    """All attacks; `folder/outside` is where they want to."""
    outside = folder / "outside"
    cifar, imdb = honest_cifar(size), honest_imdb(size // 2)
    sounds, digits = honest_sounds(size), honest_digits(size // 2)
    for honest in (cifar, imdb, sounds):
        yield honest.attack(
            "honest", "", honest.packing("plain", "all") + bytes(2 * BLOCK), "plain"
        )
    yield digits_attack("honest", "", {}, digits)
    for honest, packing in itertools.product((cifar, imdb), PACKINGS):
        yield from archives(honest, packing, outside)
        yield from damaged(honest, packing, generator, flips, cuts)
    yield from dictionaries(cifar)
    yield from disguises(cifar, outside)
    yield from numbers(digits)
    yield from pickles(cifar, outside)
    yield from recordings(sounds)
    yield from texts(imdb)
