"""How a run saves itself, and goes on as if it had not stopped."""

import contextlib
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.checkpoint.error import CheckpointError
from jaxdl.checkpoint.store import Store
from jaxdl.train.feed import Feed
from jaxdl.train.position import Ends, Position, Tally
from jaxdl.train.program import Begun, Place, outcome
from jaxdl.train.run import Best
from jaxdl.train.step import Updating

SECONDS_TO_SAVE = 30.0
"""How long a run that is told to end may take to save itself."""


class Saver:
    """The checkpoints of a run, as its loop uses them.

    A checkpoint holds a whole `Position`: a run that goes on from it makes the same steps, to the bit.

    Args:
        checkpoints: where, and how often.
        step: what is done with each batch.
        feed: the data.
        fresh: the position of a run that begins.
        identity: what else tells this run from others, by name.

    Raises:
        CheckpointError: the folder cannot be used, or holds another run.
        ValueError: the data cannot say where they are.
    """

    def __init__(
        self, checkpoints: Checkpoints, step: Updating, feed: Feed, fresh: Position, identity: Mapping[str, Any] | None = None
    ) -> None:
        self.step, self.feed, self.fresh = step, feed, fresh
        self.identity = {"model": _stable(getattr(step, "model", step)), **feed.identity(), **(identity or {})}
        self.store = Store(checkpoints)
        self.stopped = ""
        self._lock = threading.Lock()
        self._saved: tuple[int, str] | None = None

    @property
    def each_epoch(self) -> bool:
        """Whether the end of each epoch matters."""
        return self.store.checkpoints.best is not None or self.store.checkpoints.interval.unit == "epochs"

    def resume(self) -> Position | None:
        """Where an earlier run was, or None; `stopped` then says whether it had come to an end of its own."""
        restored = self.store.restore(self._like)
        if restored is None:
            self.store.started(0, 0)
            return None
        told, tree = restored.description, restored.tree
        best = None if told["best"] is None else Best(*told["best"], *tree["best"])
        tally = Tally(gathered=[tree["gathered"]] if told["tally"]["steps"] else [], **told["tally"])
        self.stopped = told["stopped"]
        self.feed.restore(told["stream"])
        self.store.started(told["steps"], told["place"][0])
        self._saved = (told["steps"], told["stopped"])
        ends = None if told["ends"] is None else Ends(*told["ends"])
        place, history = Place(*told["place"]), told["history"]
        return Position(tree["state"], Begun(tree["sums"]), place, tally, history, best, told["steps"], told["stream"], ends)

    def offer(self, here: Position) -> None:
        """Saves, where it is time."""
        figure = None
        name, ended = self.store.checkpoints.best, here.tally.steps == 0
        if name is not None and ended and here.history.get(name):
            figure = float(here.history[name][-1])
        with self._lock:
            due = self.store.due(here.steps, here.place.epoch, figure)
        if due:
            self.save(here, "", figure)

    def save(self, here: Position, stopped: str, figure: float | None = None, wait: float | None = None) -> None:
        """Begins to save, and waits for so many seconds; `stopped` says why the run ended, "" while it goes on."""
        with self._lock:
            if self._saved == (here.steps, stopped):
                return
            gathered = here.tally.joined() if here.tally.steps else self._nothing_gathered()
            best = here.best
            tree = {"state": here.state, "sums": here.begun.sums, "gathered": gathered}
            if best is not None:
                tree["best"] = (best.params, best.state)
            description = {
                "run": self.identity,
                "place": list(here.place),
                "steps": here.steps,
                "history": here.history,
                "best": None if best is None else [best.epoch, best.value],
                "tally": {"seconds": here.tally.seconds, "steps": here.tally.steps},
                "stream": here.stream,
                "stopped": stopped,
                "ends": here.ends and [here.ends.stopped, here.ends.epochs, here.ends.earlier],
            }
            self.store.save(here.steps, here.place.epoch, tree, description, figure)
            self._saved = (here.steps, stopped)
            if wait is not None:
                self.store.wait(wait)

    def most(self, steps: int) -> int:
        """The most steps before a save is due."""
        return self.store.steps_until_due(steps) or 2**30

    def close(self) -> None:
        with self._lock:
            self.store.close()

    def _like(self, description: Any) -> Any:
        for name, value in self.identity.items():
            if description["run"].get(name) != value:
                raise CheckpointError(
                    f"checkpoint: {self.store.folder} holds a run whose {name} is {description['run'].get(name)}, and this one "
                    f"has {value} — give this one a folder of its own, or that run's {name}."
                )
        fresh = self.fresh
        like = {"state": fresh.state, "sums": fresh.begun.sums}
        like["gathered"] = jax.tree.map(lambda _: ..., self._nothing_gathered())
        if description["best"] is not None:
            like["best"] = self.step.result(fresh.state)
        return like

    def _nothing_gathered(self) -> Any:
        rows = outcome(self.step, self.feed.first.source, self.fresh.state).measured.gathered
        return jax.tree.map(lambda row: np.zeros((0, *row.shape[1:]), row.dtype), rows)


def _stable(value: Any) -> str:
    """How a value prints, without the addresses of functions, which differ from process to process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


@contextlib.contextmanager
def ending_well(saver: Saver | None, stable: Callable[[], Position], interrupted: threading.Event) -> Iterator[None]:
    """SIGTERM and Ctrl-C save the run and let it end at the next step; a second one ends it at once.

    A thread saves the last whole position as soon as the signal comes, be it while a program compiles; the loop looks at
    `interrupted` between pieces. After SIGTERM the process exits, with status 143.

    Args:
        saver: None leaves signals as they are.
        stable: the last position that is whole.
        interrupted: is set.
    """
    if saver is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    told: list[int] = []

    def handle(number: int, frame: Any) -> None:
        del frame
        told.append(number)
        interrupted.set()
        for each, before in handlers.items():
            signal.signal(each, before)

    def watch() -> None:
        if reader.recv(1) != b"\0":  # the number of the signal; a zero says that the run is over
            interrupted.set()
            saver.save(stable(), "interrupted", wait=SECONDS_TO_SAVE)

    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    watcher = threading.Thread(target=watch, name="jaxdl-signals", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        for each in handlers:
            signal.signal(each, handle)
        yield
    finally:
        signal.set_wakeup_fd(before)
        for each, handler in handlers.items():
            signal.signal(each, handler)
        writer.setblocking(True)
        writer.send(b"\0")
        watcher.join()
        reader.close()
        writer.close()
    if signal.SIGTERM in told:
        raise SystemExit(128 + signal.SIGTERM)
