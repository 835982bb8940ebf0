"""The versions of the software that wrote a file or measured a time."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("jaxdl", "jax", "jaxlib")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """The versions of Python and of installed packages.

    Args:
        packages: names of distributions.

    Returns:
        Versions by name, "unknown" for a package that is not installed as a distribution.
    """
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
