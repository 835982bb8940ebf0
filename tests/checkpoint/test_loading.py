"""Weights in part, in another dtype, and of other programs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl

pytest.importorskip("safetensors")
X = jnp.ones((2, 4))
MODEL = dl.Sequential(dl.Dense(3), dl.BatchNorm(), jax.nn.relu, head=dl.Dense(2))
OTHER = dl.Sequential(dl.Dense(3), dl.LayerNorm(), jax.nn.relu, head=dl.Dense(5))


def assert_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    dl.save(tmp_path / "w", *MODEL.init(jax.random.key(0), X))
    return tmp_path / "w"


def test_in_part(saved: Path) -> None:
    start = OTHER.init(jax.random.key(1), X)
    with pytest.warns(UserWarning, match="was loaded in part, and the rest is as it") as caught:
        params, state = dl.load(saved, start, strict=False)
    assert "params.head.kernel: expected float32[3, 5], saved was float32[3, 2]" in str(
        caught[0].message
    )
    whole, _ = dl.load(saved)
    assert_same(params["dense_0"], whole["dense_0"])
    assert_same(params["head"], start[0]["head"])
    assert_same(params["layer_norm_0"], start[0]["layer_norm_0"])
    assert state == {}


def test_what_differs_is_returned(saved: Path) -> None:
    start = OTHER.init(jax.random.key(1), X)
    found = dl.compare_weights(saved, start)
    assert isinstance(found, dl.WeightDifferences)
    assert found
    assert set(found.changed) == {"params.head.kernel", "params.head.bias"}
    assert set(found.missing) == {"params.layer_norm_0.scale", "params.layer_norm_0.bias"}
    assert set(found.extra) == {
        *(f"params.batch_norm_0.{name}" for name in ("scale", "bias")),
        *(f"state.batch_norm_0.{name}" for name in ("mean", "var")),
    }
    assert len(found.lines) == 8
    assert str(found).count("\n") == 7
    same = dl.compare_weights(saved, jax.eval_shape(MODEL.init, jax.random.key(0), X))
    assert not same
    assert str(same) == "no differences"


def test_what_fits_gives_no_warning(saved: Path) -> None:
    start = MODEL.init(jax.random.key(1), X)
    assert_same(dl.load(saved, start, strict=False), dl.load(saved))


def test_shapes_are_not_kept(saved: Path) -> None:
    shapes = jax.eval_shape(OTHER.init, jax.random.key(0), X)
    with pytest.raises(dl.CheckpointError, match=r"give arrays, like=model\.init\(key, x\)"):
        dl.load(saved, shapes, strict=False)


def test_in_part_of_nothing(saved: Path) -> None:
    with pytest.raises(ValueError, match="strict=False takes from the file what fits like"):
        dl.load(saved, strict=False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", jnp.float32])
def test_another_dtype(tmp_path: Path, dtype: Any) -> None:
    params = {"a": jnp.array([1.0, 1e30, -0.1]), "b": jnp.arange(3), "key": jax.random.key(0)}
    dl.save(tmp_path / "w", params)
    found, _ = dl.load(tmp_path / "w", dtype=dtype)
    np.testing.assert_array_equal(found["a"], params["a"].astype(dtype))
    assert found["a"].dtype == jnp.dtype(dtype)
    assert found["b"].dtype == params["b"].dtype
    assert found["key"] == params["key"]
    like = ({**params, "a": params["a"].astype(dtype)}, {})
    assert_same(dl.load(tmp_path / "w", like, dtype=dtype)[0]["a"], found["a"])


@pytest.mark.parametrize("dtype", ["int32", "words", "complex64"])
def test_a_dtype_that_is_not_floating(saved: Path, dtype: str) -> None:
    with pytest.raises(
        ValueError, match="load: dtype is a floating one such as 'bfloat16', got"
    ):
        dl.load(saved, dtype=dtype)


ARRAYS = {
    "encoder.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder.0.bias": np.ones((), np.float16),
    "count": np.arange(3, dtype=np.int32),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 2), np.uint8),
}


def test_a_file_of_another_program(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file(ARRAYS, tmp_path / "w")
    with pytest.raises(dl.CheckpointError, match=r"or as it is by load\(path, foreign=True\)"):
        dl.load(tmp_path / "w")
    params, state = dl.load(tmp_path / "w", foreign=True)
    nested = {
        "encoder": {"0": {"weight": ARRAYS["encoder.0.weight"], "bias": np.float16(1)}},
        **{name: ARRAYS[name] for name in ("count", "mask", "empty")},
    }
    assert_same(params, nested)
    assert state == {}
    like = (jax.tree.map(jnp.asarray, nested), {})
    assert_same(dl.load(tmp_path / "w", like, foreign=True)[0], nested)
    with pytest.warns(UserWarning, match=r"extra: params\.count"):
        dl.load(tmp_path / "w", ({"mask": like[0]["mask"]}, {}), strict=False, foreign=True)


def test_a_file_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    layer = torch.nn.Linear(3, 2).bfloat16()
    save_file(layer.state_dict(), tmp_path / "w")
    params, _ = dl.load(tmp_path / "w", foreign=True, dtype="float32")
    kernel = layer.weight.detach().float().numpy()
    np.testing.assert_array_equal(params["weight"], kernel)
    assert dl.load(tmp_path / "w", foreign=True)[0]["bias"].dtype == jnp.bfloat16


def test_names_of_params_and_state(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    dl.save(tmp_path / "own", {"a": {"b": jnp.ones(2)}}, {"c": jnp.zeros(3)})
    save_file(load_file(tmp_path / "own"), tmp_path / "w")
    expected = dl.load(tmp_path / "own")
    assert_same(dl.load(tmp_path / "w", foreign=True), expected)
    assert_same(dl.load(tmp_path / "own", foreign=True), expected)


def test_damage_is_found_where_files_may_be_foreign(tmp_path: Path, saved: Path) -> None:
    from safetensors.numpy import save_file

    saved.write_bytes(saved.read_bytes()[:-1] + b"\7")
    with pytest.raises(dl.CheckpointError, match="is damaged: the digest of"):
        dl.load(saved, foreign=True)
    save_file(ARRAYS, tmp_path / "other")
    (tmp_path / "other").write_bytes((tmp_path / "other").read_bytes()[:-1])
    with pytest.raises(dl.CheckpointError, match="is damaged: safetensors cannot read it"):
        dl.load(tmp_path / "other", foreign=True)
    save_file({"a": np.ones(1), "a.b": np.ones(1)}, tmp_path / "both")
    with pytest.raises(dl.CheckpointError, match=r"arrays called a and a\.b, which cannot"):
        dl.load(tmp_path / "both", foreign=True)
    with pytest.raises(dl.CheckpointError, match="cannot be read"):
        dl.load(tmp_path / "none", foreign=True)
