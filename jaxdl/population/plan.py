"""How a population is cut into groups, and trained group by group, rung by rung."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.checkpoint.disk import write_atomically
from jaxdl.checkpoint.error import CheckpointError, reason
from jaxdl.compiling.jitted import jit_once
from jaxdl.core.keys import fold_in_name
from jaxdl.core.tree import Shapes, frozen_shapes, thawed_shapes
from jaxdl.data.source import ResidentMembers
from jaxdl.population.cohort import Cohort, Member
from jaxdl.population.members import Members, MembersLoop, MembersState, OverMembers
from jaxdl.population.recipe import SupervisedRecipe
from jaxdl.population.runs import Runs
from jaxdl.training import sources
from jaxdl.training.cursor import Cursor
from jaxdl.training.feed import Feed, ResidentFeed
from jaxdl.training.identity import run_identity
from jaxdl.training.interrupts import TERMINATED, termination_interrupts
from jaxdl.training.iteration import initial_state
from jaxdl.training.loop import Loop
from jaxdl.training.loop_options import LoopOptions
from jaxdl.training.loop_state import Ends, LoopState
from jaxdl.training.program import Program
from jaxdl.training.progress import progress as progress_bar
from jaxdl.training.run_training import ended_earlier
from jaxdl.training.saving import Saver
from jaxdl.training.state import distinct_arrays
from jaxdl.training.step import Updating
from jaxdl.training.step_form import StepForm, open_step
from jaxdl.training.train import first_state


@dataclasses.dataclass(frozen=True)
class Plan:
    """A population that is known to fit: how it is cut into groups, and trained."""

    recipe: SupervisedRecipe
    feed: Feed
    whole: Any
    share: float | None
    shuffle: bool
    loop: LoopOptions
    small: bool
    devices: tuple[Any, ...]
    at_a_time: int
    cut_for: int
    rungs: tuple[int, ...]
    monitor: tuple[str, str]

    def run(self, members: tuple[Member, ...]) -> Runs:
        if self.loop.checkpoint is not None:
            kept = _kept_cut(
                Path(self.loop.checkpoint.folder),
                {"at_a_time": self.at_a_time, "cut_for": self.cut_for},
            )
            return dataclasses.replace(self, **kept)._run(members)
        return self._run(members)

    def _run(self, members: tuple[Member, ...]) -> Runs:
        if len(members) == 1 and not members[0].hyperparameters:
            return self._result(members, [self._alone(members[0])])
        ended: list[Cohort] = []
        going = self._cut([Cohort.unborn(members)])
        for rung, until in enumerate((*self.rungs, self.loop.epochs)):
            going = self._trained(going, rung, until)
            if until == self.loop.epochs or any(cohort.interrupted for cohort in going):
                break
            going, dropped = self._halved(going, until)
            ended += dropped
        return self._result(members, ended + going)

    def _result(self, members: tuple[Member, ...], cohorts: list[Cohort]) -> Runs:
        if self.loop.checkpoint is not None and not any(
            cohort.made or cohort.interrupted for cohort in cohorts
        ):
            ended_earlier(self.loop.checkpoint, "finished")
        return Runs(
            members, tuple(cohorts), self.recipe, self.monitor, self.loop.early_stopping
        )

    def _alone(self, member: Member) -> Cohort:
        """A population of one is an ordinary run, in the program that `fit` has for it."""
        step = self.recipe.single
        start = first_state(step, self.feed.example, sources.as_key(member.seed))
        here, program = self._begun(step, self.feed, start)
        with contextlib.ExitStack() as stack:
            saver, here = self._saver(
                stack, (member,), 0, step, self.feed, self.loop.validation, here
            )
            options = self._options(self.loop.epochs, self.loop.validation, self.loop.progress)
            loop = Loop(step, self.feed, here, options, saver, program)
            shown = stack.enter_context(
                progress_bar(self.loop.progress, self.loop.epochs, self.feed.steps)
            )
            before = here.steps
            why = loop.run(shown)
        return Cohort.of_one(member, loop, why, loop.here.steps - before)

    def _begun(self, step: Updating, feed: Feed, start: Any) -> tuple[LoopState, Program]:
        """Where a group is before the first step, and its program; the state is donated to it."""
        start = distinct_arrays(start)
        program = Program(self.loop.execution, step, start)
        return initial_state(program, feed, start), program

    def _options(self, until: int, held: Feed | None, show: bool) -> LoopOptions:
        return dataclasses.replace(
            self.loop,
            epochs=until,
            steps=self.loop.steps if until == self.loop.epochs else None,
            validation=held,
            progress=show,
            checkpoint=None,
        )

    def _saver(
        self,
        stack: contextlib.ExitStack,
        members: tuple[Member, ...],
        rung: int,
        step: Any,
        feed: Feed,
        held: Feed | None,
        here: LoopState,
    ) -> tuple[Saver | None, LoopState]:
        """The checkpoints of a group, and where it goes on."""
        if self.loop.checkpoint is None:
            return None, here
        folder = Path(self.loop.checkpoint.folder) / f"rung-{rung}-member-{members[0].number}"
        told = {
            "members": [{"seed": member.seed, **member.hyperparameters} for member in members]
        }
        identity = run_identity(step, feed, here.state, held, self.loop.early_stopping, told)
        checkpoint = dataclasses.replace(self.loop.checkpoint, folder=folder)
        saver = Saver(checkpoint, step, feed, here, identity)
        stack.callback(saver.close)
        return saver, saver.resume() or here

    def _cut(self, cohorts: list[Cohort]) -> list[Cohort]:
        """All members anew in groups of nearly one size, as many groups as memory and devices ask
        for.
        """
        whole = Cohort.joined(cohorts)
        count = len(whole)
        groups = max(-(-count // self.at_a_time), min(self.cut_for, count))
        groups = -(-groups // self.cut_for) * self.cut_for if groups > 1 else groups
        size = -(-count // groups)
        parts = [np.arange(first, min(first + size, count)) for first in range(0, count, size)]
        return [whole] if len(parts) == 1 else [whole.of(part) for part in parts]

    def _trained(self, cohorts: list[Cohort], rung: int, until: int) -> list[Cohort]:
        """Group after group on each device; the devices at once."""
        stop = threading.Event()
        loops = []

        def work(device: Any, queue: list[Cohort], show: bool) -> list[Cohort]:
            done = []
            for cohort in queue:
                done.append(self._train(cohort, rung, until, device, show, stop, loops))
                if done[-1].interrupted:
                    stop.set()
            return done

        if len(self.devices) == 1 or len(cohorts) == 1:
            return work(self.devices[0], cohorts, self.loop.progress)
        queues = [cohorts[k :: len(self.devices)] for k in range(len(self.devices))]
        queues = [queue for queue in queues if queue]
        devices = self.devices[: len(queues)]
        told = threading.Event()
        with (
            termination_interrupts(self.loop.checkpoint is not None, told),
            concurrent.futures.ThreadPoolExecutor(
                len(queues), thread_name_prefix="jaxdl-device"
            ) as pool,
        ):
            shown = [self.loop.progress and k == 0 for k in range(len(queues))]
            futures = [
                pool.submit(work, *task) for task in zip(devices, queues, shown, strict=True)
            ]
            try:
                concurrent.futures.wait(futures)
            except KeyboardInterrupt:
                stop.set()
                for loop in loops:
                    loop.interrupted.set()
            done = [future.result() for future in futures]
        if told.is_set():
            raise SystemExit(TERMINATED)
        return [
            cohort
            for column in itertools.zip_longest(*done)
            for cohort in column
            if cohort is not None
        ]

    def _train(
        self,
        cohort: Cohort,
        rung: int,
        until: int,
        device: Any,
        show: bool,
        stop: threading.Event,
        loops: list[MembersLoop],
    ) -> Cohort:
        with jax.default_device(device), contextlib.ExitStack() as stack:
            keys = [sources.as_key(member.seed) for member in cohort.members]
            step, feed, held = self._data(keys, device)
            state = cohort.state
            began = time.perf_counter()
            if state is None:
                form, numbers = open_step(step)
                example = frozen_shapes(feed.example)
                values = cohort.hyperparameters()
                state = _started(form, example, numbers, jnp.stack(keys), values)
            state = state if device is None else jax.device_put(state, device)
            prepared = time.perf_counter() - began
            here, program = self._begun(step, feed, state)
            here.history = cohort.history
            here.best = cohort.best
            here.cursor = Cursor(cohort.epoch, 0)
            here.steps = cohort.epoch * (feed.steps or 0)
            here.ends = Ends(list(cohort.stopped), cohort.epochs.copy())
            saver, here = self._saver(stack, cohort.members, rung, step, feed, held, here)
            options = self._options(until, held, show)
            loop = MembersLoop(step, feed, here, options, saver, program)
            loop.compile_seconds = prepared
            loops.append(loop)
            if stop.is_set():
                return cohort.after(loop, cohort.epoch, "interrupted")
            shown = stack.enter_context(progress_bar(show, until, feed.steps))
            before = here.steps
            why = loop.run(shown)
        return cohort.after(loop, until, why, loop.here.steps - before)

    def _data(self, keys: list[Array], device: Any) -> tuple[Members, Feed, Feed | None]:
        """The step of so many members and their data; each shuffles by its own key, and sets its
        own share aside.
        """
        feed = self.feed
        held = self.loop.validation
        rows = None
        held_rows = None
        over = OverMembers(len(keys), -1 if self.small else 0)
        if self.share is not None:
            rows, held_rows = zip(*(self._split(key) for key in keys), strict=True)
        if isinstance(feed, ResidentFeed) and (self.shuffle or rows is not None):
            feed = self._resident(feed, keys, rows, self.shuffle, over.axis, device)
        if isinstance(held, ResidentFeed) and held_rows is not None:
            held = self._resident(held, keys, held_rows, False, over.axis, device)
        shared = not (
            isinstance(feed, ResidentFeed) and isinstance(feed.source, ResidentMembers)
        )
        return Members(self.recipe, over, shared, held_rows is None), feed, held

    def _resident(
        self,
        feed: ResidentFeed,
        keys: Any,
        rows: Any,
        shuffle: bool,
        axis: int,
        device: Any,
    ) -> ResidentFeed:
        source = feed.source
        data = (
            (source.inputs, source.targets, source.weights)
            if rows is None
            else tuple(self.whole[:3])
        )
        inputs, targets, weights = jax.device_put(data, device)
        orders = _order_keys(jnp.stack(keys))
        own = (
            None
            if rows is None
            else jax.device_put(np.stack(rows, -1).astype(np.int32), device)
        )
        cut = (source.size, source.batch_size, shuffle, axis, source.drop_last)
        return ResidentFeed(ResidentMembers(inputs, targets, weights, orders, own, *cut))

    def _split(self, key: Array) -> tuple[np.ndarray, np.ndarray]:
        assert self.share is not None
        return sources.split_rows(self.share, self.whole.size, key)

    def _halved(self, cohorts: list[Cohort], epoch: int) -> tuple[list[Cohort], list[Cohort]]:
        """The better half of all members, and the others."""
        name, mode = self.monitor
        whole = Cohort.joined(cohorts)
        values = whole.last(name)
        order = np.argsort(
            np.where(np.isnan(values), np.inf, -values if mode == "max" else values),
            kind="stable",
        )
        keep = math.ceil(len(whole) / 2)
        reason = f"dropped after epoch {epoch}: {name} among the worse half"
        dropped = whole.of(np.sort(order[keep:])).ended(reason)
        return self._cut([whole.of(np.sort(order[:keep]))]), [dropped]


@jax.jit
def _order_keys(keys: Array) -> Array:
    return jax.vmap(lambda key: fold_in_name(key, "order"))(keys)


@functools.partial(jit_once, static_argnums=(0, 1))
def _started(
    step: StepForm,
    example: Shapes,
    numbers: Any,
    keys: Array,
    hyperparameters: dict[str, Array],
) -> MembersState:
    members: Any = step.step(numbers)
    return members.start(keys, hyperparameters, thawed_shapes(example))


def _kept_cut(folder: Path, cut: dict[str, int]) -> dict[str, int]:
    """How the population in this folder was cut into groups when it began, which it stays; else as
    said, which is noted.
    """
    path = folder / "population.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_atomically(path, lambda part: part.write_text(json.dumps(cut)))
            return cut
        kept = json.loads(path.read_text())
        return {name: int(kept[name]) for name in cut}
    except OSError as error:
        raise CheckpointError(
            f"checkpoint: cannot write into {folder} ({reason(error)}) — make it writable or give "
            f"another folder."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"checkpoint: {path} is damaged, and says no more how the population was cut into "
            f"groups — move {folder} away to "
            "start anew."
        ) from error
