"""A profile leaves files, says how to open them, and gives what the function gave."""

import gzip
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdl as dl


def test_a_profile_of_a_function_holds_its_calls(tmp_path: Path) -> None:
    calls = []

    def function(x: np.ndarray) -> object:
        calls.append(x)
        return jnp.sin(x)

    profile = dl.profile(function, np.ones(3, np.float32), folder=tmp_path, calls=2)
    assert len(calls) == 3
    assert profile.perfetto in profile.files
    events = json.loads(gzip.decompress(profile.perfetto.read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "call" for event in events) == 2
    assert f"https://ui.perfetto.dev, and there the file {profile.perfetto}" in str(profile)
    assert f"tensorboard --logdir {tmp_path}" in str(profile)
    np.testing.assert_allclose(profile.result, np.sin(np.ones(3)), rtol=1e-6)


@pytest.mark.slow
def test_a_profile_of_a_fit_gives_its_run(tmp_path: Path) -> None:
    data, optimizer = (np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)), optax.sgd(0.1)
    profile = dl.profile(
        lambda: dl.fit(
            dl.Dense(1),
            data,
            loss=dl.losses.mean_squared_error,
            optimizer=optimizer,
            progress=False,
        ),
        folder=tmp_path,
    )
    assert isinstance(profile.result, dl.Run)
    assert profile.files
