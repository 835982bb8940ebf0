"""What wrote a file."""

import platform
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """The versions of jaxdl, JAX and Python."""
    return {
        "jaxdl": _of("jaxdl"),
        "jax": _of("jax"),
        "jaxlib": _of("jaxlib"),
        "python": platform.python_version(),
    }


def _of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
