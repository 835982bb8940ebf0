"""How a run saves itself, and goes on as if it had not stopped."""

import contextlib
import dataclasses
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.checkpoint import leaves as trees
from jaxdl.checkpoint.checkpoints import Checkpoints
from jaxdl.checkpoint.differences import differences
from jaxdl.checkpoint.error import CheckpointError
from jaxdl.checkpoint.leaves import Leaf
from jaxdl.checkpoint.store import Store
from jaxdl.checkpoint.structure import Structure, taken_apart
from jaxdl.training.cursor import Cursor, EpochCarry
from jaxdl.training.feed import Feed
from jaxdl.training.history import Best
from jaxdl.training.identity import Identity, with_hyperparameters_of
from jaxdl.training.interrupts import TERMINATED, handle_by, handled, handlers_of
from jaxdl.training.loop_state import Ends, LoopState, MetricAccumulator
from jaxdl.training.outcome import outcome
from jaxdl.training.step import Updating
from jaxdl.training.sums import Layout, scalar

SECONDS_TO_SAVE = 30.0
"""How long a run that is told to end may take to save itself."""


ALIKE = frozenset(
    {
        "seed",
        "every",
        "hyperparameters",
        "data",
        "optimizer",
        "accumulate",
        "augment",
        "class_weights",
        "if_not_finite",
    }
)
"""What may change while the figures of epochs before and after can still be compared, so that the
best stays the best.
"""


