"""What becomes of damaged files, full disks and the time and memory of a run that saves itself.

    python -m benchmarks.faults

Bits are flipped and files cut off at random: in a file of weights, and in each file of a
checkpoint. Whatever is read afterwards must be, bit by bit, what was written, or an error that
names the damage. As a control the same damage is shown to safetensors and Orbax without jaxdl's
digests. The loaders of data sets are shown archives, arrays, pickles and sounds that are made to do
harm.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import resource
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import interruptions, machine, malicious, saving
from benchmarks.processes import Answer, serve
from benchmarks.saving import Settings, asked

Damage = Callable[[bytes], bytes]
Outcome = Literal[
    "named in an error", "fell back and said so", "harmless", "unnamed error", "silently wrong"
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults")
    parser.add_argument(
        "--flips", type=int, default=1000, help="flipped bits of each kind of file: %(default)s"
    )
    parser.add_argument(
        "--truncations",
        type=int,
        default=200,
        help="truncations of each kind of file: %(default)s",
    )
    parser.add_argument(
        "--controls",
        type=int,
        default=100,
        help="flips shown to readers without digests: %(default)s",
    )
    parser.add_argument(
        "--megabytes",
        type=int,
        default=500,
        help="size of the state that is saved: %(default)s",
    )
    parser.add_argument(
        "--window",
        type=float,
        default=20.0,
        help="seconds of training around a save: %(default)s",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="windows with a save and without: %(default)s"
    )
    parser.add_argument(
        "--kills", type=int, default=100, help="signals of each kind sent to a run: %(default)s"
    )
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=[*PARTS],
        default=[*PARTS],
        metavar="PART",
        help="what to try: all",
    )
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the file: %(default)s"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        commands = {
            "by_orbax": by_orbax,
            "fill": fill,
            "memory": saving.memory,
            "cost": saving.cost,
        }
        serve(commands | {"attempt": malicious.attempt})
        return
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="jaxdl-faults-") as folder:
        chosen = {
            field.name: getattr(given, field.name)
            for field in dataclasses.fields(Settings)
            if field.name != "folder"
        }
        result = tried(Settings(folder=Path(folder), **chosen), given.parts)
    path = given.out / "faults.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | result, indent=2) + "\n")


def tried(settings: Settings, parts: Sequence[str]) -> dict[str, Any]:
    """The result of each part, with what it was measured on."""
    result: dict[str, Any] = {"machine": description()}
    for part in parts:
        result[part] = PARTS[part](settings)
        print(f"{part}: {json.dumps(result[part])}", flush=True)
    return result


def description() -> dict[str, Any]:
    """The machine, and the libraries that write the files."""
    found: dict[str, Any] = machine.description()
    found["versions"] |= {
        name: machine.installed_version(name) for name in ("orbax-checkpoint", "safetensors")
    }
    return found


def flipped(generator: np.random.Generator) -> Damage:
    """Flips one bit, anywhere."""

    def damage(data: bytes) -> bytes:
        bits = np.frombuffer(data, np.uint8).copy()
        bits[generator.integers(len(bits))] ^= np.uint8(1 << generator.integers(8))
        return bits.tobytes()

    return damage


def truncated(generator: np.random.Generator) -> Damage:
    """Cuts the file off, anywhere."""
    return lambda data: data[: generator.integers(len(data))]


def example() -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights of a small network in several dtypes, and its state."""
    import jax
    import jax.numpy as jnp

    import jaxdl as dl

    model = dl.Sequential(
        dl.Conv(8, 3), dl.BatchNorm(), jax.nn.relu, dl.Flatten(), dl.Dense(10), half=dl.Dense(4)
    )
    params, state = model.init(
        jax.random.key(0), jax.ShapeDtypeStruct((1, 12, 12, 1), jnp.float32)
    )
    params["half"] = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params["half"])
    return params, state | {
        "noise": {"key": jax.random.key(1), "count": jnp.zeros((), jnp.int32)}
    }


