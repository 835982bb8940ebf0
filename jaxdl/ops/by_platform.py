"""Functions that are computed differently on each platform."""

from collections.abc import Callable

from jax import lax

from jaxdl.compiling.pytree import PyTree


def by_platform(
    platform: str | None,
    *operands: PyTree,
    default: Callable[..., PyTree],
    **branches: Callable[..., PyTree],
) -> PyTree:
    """Applies the function of the platform that a program is lowered for.

    Args:
        platform: that of the program if it is known (`target().platform`): then only its
            function is traced, which saves most of the time to trace and differentiate attention.
            It decides what is traced, so functions under `jax.jit` take it as a static argument.
        operands: the arguments of the function.
        default: the function of platforms that have no branch.
        branches: functions by the name of their platform.

    Returns:
        The outputs of the function.
    """
    if platform is not None:
        return branches.get(platform, default)(*operands)
    return lax.platform_dependent(*operands, default=default, **branches)
