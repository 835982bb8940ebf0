"""`profile`: what the device did, moment by moment, for Perfetto or TensorBoard."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxdl.training.checks import check_count


@dataclasses.dataclass(frozen=True)
class Profile:
    """Where a profile lies; `print` says how to open it.

    Args:
        folder: for TensorBoard.
        perfetto: the file for Perfetto; None where JAX wrote none.
        files: all that were written.
        result: what the function gave, the last time.
    """

    folder: Path
    perfetto: Path | None
    files: tuple[Path, ...]
    result: Any = dataclasses.field(repr=False)

    def __str__(self) -> str:
        perfetto = (
            ""
            if self.perfetto is None
            else f"Perfetto: open https://ui.perfetto.dev, and there the file {self.perfetto}\n"
        )
        return (
            f"{perfetto}TensorBoard: pip install tensorboard xprof; tensorboard --logdir "
            f"{self.folder}"
        )


def profile(
    function: Callable[..., Any],
    *args: Any,
    folder: str | Path = "runs/profile",
    calls: int = 1,
    warm_up: bool = True,
) -> Profile:
    """Runs a function and writes what the host and the device did meanwhile.

    For a training run, give a function without arguments: `profile(lambda: dl.fit(…, loss=mine,
    epochs=2))`, with a loss that was made before, so that the program that warming up compiled is
    the one that is watched.

    Args:
        function: what to run.
        args: what to call it with.
        folder: where the files go, in a folder of their own that is named by the time.
        calls: how many to watch, one after another.
        warm_up: whether to call it once before, so that compiling is not what is seen.

    Returns:
        Where the files lie, and how to open them.
    """
    calls = check_count("calls", calls)
    folder = Path(folder)
    if warm_up:
        jax.block_until_ready(_arrays(function(*args)))
    before = set(_files(folder))
    result = None
    with jax.profiler.trace(str(folder), create_perfetto_trace=True):
        for call in range(calls):
            with jax.profiler.StepTraceAnnotation("call", step_num=call):
                result = function(*args)
                jax.block_until_ready(_arrays(result))
    written = tuple(sorted(set(_files(folder)) - before))
    perfetto = next((path for path in written if path.name.startswith("perfetto_trace")), None)
    return Profile(folder, perfetto, written, result)


def _arrays(result: Any) -> list[Any]:
    """What there is to wait for: a run of `fit` is no tree, and has been waited for."""
    return [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
