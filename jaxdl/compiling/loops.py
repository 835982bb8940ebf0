"""The loops of a traced program.

XLA's cost analysis counts the body of a loop once, so `speed.cost` multiplies; and a training step
without loops is compiled without XLA's passes over loops, which on a CPU take a twentieth of the
10-10-10-1 network's first step. JAX has no public function that finds them.
"""

from collections.abc import Iterator
from typing import NamedTuple

from jax.extend import core


class Loop(NamedTuple):
    """A `lax.scan` or `lax.while_loop`.

    Args:
        body: the jaxpr of one iteration.
        length: the number of iterations; None where it is known only at run time.
    """

    body: core.ClosedJaxpr | core.Jaxpr
    length: int | None


def outermost_loops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> Iterator[Loop]:
    """The loops of a program that lie in no other."""
    for equation in _open(jaxpr).eqns:
        params = equation.params
        match equation.primitive.name:
            case "scan":
                yield Loop(params["jaxpr"], params["length"])
            case "while":
                yield Loop(params["body_jaxpr"], None)
            case _:
                for inner in core.jaxprs_in_params(params):
                    yield from outermost_loops(inner)


def _open(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> core.Jaxpr:
    """The holder of the equations; JAX 0.12 has one kind of jaxpr, earlier versions have two."""
    return jaxpr.jaxpr if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr
