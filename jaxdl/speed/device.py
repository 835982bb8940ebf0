"""What a device is, and how fast its own matrix product and memory are."""

import dataclasses
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.units import scaled
from jaxdl.speed import memory

T = TypeVar("T")

SHARE_OF_MEMORY = 32
"""A measurement's arrays take at most this part of the memory."""


@dataclasses.dataclass(frozen=True)
class DeviceSpeed:
    """A device and its measured speed.

    Args:
        platform: "cpu", "gpu" or "tpu".
        kind: what the maker calls it; the processor's name for a CPU.
        count: how many of them JAX sees.
        cores: of the processor, as many as this process may use.
        memory_bytes: the device's, or None where it is not reported.
        matrix_product: floating-point operations a second of a large matrix product, by dtype;
            JAX's default precision.
        bandwidth: bytes a second, read and written, of y = a·x + b on an array far larger than the
            caches.
        sizes: of the square matrices, and bytes of the array, that were measured.
    """

    platform: str
    kind: str
    count: int
    cores: int
    memory_bytes: int | None
    matrix_product: dict[str, float]
    bandwidth: float
    sizes: dict[str, int]

    def best(self, again: "DeviceSpeed") -> "DeviceSpeed":
        """The best of two measurements of one device.

        Args:
            again: the other measurement.
        """
        products = {
            dtype: max(speed, again.matrix_product[dtype])
            for dtype, speed in self.matrix_product.items()
        }
        return dataclasses.replace(
            self, matrix_product=products, bandwidth=max(self.bandwidth, again.bandwidth)
        )

    def __str__(self) -> str:
        memory_bytes = ""
        if self.memory_bytes is not None:
            memory_bytes = f", {scaled(self.memory_bytes)}B of memory"
        products = ", ".join(
            f"{dtype} {scaled(speed)}FLOP/s" for dtype, speed in self.matrix_product.items()
        )
        many = f"{self.count} × " if self.count > 1 else ""
        return (
            f"{many}{self.kind} ({self.platform}, {self.cores} cores{memory_bytes}); matrix "
            f"product: {products}; memory: {scaled(self.bandwidth)}B/s"
        )


def measure_device(device: Any = None, *, seconds: float = 0.4) -> DeviceSpeed:
    """Measures a device's matrix product, 2n³ operations, and its memory, in sizes that suit it;
    under three seconds.

    Each measurement is the best of several runs: what the device can do when it is otherwise idle.

    Args:
        device: of `jax.devices()`; None is the first.
        seconds: how long each measurement may take, besides compiling.

    Returns:
        The speeds, with what was measured.

    >>> speed = measure_device(seconds=0.01)
    >>> speed.bandwidth > 0 and speed.matrix_product["float32"] > 0
    True
    """
    device = device or jax.devices()[0]
    held = device_memory(device)
    host = device.platform == "cpu"
    size = _largest(1024 if host else 8192, 2, held)
    array_bytes = _largest(2**27 if host else 2**30, 1, held)
    dtypes = ("float32",) if host else ("float32", "bfloat16")
    with jax.default_device(device):
        products = {dtype: _matrix_product(size, dtype, seconds) for dtype in dtypes}
        bandwidth = _bandwidth(array_bytes, seconds)
    return DeviceSpeed(
        device.platform,
        processor() if host else device.device_kind,
        len(jax.devices(device.platform)),
        cores(),
        held,
        products,
        bandwidth,
        {"matrix": size, "array_bytes": array_bytes},
    )


def device_memory(device: Any) -> int | None:
    """The memory of a device in bytes, or None where it is not reported."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return memory.physical() if device.platform == "cpu" else None


def cores() -> int:
    """The cores this process may use, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _matrix_product(size: int, dtype: str, seconds: float) -> float:
    """Operations a second."""
    left, right = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    product = jax.jit(jnp.dot)

    def call(last: Array) -> Array:
        del last
        return product(left, right)

    return 2 * size**3 / _fastest(call, left, seconds)


def _bandwidth(array_bytes: int, seconds: float) -> float:
    """Bytes a second; the array is donated, so that no new pages are allocated."""
    change = jax.jit(lambda x: x * 0.5 + 1.0, donate_argnums=0)
    return 2 * array_bytes / _fastest(change, jnp.ones(array_bytes // 4, jnp.float32), seconds)


def _fastest(call: Callable[[T], T], value: T, seconds: float) -> float:
    """Seconds a call, in the best of a few groups of calls; each call is given the result of the
    previous one.
    """
    value = jax.block_until_ready(call(value))
    began = time.perf_counter()
    value = jax.block_until_ready(call(value))
    count = max(1, int(seconds / 8 / max(time.perf_counter() - began, 1e-6)))
    best = float("inf")
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        for _ in range(count):
            value = call(value)
        jax.block_until_ready(value)
        best = min(best, (time.perf_counter() - start) / count)
    return best


def _largest(most: int, power: int, held: int | None) -> int:
    """The size, halved until an array of float32 with sizeᵖᵒʷᵉʳ elements takes a small part of the
    memory.
    """
    while held is not None and most > 64 and 4 * most**power > held // SHARE_OF_MEMORY:
        most //= 2
    return most
