"""The target that is compiled for: the library's one ambient context.

Which form of a computation is fastest depends on the platform of the program that it becomes part
of, and on whether that program trains a population of models under `jax.vmap`. A pure layer's
arguments cannot say so, and neither can the process: programs are also compiled for platforms that
it does not have. So whoever traces a program states its target, and `jaxdl.ops` reads it.

The target may change how something is computed, never what. It is a context of JAX
(`jax.make_user_context`), which is part of the key of every cache of `jax.jit`: what was traced for
one target is never used for another.
"""

import contextlib
import functools
import importlib.util
import pkgutil
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.extend.backend import backends, get_backend

ASSUMED_CAPABILITY = 8.0
"""What a GPU that the process does not have can do: as an A100 or later."""


class Target(NamedTuple):
    """What is traced for.

    Args:
        platform: the only platform that the program is compiled for, such as "cpu", "cuda" or
            "tpu"; None where it may be any.
        program: whether it becomes part of one of the library's own programs, which never run
            operation by operation, and on a CPU are compiled with `ops.conv_algorithm.CPU_OPTIONS`.
        population: whether it is mapped by `jax.vmap` over the members of a population.
    """

    platform: str | None = None
    program: bool = False
    population: bool = False


_target = jax.make_user_context(Target())


def target() -> Target:
    """The target of what is being traced."""
    return _target.value


@contextlib.contextmanager
def compiling_for(platform: str | None) -> Iterator[None]:
    """Traces what is within as part of a program for a platform.

    To compile for an accelerator that the process does not have:

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> x = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    >>> with compiling_for("tpu"):
    ...     lowered = jax.jit(dl.MaxPool(2).forward).trace({}, x).lower(lowering_platforms=("tpu",))
    >>> "reduce_window" in lowered.as_text()
    True

    Args:
        platform: the only platform that it will be compiled for; None where it may be any.
    """
    with _target(target()._replace(platform=platform, program=True)):
        yield


@contextlib.contextmanager
def tracing_population() -> Iterator[None]:
    """Traces what is within as mapped by `jax.vmap` over the members of a population."""
    with _target(target()._replace(population=True)):
        yield


def single_platform() -> str | None:
    """The only platform that programs are compiled for: the target's where one is stated, else the
    only one of the process; None where there are several.
    """
    stated = target()
    return stated.platform if stated.program else _only_backend()


def default_platform() -> str:
    """The platform that programs are compiled for where no array decides: the target's where one is
    stated, else that of JAX's default device.
    """
    stated = target().platform
    if stated is not None:
        return stated
    settings: object = jax.config
    device = getattr(settings, "jax_default_device")  # noqa: B009
    if device is None:
        return jax.default_backend()
    return getattr(device, "platform", device)


def compute_capability() -> float:
    """The CUDA compute capability of the GPU that is compiled for; 0 where it is none.

    It is that of the process's first GPU. Where the process has none and the target is "cuda", it
    is taken to be `ASSUMED_CAPABILITY`.
    """
    platform = target().platform
    if platform not in (None, "cuda"):
        return 0.0
    backend = get_backend()
    if "cuda" in backend.platform_version:
        return float(backend.local_devices()[0].compute_capability)
    return ASSUMED_CAPABILITY if platform == "cuda" and _cuda_is_installed() else 0.0


@functools.cache
def _cuda_is_installed() -> bool:
    """Whether JAX can compile for CUDA, with or without a GPU: its plugin is installed."""
    plugins = importlib.util.find_spec("jax_plugins")
    if plugins is None:
        return False
    modules = pkgutil.iter_modules(plugins.submodule_search_locations)
    return any("cuda" in module.name for module in modules)


@functools.cache
def _only_backend() -> str | None:
    found = list(backends())
    return found[0] if len(found) == 1 else None
