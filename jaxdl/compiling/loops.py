"""The loops of a program, as JAX traced it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend import core


class Loop(NamedTuple):
    """A `lax.scan` or `lax.while_loop`.

    Args:
        body: the program of a turn.
        length: how often it turns; None where that is known only as it runs.
    """

    body: Any
    length: int | None


def outermost_loops(jaxpr: Any) -> Iterator[Loop]:
    """The loops of a program that lie in no other."""
    for equation in _opened(jaxpr).eqns:
        params = equation.params
        match equation.primitive.name:
            case "scan":
                yield Loop(params["jaxpr"], params["length"])
            case "while":
                yield Loop(params["body_jaxpr"], None)
            case _:
                for inner in core.jaxprs_in_params(params):
                    yield from outermost_loops(inner)


def _opened(jaxpr: Any) -> Any:
    """The equations' holder; JAX 0.12 has one kind of program, earlier versions tell closed ones
    apart.
    """
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
