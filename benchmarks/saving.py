"""What saving a run costs it in time and memory; a part of `benchmarks.faults`."""

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.processes import Answer, Worker


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is tried.

    Args:
        flips, truncations: of each kind of file.
        controls: how many of the flips the readers without digests are shown.
        megabytes: the size of the state whose saving is measured.
        window: seconds of training in which one save is made.
        rounds: pairs of such windows, with a save and without.
        kills: how many signals of each kind are sent to runs.
        folder: where all is written.
        out: the folder for logs and results.
    """

    flips: int
    truncations: int
    controls: int
    megabytes: int
    window: float
    rounds: int
    kills: int
    folder: Path
    out: Path


def asked(settings: Settings, command: str, name: str = "", **arguments: Any) -> Answer:
    """What a process of its own answers."""
    log = settings.out / f"faults-{' '.join((command, name)).strip().replace(' ', '-')}.log"
    environment = {"MALLOC_MMAP_THRESHOLD_": "1048576"} if command == "memory" else None
    with Worker(
        command, "benchmarks.faults", "--serve", log=log, environment=environment
    ) as worker:
        return worker.ask(command, **arguments)


def saving_memory(settings: Settings) -> dict[str, Any]:
    """The most memory of processes that train, and of processes that save meanwhile too: medians.

    Large blocks are given back to the system as soon as they are free: what the C library keeps of
    them differs from run to run by a gigabyte, with saves and without.
    """
    ways = {"training": False, "training and saving": True}
    peaks: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(settings.rounds):
        for name, saves in ways.items():
            chosen = {
                "megabytes": settings.megabytes,
                "saves": saves,
                "folder": str(settings.folder / name),
            }
            peaks[name].append(asked(settings, "memory", name, **chosen)["peak_bytes"])
    ratio = median(peaks["training and saving"]) / median(peaks["training"])
    return {"state_megabytes": settings.megabytes, "peak_bytes": peaks, "ratio": ratio}


def memory(megabytes: int, saves: bool, folder: str) -> Answer:
    """Trains a little, and meanwhile saves, again and again, or not."""
    from jaxdl.checkpoint.checkpoints import Checkpoints
    from jaxdl.checkpoint.store import Store

    step, state, batch = training(megabytes)
    with Store(Checkpoints(folder, keep=1)) as store:
        for number in range(12):
            state = step(state, batch)
            if saves and not store.busy:
                store.save(number, 0, state, {})
    shutil.rmtree(folder)
    return {"peak_bytes": machine.peak_memory()}


def saving_cost(settings: Settings) -> dict[str, Any]:
    """The share of the time of training that saving takes, once a minute."""
    sizes = {f"{settings.megabytes} MB": settings.megabytes, "5 MB": 5}
    chosen = {"window": settings.window, "rounds": settings.rounds}
    return {
        name: asked(
            settings, "cost", name, megabytes=size, folder=str(settings.folder / name), **chosen
        )
        for name, size in sizes.items()
    }


def cost(megabytes: int, window: float, rounds: int, folder: str) -> Answer:
    """Seconds that a save takes from training: how much slower steps are while one save follows
    another.

    Windows with and without saves take turns; a save takes (1 − steps a second with / steps a
    second without) · seconds with / saves.
    """
    from jaxdl.checkpoint.checkpoints import Checkpoints
    from jaxdl.checkpoint.store import Store

    step, state, batch = training(megabytes)
    taken, whole = [], []
    with Store(Checkpoints(folder, keep=1)) as store:

        def save() -> int:
            if store.busy:
                return 0
            store.save(0, 0, state, {})
            return 1

        for _ in range(rounds):
            state, without, _, _ = _trained(step, state, batch, window, lambda: 0)
            save()
            state, beside, saves, seconds = _trained(step, state, batch, window, save)
            store.wait()
            taken.append((1 - beside / without) * seconds / (saves + 1))
            whole.append(seconds / (saves + 1))
    shutil.rmtree(folder)
    return {
        "state_bytes": _size(state),
        "seconds taken from training by a save": {"median": median(taken), "all": taken},
        "seconds until whole": median(whole),
        "share of training, saving every minute": median(taken) / 60,
    }


def _trained(
    step: Callable[[Any, Any], Any],
    state: Any,
    batch: Any,
    window: float,
    save: Callable[[], int],
) -> tuple[Any, float, int, float]:
    """Trains for a window: the last state, steps a second, saves begun, seconds."""
    began, made, saves, seconds = time.perf_counter(), 0, 0, 0.0
    while seconds < window:
        saves += save()
        state, made = step(state, batch), made + 1
        seconds = time.perf_counter() - began
    return state, made / seconds, saves, seconds


def training(megabytes: int) -> tuple[Callable[[Any, Any], Any], Any, Any]:
    """A compiled step whose state, with Adam's, has so many megabytes, its state and a batch."""
    import jax
    import optax

    import jaxdl as dl

    layers = 8
    width = max(8, round((megabytes * 1e6 / 3 / 4 / layers) ** 0.5))
    model = dl.Sequential(
        *(part for _ in range(layers) for part in (dl.Dense(width), jax.nn.relu))
    )
    step = dl.Supervised(model, dl.losses.mean_squared_error, optax.adam(1e-3))
    inputs = np.ones((64, width), np.float32)
    batch = jax.device_put(dl.Batch(inputs, inputs))
    state = jax.jit(lambda key: step.init(key, batch))(jax.random.key(0))
    compiled = jax.jit(lambda state, batch: step(state, batch)[0])

    def waited(state: Any, batch: Any) -> Any:
        return jax.block_until_ready(compiled(state, batch))

    return waited, waited(state, batch), batch


def _size(state: Any) -> int:
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))
