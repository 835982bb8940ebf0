"""A machine whose figures are known, so that tests need not measure one."""

import pytest

from jaxdl.speed.device import DeviceSpeed


@pytest.fixture(scope="session")
def machine() -> DeviceSpeed:
    return DeviceSpeed(
        "cpu",
        "a test's processor",
        1,
        2,
        8 * 10**9,
        {"float32": 1e12},
        1e11,
        {"matrix": 1, "array_bytes": 1},
    )
