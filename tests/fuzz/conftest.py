"""The runtime of a user's run, in which annotations are not checked; and how many cases were tried."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz import outcome


@pytest.fixture(autouse=True)
def as_a_user(unchecked: None, quickly_compiled: None) -> Iterator[None]:
    """Our own errors have to answer, by whole tracebacks."""
    with outcome.whole_tracebacks():
        yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for kind, counts in outcome.tried.items():
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        terminalreporter.write_line(f"fuzzed {kind}: {told}")
