"""What is fastest on one platform and not on another."""

from collections.abc import Callable
from typing import Any

from jax import lax


def by_platform(
    platform: str | None,
    *operands: Any,
    default: Callable[..., Any],
    **branches: Callable[..., Any],
) -> Any:
    """The function of the platform that a program is lowered for: of `branches`, by its name, or
    `default`.

    Args:
        platform: of the program, where it is known (`jitted.program_platform`): then no other
            function is traced, which is most of what tracing and differentiating attention takes.
            It decides what is traced, so functions under `jax.jit` take it as a static argument.
        operands: what the function is given.
    """
    if platform is not None:
        return branches.get(platform, default)(*operands)
    return lax.platform_dependent(*operands, default=default, **branches)
