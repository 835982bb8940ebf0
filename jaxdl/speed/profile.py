"""`profile`: a trace of what the host and the device did, for Perfetto or TensorBoard."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.training.checks import check_count


@dataclasses.dataclass(frozen=True)
class Profile:
    """The files of a profile; `print` shows how to open it.

    Args:
        folder: for TensorBoard.
        perfetto: the file for Perfetto; None where JAX wrote none.
        files: all that were written.
        result: what the function returned, the last time.
    """

    folder: Path
    perfetto: Path | None
    files: tuple[Path, ...]
    result: object = dataclasses.field(repr=False)

    def __str__(self) -> str:
        command = (
            f"TensorBoard: pip install tensorboard xprof; tensorboard --logdir {self.folder}"
        )
        if self.perfetto is None:
            return command
        perfetto = f"Perfetto: open https://ui.perfetto.dev, and there the file {self.perfetto}"
        return f"{perfetto}\n{command}"


def profile(
    function: Callable[..., object],
    *args: object,
    folder: str | Path = "runs/profile",
    calls: int = 1,
    warm_up: bool = True,
) -> Profile:
    """Runs a function, and writes a trace of what the host and the device did meanwhile.

    For a training run, give a function without arguments: `profile(lambda: dl.fit(…, loss=mine,
    epochs=2))`, with a loss that was defined before, so that the traced call runs the program that
    was compiled while warming up.

    Args:
        function: what to run.
        args: its arguments.
        folder: the files are written into a new folder below it, whose name is the time.
        calls: how many calls to trace, one after another.
        warm_up: whether to call it once before, so that compiling is not traced.

    Returns:
        The files, and how to open them.

    Raises:
        ValueError: `calls` is below 1.
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


def _arrays(result: PyTree) -> list[Array]:
    """The arrays to wait for; a run of `fit` is no pytree, and has been waited for."""
    return [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
