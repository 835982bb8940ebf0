"""Runs that are ended at random moments and started again; a part of `benchmarks.faults`.

A run trains, evaluates after every epoch, and saves itself every seventh step. Its process is ended
by a signal, again and again, until the run has come to its end; the digest of what it gives back
must then be that of a run which nobody disturbed. Every other signal comes while the process
prepares and compiles, the others while it trains, evaluates and saves.
"""

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.saving import Settings

EPOCHS = 120
COMPILING = 1.5  # about how many seconds go by until the first epoch of a process
TRAINING = (
    1.0  # the most seconds of a process, after its first epoch, until it is sent a signal
)


def killed(settings: Settings) -> dict[str, Any]:
    """By SIGKILL, as `kill -9` does."""
    return interrupted(settings, signal.SIGKILL)


def terminated(settings: Settings) -> dict[str, Any]:
    """By SIGTERM, while compiling, training, evaluating and saving."""
    return interrupted(settings, signal.SIGTERM)


def interrupted(settings: Settings, number: signal.Signals) -> dict[str, Any]:
    """Counts of what became of the runs; `other digest` and `not whole` are what must not be."""
    folder, moments = settings.folder / number.name, random.Random(int(number))
    undisturbed = finished(folder / "undisturbed")
    counts = dict.fromkeys(
        ("signals", "before the first epoch", "runs", "same digest", "other digest"), 0
    )
    counts |= {"a whole checkpoint after it": 0, "not whole": 0}
    while counts["signals"] < settings.kills:
        run = folder / f"run-{counts['runs']}"
        digest = None
        while digest is None:
            more, training = counts["signals"] < settings.kills, counts["signals"] % 2 == 1
            after = moments.uniform(0, TRAINING if training else COMPILING)
            digest, epochs = attempt(run, number, after if more else None, training)
            if digest is None:
                counts["signals"] += 1
                counts["before the first epoch"] += not epochs
                counts["a whole checkpoint after it" if whole(run) else "not whole"] += 1
        counts["runs"] += 1
        counts["same digest" if digest == undisturbed else "other digest"] += 1
        shutil.rmtree(run)
    return counts


def finished(folder: Path) -> str:
    digest, _ = attempt(folder, signal.SIGKILL, None)
    assert digest is not None
    return digest


def attempt(
    folder: Path, number: signal.Signals, after: float | None, training: bool = False
) -> tuple[str | None, int]:
    """Starts the run, and sends it a signal so long after it begins, or has trained for an epoch.

    Returns:
        The digest of the run, or None where it did not come to its end; and how many epochs ended
        in this process.
    """
    command = [sys.executable, "-m", "benchmarks.interruptions", str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        began = process.stdout.readline()
        assert began, "the run did not begin"
        epoch = process.stdout.readline() if training else ""
        if after is not None:
            time.sleep(after)
            process.send_signal(number)
        out, _ = process.communicate(timeout=300)
    said = epoch + out
    return (said.split()[-1] if process.returncode == 0 else None), said.count("epoch")


def environment() -> dict[str, str]:
    import os

    folder = Path(".jax_cache").resolve()
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return os.environ | machine.environment() | cache


def whole(folder: Path) -> bool:
    """Whether the newest checkpoint, where there is one, is whole."""
    from jaxdl.checkpoint.checkpoints import Checkpoints
    from jaxdl.checkpoint.error import UnreadableError
    from jaxdl.checkpoint.folder import read_checkpoint
    from jaxdl.checkpoint.store import Store

    with Store(Checkpoints(folder)) as store:
        for path in store.paths[:1]:
            try:
                read_checkpoint(path)
            except UnreadableError:
                return False
    return True


def train(folder: str) -> str:
    """The run; its digest."""
    import jax
    import optax

    import jaxdl as dl
    from jaxdl import losses, metrics

    draws = np.random.default_rng(0)
    x = draws.normal(size=(500, 16)).astype(np.float32)
    model = dl.Sequential(
        dl.Dense(64), dl.BatchNorm(), jax.nn.relu, dl.Dropout(0.3), dl.Dense(2)
    )
    print("begins", flush=True)
    run = dl.fit(
        model,
        (x, (x.sum(1) > 0).astype(np.int32)),
        loss=losses.softmax_cross_entropy,
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-3, 13 * EPOCHS)),
        epochs=EPOCHS,
        batch_size=32,
        metrics={"accuracy": metrics.accuracy, "auc": metrics.ROCAUC()},
        validation=0.2,
        average=0.99,
        early_stopping=dl.EarlyStopping(patience=EPOCHS),
        progress=False,
        callbacks=[lambda end: print("epoch", end.epoch, flush=True)],
        checkpoint=dl.Checkpoints(folder, every="7 steps"),
    )
    return digest_of(run)


def digest_of(run: Any) -> str:
    """Over parameters, statistics, average, best, the whole training state, and the history but for
    its seconds.
    """
    import jax

    state = run.train_state._replace(key=jax.random.key_data(run.train_state.key))
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((run.params, run.state, run.average, run.best, state)):
        digest.update(np.asarray(leaf).tobytes())
    for name, values in run.history.items():
        if name != "seconds":
            digest.update(repr((name, values)).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    print(train(sys.argv[1]), flush=True)
