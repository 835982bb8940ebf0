"""Values have equal descriptions in every process, and different ones wherever they compute something else."""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array
from numpy import ndarray

import jaxdl as dl
from jaxdl import losses, metrics
from jaxdl.checkpoint import digest as digests
from jaxdl.checkpoint.describe import describe
from jaxdl.checkpoint.differences import as_call, differences
from jaxdl.checkpoint.digest import digest, digest_of

SCALE = 2.0


def scaled(x: Any) -> Any:
    """The input times a number of this module."""
    return SCALE * x


def is_of_numpy(x: Any) -> bool:
    return isinstance(x, ndarray)


def is_of_jax(x: Any) -> bool:
    return isinstance(x, Array)


def weighted(scale: float) -> Any:
    def loss(outputs: Any, targets: Any, power: int = 2) -> Any:
        return scale * jnp.abs(outputs - targets) ** power

    return loss


@dataclasses.dataclass(frozen=True)
class Own(dl.Layer):
    rate: float

    def init(self, key: Any, x: Any) -> Any:
        return {}, {}

    def apply(self, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
        return self.rate * x, state


def other_method(self: Own, params: Any, state: Any, x: Any, mode: Any = dl.Eval()) -> Any:
    return self.rate + x, state


VALUES: dict[str, Any] = {
    "none": None,
    "number": 0.1,
    "text": "adam",
    "dtype": np.dtype(np.float32),
    "type": jnp.bfloat16,
    "array": np.arange(3),
    "key": jax.random.key(3),
    "set": frozenset({"a", "b", "cc", "ddd"}),
    "function": scaled,
    "closure": weighted(1.0),
    "lambda": lambda x: x in {"a", "b", "cc", "ddd"},
    "jitted": jax.jit(weighted(3.0)),
    "partial": functools.partial(losses.huber, delta=2.0),
    "library": jax.nn.relu,
    "class": Own,
    "layer": Own(0.5),
    "model": dl.Sequential(dl.Dense(3), jax.nn.relu, dl.Dropout(0.3), head=Own(0.5)),
    "metric": metrics.ROCAUC(),
    "adam": optax.adam(1e-3),
    "schedule": optax.adamw(optax.cosine_decay_schedule(1e-3, 100)),
    "clipped": optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)),
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "masked": optax.masked(optax.adam(1e-3), {"a": True}),
    "partition": optax.partition(
        {"a": optax.adam(1e-3), "b": optax.set_to_zero()}, lambda params: params
    ),
    "several": optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(),
}


def descriptions() -> str:
    return "".join(f"{name} {as_call(describe(value))}\n" for name, value in VALUES.items())


@pytest.mark.slow
def test_another_process_describes_the_same() -> None:
    root = Path(__file__).parents[2]
    program = (
        "from tests.checkpoint.test_describe import descriptions; print(descriptions(), end='')"
    )
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "17"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    assert ran.stdout == descriptions()
    assert " at 0x" not in ran.stdout


def test_no_two_of_them_are_alike() -> None:
    assert len({as_call(describe(value)) for value in VALUES.values()}) == len(VALUES)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (optax.adam(1e-3), optax.adam(1e-2), "it: learning rate 0.001 → 0.01"),
        (optax.adam(1e-3), optax.adam(1e-3, b1=0.8), "it.scale_by_adam.b1: 0.9 → 0.8"),
        (weighted(1.0), weighted(2.0), "it.scale: 1.0 → 2.0"),
        (lambda x: x + 1, lambda x: x + 2, "it: other code, or other values that it reads"),
        (lambda x: x, lambda x: -x, "it: other code, or other values that it reads"),
        (Own(0.5), Own(0.25), "it.rate: 0.5 → 0.25"),
        ({"a": 1}, {"b": 1}, "it.a: 1 → none"),
        ((1, 2), (1, 3), "it.1: 2 → 3"),
        (0.0, -0.0, "it: 0.0 → -0.0"),
    ],
)
def test_what_differs_is_named(old: Any, new: Any, line: str) -> None:
    assert differences(describe(old), describe(old), "it") == []
    assert differences(describe(old), describe(new), "it")[0] == line


def test_a_function_is_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    before, layer = describe(scaled), describe(Own(0.5))
    assert differences(before, describe(lambda x: SCALE * x), "it") != []  # by its name
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert describe(scaled) != before
    monkeypatch.setattr(Own, "apply", other_method)
    assert describe(Own(0.5)) != layer


def test_a_function_may_read_a_class_of_arrays() -> None:
    one, other = describe(is_of_numpy), describe(is_of_jax)
    assert describe(is_of_numpy) == one
    assert one != other


def test_comments_and_docstrings_are_no_part_of_it() -> None:
    made: list[Any] = []
    for text in (
        "def f(x):\n    'Adds 1.'\n    return x + 1",
        "def f(x):\n    'Adds one.'\n\n    # by a sum\n    return x + 1",
    ):
        names: dict[str, Any] = {"__name__": "users"}
        exec(text, names)
        made.append(describe(names["f"]))
    assert made[0] == made[1]


def test_a_large_array_is_digested_by_rows_spread_over_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digests, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(digests, "SAMPLED_BYTES", 500)
    array = np.random.default_rng(0).normal(size=(1000, 5))
    whole = digest(array)
    count = (
        int(whole.rpartition(" of ")[0].rpartition(" ")[2])
        if "rows" not in whole
        else int(whole.split(" of ")[1].split()[0])
    )
    assert whole.endswith(" of 1000 rows")
    assert 10 <= count <= 20
    assert digest(jnp.asarray(array, jnp.float32)) == digest(array.astype(np.float32))
    changed = [
        digest(np.where(np.arange(1000)[:, None] == row, 0.0, array)) != whole
        for row in range(1000)
    ]
    assert sum(changed) == count
    gaps = np.diff(np.flatnonzero(changed))
    assert gaps.max() < 3 * 1000 / count  # spread evenly
    assert digest_of([array, array]) != digest_of([array, -array])


def test_the_order_of_bytes_is_no_part_of_an_array() -> None:
    array = np.arange(5, dtype=np.int32)
    assert digest(array.astype(">i4")) == digest(array)
    assert digest(np.asfortranarray(np.eye(3)[:2])) == digest(np.eye(3)[:2])
