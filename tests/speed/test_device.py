"""The machine's measured speeds are of the right size, and printed in a sentence."""

import gc
import time

import jax
import numpy as np

import jaxdl as dl
from jaxdl.speed import memory
from jaxdl.speed.device import device_memory


def test_a_device_is_measured_within_its_time() -> None:
    began = time.perf_counter()
    speed = dl.measure_device(seconds=0.02)
    assert time.perf_counter() - began < 20  # a hundredfold, for a machine that others use
    assert 1e8 < speed.matrix_product["float32"] < 1e16
    assert 1e8 < speed.bandwidth < 1e14
    assert speed.platform == jax.default_backend()
    assert speed.sizes["matrix"] <= 1024
    assert "float32" in str(speed)
    assert "FLOP/s; memory: " in str(speed)


def test_the_best_of_two_measurements_is_kept() -> None:
    def speed(product: float, bandwidth: float) -> dl.DeviceSpeed:
        return dl.DeviceSpeed("cpu", "x", 1, 1, None, {"float32": product}, bandwidth, {})

    best = speed(1.0, 4.0).best(speed(2.0, 3.0))
    assert (best.matrix_product["float32"], best.bandwidth) == (2.0, 4.0)


def test_peak_memory_grows_with_what_is_held() -> None:
    gc.collect()
    counted = memory.begin_peak()
    before, kind = memory.peak()
    held = np.ones(2**25)
    after, _ = memory.peak()
    assert before is not None
    assert after is not None
    assert kind
    if counted and kind == "resident in the process":
        assert after - before > 0.5 * held.nbytes
    assert device_memory(jax.devices()[0]) is None or device_memory(jax.devices()[0]) > 2**28