class Saver:
    """The checkpoints of a run, as its loop uses them.

    A checkpoint holds a whole `LoopState`: a run that goes on from it makes the same steps, to the
    bit.

    Args:
        checkpoints: where, and how often.
        step: what is done with each batch.
        feed: the data.
        fresh: the position of a run that begins.
        identity: what tells this run from others, by name.

    Raises:
        CheckpointError: the folder cannot be used, or holds another run.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        step: Updating,
        feed: Feed,
        fresh: LoopState,
        identity: Identity,
    ) -> None:
        self.step = step
        self.feed = feed
        self.fresh = fresh
        self.identity = identity
        self.store = Store(checkpoints)
        self.stopped = ""
        self._lock = threading.Lock()
        self._saved: tuple[int, str] | None = None

    @property
    def each_epoch(self) -> bool:
        """Whether the end of each epoch matters."""
        return (
            self.store.checkpoints.best is not None
            or self.store.checkpoints.interval.unit == "epochs"
        )

    def resume(self) -> LoopState | None:
        """Where an earlier run was, or None; `stopped` then says whether it had come to an end of
        its own.

        Raises:
            CheckpointError: that run had other settings, and is not to be gone on from; or it
                cannot be.
        """
        try:
            restored = self.store.restore(self._like)
        except _BeginsAnew:
            self.store.restart()
            restored = None
        if restored is None:
            self.store.started(0, 0)
            return None
        told = restored.description
        tree = restored.tree
        self.store.started(told["steps"], told["cursor"][0])
        best = None if told["best"] is None else Best(*told["best"], *tree["best"])
        ends = None if told["ends"] is None else Ends(*told["ends"])
        here = LoopState(
            tree["state"],
            EpochCarry(tree["sums"]),
            Cursor(*told["cursor"]),
            history=told["history"],
            best=best,
        )
        here = dataclasses.replace(here, steps=told["steps"], stream=told["stream"], ends=ends)
        if changed := self._changed(told["run"]):
            if told.get("ended") and not here.cursor.step:  # an epoch that the history lacks
                here.cursor = Cursor(here.cursor.epoch - 1, 0)
            return self._with_changes(here, changed)
        here.metrics = MetricAccumulator(
            gathered=[tree["gathered"]] if told["metrics"]["steps"] else [],
            banked=tree.get("banked"),
            **told["metrics"],
        )
        if told.get("ended"):
            here.ended = True
            here.metrics.take(self._layout().totals(here.carry.sums))
            observed = jax.device_get(self.step.observe(here.state))
            here.metrics.observed = {name: scalar(value) for name, value in observed.items()}
        self.stopped = told["stopped"]
        self.feed.restore(here.stream)
        self._saved = (here.steps, self.stopped)
        return here

    def offer(self, here: LoopState) -> None:
        """Saves, where it is time."""
        figure = None
        name = self.store.checkpoints.best
        ended = here.metrics.steps == 0
        if name is not None and ended and here.history.get(name):
            figure = float(here.history[name][-1])
        with self._lock:
            due = self.store.due(here.steps, here.cursor.epoch, figure)
        if due:
            self.save(here, "", figure)

    def save(
        self,
        here: LoopState,
        stopped: str,
        figure: float | None = None,
        wait: float | None = None,
    ) -> None:
        """Begins to save, and waits for so many seconds; `stopped` says why the run ended, "" while
        it goes on.
        """
        with self._lock:
            if self._saved == (here.steps, stopped):
                return
            gathered = here.metrics.joined() if here.metrics.steps else self._nothing_gathered()
            best = here.best
            tree = {"state": here.state, "sums": here.carry.sums, "gathered": gathered}
            if here.metrics.banked is not None:
                tree["banked"] = here.metrics.banked
            if best is not None:
                tree["best"] = (best.params, best.state)
            description = {
                "run": self.identity,
                "cursor": list(here.cursor),
                "steps": here.steps,
                "history": here.history,
                "best": None if best is None else [best.epoch, best.value],
                "metrics": {"seconds": here.metrics.seconds, "steps": here.metrics.steps},
                "banked": here.metrics.banked is not None,
                "stream": here.stream,
                "stopped": stopped,
                "ended": here.ended,
                "ends": here.ends and [here.ends.stopped, here.ends.epochs],
                "structure": _structure(here.state),
            }
            self.store.save(here.steps, here.cursor.epoch, tree, description, figure)
            self._saved = (here.steps, stopped)
            if wait is not None:
                self.store.wait(wait)

    def most(self, steps: int) -> int:
        """The most steps before a save is due."""
        return self.store.steps_until_due(steps) or 2**30

    def close(self) -> None:
        with self._lock:
            self.store.close()

    def _changed(self, run: Identity) -> set[str]:
        """The names of what was different in the run that was saved."""
        return {
            name
            for name in run.keys() | self.identity.keys()
            if run.get(name) != self.identity.get(name)
        }

    def _like(self, description: Any, leaves: Mapping[str, Leaf]) -> Any:
        """The tree to read a checkpoint into."""
        state = self.fresh.state
        sums = self.fresh.carry.sums
        gathered = self._nothing_gathered()
        if self._changed(description["run"]):
            self._check_change(description["run"])
            state = _read_as_saved(state, leaves)
            sums, gathered = (_nested(_below(leaves, name)) for name in ("sums", "gathered"))
        like = {"state": state, "sums": sums, "gathered": jax.tree.map(lambda _: ..., gathered)}
        if description.get("banked"):
            like["banked"] = _nested(_below(leaves, "banked"))
        if description["best"] is not None:
            like["best"] = self.step.result(self.fresh.state)
        return like

    def _check_change(self, run: Identity) -> None:
        """Refuses a run of other settings, unless it is asked for what is to be done with it."""
        if self.store.checkpoints.on_change == "restart":
            raise _BeginsAnew
        if self.store.checkpoints.on_change == "continue":
            return
        pairs = {
            name: (run.get(name, "none"), self.identity.get(name, "none"))
            for name in (*self.identity, *run)
        }
        lines = [line for name, pair in pairs.items() for line in differences(*pair, name)]
        raise CheckpointError(
            f"checkpoint: {self.store.folder} holds a run of other settings — give this one a "
            f"folder of its own; or "
            "Checkpoints(..., on_change='continue') to go on from there with the new ones, or "
            "on_change='restart' to begin "
            "anew and keep what is there. What was, and what is:" + trees.listed(lines)
        )

    def _with_changes(self, here: LoopState, changed: set[str]) -> LoopState:
        """The position of a run that goes on with other settings: an epoch that had begun begins
        anew.
        """
        fresh = self.fresh
        if "data" in changed:
            here.stream = None
        self.feed.restore(here.stream)
        here.state = _with_settings(here.state, fresh.state, changed, self.step)
        here.best = here.best if changed <= ALIKE else None
        here.carry = fresh.carry
        here.cursor = Cursor(here.cursor.epoch, 0)
        return here

    def _layout(self) -> Layout:
        """How the sums of an epoch lie beside one another."""
        return Layout(
            outcome(self.step, self.feed.first.source, self.fresh.state).measured.sums
        )

    def _nothing_gathered(self) -> Any:
        rows = outcome(self.step, self.feed.first.source, self.fresh.state).measured.gathered
        return jax.tree.map(lambda row: np.zeros((0, *row.shape[1:]), row.dtype), rows)


def _structure(state: Any) -> Structure:
    """How a state is put together, for whoever reads it without the step; None where it has what no
    file can describe.
    """
    try:
        return taken_apart(state)[0]
    except TypeError:
        return None


class _BeginsAnew(Exception):
    """Says that the checkpoints which are there are not to be gone on from."""


OPTIONAL = ("average", "guard")
"""The fields of a `TrainState` that a run which goes on can begin to have, or leave."""


def _read_as_saved(state: Any, leaves: Mapping[str, Leaf], path: str = "state") -> Any:
    """The first state of a run; its optional parts as they were saved, where that was otherwise."""
    if hasattr(state, "members"):
        return state._replace(members=_read_as_saved(state.members, leaves, f"{path}.members"))
    saved = {name: _below(leaves, f"{path}.{name}") for name in OPTIONAL}
    other = {
        name: part
        for name, part in saved.items()
        if trees.differences(trees.leaves_by_path(getattr(state, name)), part)
    }
    return state._replace(**{name: _nested(part) for name, part in other.items()})


def _with_settings(state: Any, start: Any, changed: set[str], step: Any) -> Any:
    """A state that was saved, with what the settings of another run say, whose first state is
    `start`.
    """
    if hasattr(state, "members"):
        members = _with_settings(state.members, start.members, changed, step)
        return state._replace(members=members, hyperparameters=start.hyperparameters)
    if "seed" in changed:
        state = state._replace(key=start.key)
    if "hyperparameters" in changed:
        state = state._replace(
            optimizer_state=with_hyperparameters_of(
                start.optimizer_state, state.optimizer_state
            )
        )
    if jax.tree.structure(state.average) != jax.tree.structure(start.average):
        state = state._replace(
            average=None if start.average is None else jax.tree.map(jnp.copy, state.params)
        )
    state = state._replace(guard=None)
    return state if start.guard is None else step.begin(state)


def _below(leaves: Mapping[str, Leaf], path: str) -> dict[str, Leaf]:
    """What was saved below a path, by the rest of its own."""
    return {
        name.removeprefix(f"{path}."): leaf
        for name, leaf in leaves.items()
        if name.startswith(f"{path}.")
    }


def _nested(leaves: Mapping[str, Leaf]) -> Any:
    """A tree with `...` at each of those paths; None where there are none."""
    tree: dict[str, Any] = {}
    for path in leaves:
        trees.put(tree, trees.split(path), ...)
    return tree or None


@contextlib.contextmanager
def ending_well(
    saver: Saver | None,
    stable: Callable[[], LoopState],
    interrupted: threading.Event,
) -> Iterator[None]:
    """SIGTERM and Ctrl-C save the run and let it end at the next step; a second one ends it at
    once.

    A thread saves the last whole position as soon as the signal comes, be it while a program
    compiles; while one runs, which has the state, the loop saves it as soon as it returns. The loop
    looks at `interrupted` between chunks. After SIGTERM the process exits, with
    status 143.

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
        handle_by(handlers)

    def watch() -> None:
        # The number of the signal; a zero says that the run is over.
        if reader.recv(1) != b"\0":
            interrupted.set()
            # While a program has the state, the loop saves it when that returns.
            with contextlib.suppress(RuntimeError):
                saver.save(stable(), "interrupted", wait=SECONDS_TO_SAVE)

    handlers = handlers_of(signal.SIGINT, signal.SIGTERM)
    watcher = threading.Thread(target=watch, name="jaxdl-signals", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        with handled(handle, signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        signal.set_wakeup_fd(before)
        writer.setblocking(True)
        writer.send(b"\0")
        watcher.join()
        reader.close()
        writer.close()
    if signal.SIGTERM in told:
        raise SystemExit(TERMINATED)