def content(tree: Any) -> str:
    """A digest of the bits of a tree, its names, shapes and dtypes."""
    import jax

    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        array = np.asarray(leaf)
        digest.update(
            f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode()
            + array.tobytes()
        )
    return digest.hexdigest()


def weights(settings: Settings) -> dict[str, Any]:
    """Counts of outcomes for a file of weights."""
    import jaxdl as dl

    path, generator = settings.folder / "weights.safetensors", np.random.default_rng(0)
    tree = example()
    dl.save(path, *tree)
    whole, written = path.read_bytes(), content(tree)

    def outcome(damaged: bytes) -> Outcome:
        path.write_bytes(damaged)
        try:
            return "harmless" if content(dl.load(path)) == written else "silently wrong"
        except dl.CheckpointError as error:
            return "named in an error" if str(path) in str(error) else "unnamed error"
        except Exception:
            return "unnamed error"

    flips = Counter(outcome(flipped(generator)(whole)) for _ in range(settings.flips))
    cuts = Counter(outcome(truncated(generator)(whole)) for _ in range(settings.truncations))
    bare = Counter(
        _by_safetensors(path, whole, flipped(generator)(whole))
        for _ in range(settings.controls)
    )
    return {
        "bytes": len(whole),
        "flips": dict(flips),
        "truncations": dict(cuts),
        "flips, safetensors alone": dict(bare),
    }


def _by_safetensors(path: Path, whole: bytes, damaged: bytes) -> str:
    from safetensors import deserialize

    try:
        return (
            "harmless"
            if dict(deserialize(damaged)) == dict(deserialize(whole))
            else "silently wrong"
        )
    except Exception:
        return "error"


def checkpoints(settings: Settings) -> dict[str, Any]:
    """Counts of outcomes for a run's checkpoints: damage to the newest of two, and to the only
    one.
    """
    generator = np.random.default_rng(1)
    folder = settings.folder / "run"
    trees = [example(), _moved(example())]
    _saved(folder, trees)
    newest, oldest = _steps(folder)
    flips = [*_damages(newest, flipped(generator), settings.flips, generator)]
    cuts = [*_damages(newest, truncated(generator), settings.truncations, generator)]
    result: dict[str, Any] = {
        "bytes": sum(path.stat().st_size for path in _files(newest)),
        "files": len(_files(newest)),
    }
    for name, damages in (("flips", flips), ("truncations", cuts)):
        half = len(damages) // 2
        counts = Counter(_outcome(folder, trees, *damage) for damage in damages[:half])
        hidden = folder / f"kept-{oldest.name}"
        oldest.rename(hidden)
        counts += Counter(_outcome(folder, trees[1:], *damage) for damage in damages[half:])
        hidden.rename(oldest)
        result[name] = dict(counts)
    result["flips, Orbax alone"] = asked(
        settings, "by_orbax", folder=str(newest), count=settings.controls
    )
    return result


def _saved(folder: Path, trees: Sequence[Any]) -> None:
    from jaxdl.checkpoint.checkpoints import Checkpoints
    from jaxdl.checkpoint.store import Store

    with Store(Checkpoints(folder, keep=None)) as store:
        for step, tree in enumerate(trees):
            store.save(step, 0, tree, {"history": {"loss": [0.5, 0.25]}})


def _moved(tree: Any) -> Any:
    import jax

    return jax.tree.map(
        lambda leaf: leaf + 1 if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating) else leaf,
        tree,
    )


def _steps(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.name[0].isdigit()), reverse=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _damages(
    folder: Path, damage: Damage, count: int, generator: np.random.Generator
) -> Iterator[tuple[Path, bytes]]:
    """Damaged contents of files: every other one of a file chosen by its size, the rest of any file
    alike.
    """
    files = [path for path in _files(folder) if path.stat().st_size]
    sizes = np.array([path.stat().st_size for path in files], np.float64)
    for number in range(count):
        chances = sizes / sizes.sum() if number % 2 else None
        path = files[generator.choice(len(files), p=chances)]
        yield path, damage(path.read_bytes())


