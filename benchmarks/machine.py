"""What a figure was measured on: processor, accelerator, cores, versions, date, and a process's
memory.
"""

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "jaxdl",
    "jax",
    "jaxlib",
    "numpy",
    "optax",
    "flax",
    "torch",
    "keras",
    "tensorflow",
    "equinox",
)
RESULTS = Path(__file__).parent / "results"
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
}  # bfloat16 a second without sparsity, by data sheet


def description() -> dict[str, object]:
    """Everything that belongs beside a figure."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device()[0],
        **({"accelerator": device()[1]} if device()[1] else {}),
        "processor": processor(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: installed_version(package) for package in PACKAGES},
    }


@cache
def device() -> tuple[str, str]:
    """The platform that JAX chooses, and the name of its first accelerator; asked in a process that
    holds no memory of it.
    """
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen == "cpu" or not (
        chosen or shutil.which("nvidia-smi") or Path("/dev/accel0").exists()
    ):
        return "cpu", ""
    program = "import jax; first = jax.devices()[0]; print(first.platform, first.device_kind)"
    platform_name, _, kind = (
        subprocess.check_output([sys.executable, "-c", program], text=True)
        .strip()
        .partition(" ")
    )
    return platform_name, "" if platform_name == "cpu" else kind


def results() -> Path:
    """The folder for figures of this device: `benchmarks/results`, and of an accelerator a folder
    of its name in there.
    """
    return RESULTS / re.sub(r"\W+", "-", device()[1].lower())


def environment() -> dict[str, str]:
    """What a process needs so that every framework computes on the same device, and takes no more
    of it than it uses.
    """
    if device()[0] == "cpu":
        return {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def peak_flops(kind: str) -> float | None:
    """Operations a second that an accelerator's data sheet promises in bfloat16, where it is
    known.
    """
    return next((peak for name, peak in PEAKS.items() if name in kind), None)


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """The most memory this process ever held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device_memory() -> int | None:
    """The most memory this process ever held on an accelerator, in bytes, by the framework that it
    loaded; None on a CPU.
    """
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    if jax is not None and jax.default_backend() != "cpu":
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return None
