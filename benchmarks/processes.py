"""A process of its own for everything that is timed, which works only while it is asked to.

The frameworks' thread pools would fight for the cores in one process, and memory is counted by the
process. The two
sides speak JSON, one line a message: the driver writes `{"command": "round"}`, the worker answers
with a dict.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import machine

Answer = dict[str, Any]
ROOT = Path(__file__).parent.parent


class Worker:
    """The driver's end: starts `python -m module arguments` and asks it, one question at a time.

    The process imports what it needs as soon as it is made, beside others that were; entered, it
    has. What the process writes to its error stream, and anything a framework prints, goes to the
    file `log`.
    """

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        log: Path,
        environment: dict[str, str] | None = None,
    ):
        self.name, self.log = name, log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **machine.environment(), **(environment or {})},
            )

    def ask(self, command: str, **arguments: Any) -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            tail = "\n".join(self.log.read_text().splitlines()[-8:])
            raise RuntimeError(
                f"{self.name}: expected an answer to '{command}', its process ended; {self.log} "
                f"ends:\n{tail}"
            )
        return json.loads(line)

    def __enter__(self) -> "Worker":
        """Waits until the process has imported what it needs: what is measured first is not
        measured beside nine imports.
        """
        try:
            self.ask("ready")
        except BaseException:
            self.process.kill()
            self.process.communicate()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the process: at once after an error, else when it has seen that nobody will ask
        again.
        """
        if kind is not None:
            self.process.kill()
        self.process.communicate()


def serve(commands: dict[str, Callable[..., Answer]]) -> None:
    """The worker's end: answers questions until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    commands = {"ready": dict, **commands}
    for line in sys.stdin:
        arguments = json.loads(line)
        answer = commands[arguments.pop("command")](**arguments)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