@contextlib.contextmanager
def _replaced(path: Path, damaged: bytes) -> Iterator[None]:
    """A file with another content for a while; its folder comes back to its name, should it be set
    aside.
    """
    whole, step = (
        path.read_bytes(),
        next(part for part in path.parents if part.name[:1].isdigit()),
    )
    path.write_bytes(damaged)
    try:
        yield
    finally:
        for moved in step.parent.glob(f"damaged-{step.name}-*"):
            moved.rename(step)
        path.write_bytes(whole)


def _outcome(folder: Path, trees: Sequence[Any], path: Path, damaged: bytes) -> Outcome:
    """What restoring gives while a file of the newest checkpoint is damaged; `trees` were saved,
    the newest last.
    """
    from jaxdl.checkpoint.checkpoints import Checkpoints
    from jaxdl.checkpoint.error import CheckpointError
    from jaxdl.checkpoint.store import Store

    with _replaced(path, damaged), Store(Checkpoints(folder, keep=None)) as store:
        newest = _steps(folder)[0].name
        try:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                restored = store.restore(lambda *_: trees[-1])
        except CheckpointError as error:
            return "named in an error" if newest in str(error) else "unnamed error"
        except Exception:
            return "unnamed error"
        found = None if restored is None else content(restored.tree)
        if found == content(trees[-1]):
            return "harmless"
        said = any(newest in str(warning.message) for warning in told)
        return (
            "fell back and said so" if said and found == content(trees[0]) else "silently wrong"
        )


def by_orbax(folder: str, count: int) -> Answer:
    """Counts of outcomes where Orbax reads the arrays of a checkpoint with a flipped bit, without
    jaxdl's digests.

    In a process of its own, since Orbax leaves coroutines behind where it fails.
    """
    import orbax.checkpoint as ocp

    generator, arrays = np.random.default_rng(2), Path(folder).absolute() / "arrays"

    def outcome(path: Path, damaged: bytes, whole: str) -> str:
        with _replaced(path, damaged):
            try:
                return (
                    "harmless" if content(reader.restore(arrays)) == whole else "silently wrong"
                )
            except Exception:
                return "error"

    with ocp.PyTreeCheckpointer() as reader:
        whole = content(reader.restore(arrays))
        return dict(
            Counter(
                outcome(*damage, whole)
                for damage in _damages(arrays, flipped(generator), count, generator)
            )
        )


def full_disk(settings: Settings) -> Answer:
    """A run that may write no file beyond a size: what becomes of its save, and of the one
    before.
    """
    return asked(settings, "fill", folder=str(settings.folder / "full"))


def fill(folder: str) -> Answer:
    """Saves once, then again while no file may be longer than 100 kB, then again without that
    limit.
    """
    import jax.numpy as jnp

    from jaxdl.checkpoint.checkpoints import Checkpoints
    from jaxdl.checkpoint.store import Store

    trees = [{"kernel": jnp.full((300, 300), number, jnp.float32)} for number in range(3)]
    limits, steps, told = resource.getrlimit(resource.RLIMIT_FSIZE), [], []
    with Store(Checkpoints(folder)) as store:
        for number, tree in enumerate(trees):
            most = (100_000, limits[1]) if number == 1 else limits
            resource.setrlimit(resource.RLIMIT_FSIZE, most)
            store.save(number, 0, tree, {})
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                store.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            told += [str(warning.message).replace(folder, "FOLDER") for warning in caught]
            restored = store.restore(lambda *_: trees[0])
            steps.append(None if restored is None else restored.step)
            assert restored is None or content(restored.tree) == content(trees[restored.step])
        left = [path.name for path in Path(folder).iterdir() if path.name.startswith(".saving")]
    return {"newest whole step after each save": steps, "warnings": told, "left over": left}


def ended(number: str, counts: dict[str, int]) -> str:
    """What became of the runs that a signal ended."""
    runs = f"{counts['runs']} run{'s' * (counts['runs'] > 1)}"
    return (
        f"\n`{number}`, sent {counts['signals']} times at a random moment of {runs} "
        f"({counts['before the first epoch']} times "
        "while the process was compiling, else while it trained, evaluated and saved): a whole "
        "checkpoint was there "
        f"{counts['a whole checkpoint after it']} times; taken up again until the end, "
        f"{counts['same digest']} of {runs} gave "
        "the bits of the undisturbed one."
    )


def escaped(harm: dict[str, Any]) -> str:
    """What the data that were made to do harm did outside their folder, and with the memory."""
    memory = harm["most memory of a refusal over honest content"]
    return (
        f"Of {harm['attacks']} data folders that were made to do harm, {harm['escapes'] or 'none'} "
        f"had something written, run "
        f"or called outside the folder; refusing one took at most {memory:.2f} times the memory of "
        f"what its honest archive "
        "unpacks to. Harmless is what gave the honest content, to the bit: nobody read the member "
        "that meant harm."
    )


def survived(disk: dict[str, Any]) -> str:
    """What became of three saves, the second of which found no room."""
    first, second, third = disk["newest whole step after each save"]
    return (
        f"\nOf three saves the second found no room on the disk: step {second} was whole then, as "
        f"after the first ({first}), "
        f"the run was told, and the third was whole again ({third}); "
        f"{len(disk['left over']) or 'nothing'} was left over."
    )


def markdown(result: dict[str, Any]) -> str:
    """The tables of docs/benchmarks.md: outcomes by kind of damage, then the cost of saving."""
    names = (
        "named in an error",
        "fell back and said so",
        "harmless",
        "unnamed error",
        "silently wrong",
    )
    lines = [
        f"| damage | tried | {' | '.join(names)} |",
        f"| --- |{' ---: |' * (len(names) + 1)}",
    ]
    for part, what in (("weights", "a file of weights"), ("checkpoints", "a checkpoint")):
        for kind, told in (
            ("flips", "a flipped bit in"),
            ("truncations", "the end cut off of"),
        ):
            counts = result[part][kind]
            cells = [sum(counts.values()), *(counts.get(name, 0) for name in names)]
            lines.append(f"| {told} {what} | {' | '.join(map(str, cells))} |")
    for part, kind, told in (
        ("weights", "flips, safetensors alone", "safetensors alone"),
        ("checkpoints", "flips, Orbax alone", "Orbax alone"),
    ):
        counts = result[part][kind]
        wrong = (counts.get(name, 0) for name in ("harmless", "error", "silently wrong"))
        cells = [sum(counts.values()), 0, 0, *wrong]
        lines.append(f"| a flipped bit, {told} | {' | '.join(map(str, cells))} |")
    told = []
    if harm := result.get("malicious"):
        for kind, counts in (
            (kind, found["outcomes"]) for kind, found in harm["kinds"].items()
        ):
            cells = [sum(counts.values()), *(counts.get(name, 0) for name in names)]
            lines.append(f"| data with {kind} | {' | '.join(map(str, cells))} |")
        told = ["", escaped(harm)]
    memory, costs = result["saving memory"], result["saving cost"]
    shares = (
        f"{cost['share of training, saving every minute']:.1%} (a state of {size})"
        for size, cost in costs.items()
    )
    measured_on = result["machine"]
    lines += [
        "",
        f"Saving every minute takes {', '.join(shares)} of the training time; a run whose state is "
        f"{memory['state_megabytes']} MB has {memory['ratio']:.2f} times the peak memory when it "
        "saves. "
        f"{measured_on['processor']}, {measured_on['cores']} cores, {measured_on['date'][:10]}.",
        *told,
        *([survived(result["full disk"])] if "full disk" in result else []),
        *(
            ended(number, result[number])
            for number in ("kill -9", "SIGTERM")
            if number in result
        ),
    ]
    return "\n".join(lines) + "\n"


PARTS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "weights": weights,
    "checkpoints": checkpoints,
    "kill -9": interruptions.killed,
    "SIGTERM": interruptions.terminated,
    "full disk": full_disk,
    "malicious": malicious.malicious,
    "saving memory": saving.saving_memory,
    "saving cost": saving.saving_cost,
}

if __name__ == "__main__":
    main()
