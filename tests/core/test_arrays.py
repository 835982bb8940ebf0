"""Arrays of every kind that people hold, against what NumPy has of the same numbers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.sparse

import jaxdl as dl
from jaxdl.core.arrays import as_numpy, host_array

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype(np.float32)
Y = RNG.integers(0, 2, 12).astype(np.int32)


@functools.cache
def memory_mapped(path: str) -> Any:
    mapped = np.memmap(path, np.float32, "w+", shape=X.shape)
    mapped[:] = X
    return mapped


def read_only() -> np.ndarray:
    array = X.copy()
    array.flags.writeable = False
    return array


TAKEN = {
    "big-endian": lambda: X.astype(">f4"),
    "float64": lambda: X.astype(np.float64),
    "big-endian float64": lambda: X.astype(">f8"),
    "longdouble": lambda: X.astype(np.longdouble),
    "matrix": lambda: np.asarray(X).view(np.matrix),
    "masked nowhere": lambda: np.ma.masked_array(X, np.zeros(X.shape, bool)),
    "Fortran order": lambda: np.asfortranarray(X),
    "every other row": lambda: np.repeat(X, 2, 0)[::2],
    "backwards": lambda: X[::-1].copy()[::-1],
    "read-only": read_only,
    "JAX's": lambda: jnp.asarray(X),
}


@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN.keys())
def test_arrays_of_numpy_are_taken(make: Any) -> None:
    got = host_array(make())
    assert type(got) is np.ndarray
    assert got.dtype == np.float32
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, X)


def test_a_memory_map_is_taken(tmp_path: Any) -> None:
    np.testing.assert_array_equal(host_array(memory_mapped(str(tmp_path / "x"))), X)


@pytest.mark.parametrize("dtype", [">i2", ">i4", ">i8", ">u2", "?", "u1", "i1"])
def test_whole_numbers_keep_their_values(dtype: str) -> None:
    got = host_array(Y.astype(dtype))
    np.testing.assert_array_equal(got, Y)
    assert got.dtype == jax.dtypes.canonicalize_dtype(np.dtype(dtype).newbyteorder("="))


def test_complex_numbers_are_taken() -> None:
    z = X[:, :2].astype(np.float64) @ np.array([1, 1j])
    for dtype in (np.complex64, np.complex128, np.clongdouble, ">c16"):
        got = host_array(z.astype(dtype))
        assert got.dtype == np.complex64
        np.testing.assert_allclose(got, z, rtol=1e-6)


ragged = np.empty(2, object)
ragged[:] = [np.zeros(2), np.zeros(3)]
REFUSED = {
    "masked": (
        np.ma.masked_array(X, X > 1),
        rf"x: {(X > 1).sum()} of 36 elements are masked, .* array\.filled\(0\)",
    ),
    "strings": (
        np.array(["a", "b"]),
        r"expected arrays of numbers, got <U1 — number classes from 0 \(np\.unique",
    ),
    "strings as objects": (np.array(["a", None], object), "got object — number classes from 0"),
    "bytes": (np.array([b"a"]), "got |S1 — number classes"),
    "dates": (
        np.array(["2024-01-01"], "datetime64[D]"),
        r"got datetime64\[D\] — dates are not numbers: take differences",
    ),
    "durations": (
        np.array([1], "timedelta64[s]"),
        r"got timedelta64\[s\] — divide durations by a unit",
    ),
    "fields": (
        np.zeros(3, [("a", "f4"), ("b", "f4")]),
        r"its fields become columns by np\.lib\.recfunctions",
    ),
    "raw bytes": (np.zeros(3, "V3"), "expected arrays of numbers"),
    "numbers as objects": (
        np.array([1.5, True, 2], object),
        r"if they are numbers, pass array\.astype\(np\.float32\)",
    ),
    "arrays as objects": (
        ragged,
        r"whose elements are ndarray — if they are arrays of one shape, pass np\.stack",
    ),
    "a sparse matrix": (
        scipy.sparse.eye(3),
        r"convert a sparse matrix to a dense one: matrix\.toarray\(\)",
    ),
    "a function": (len, "whose elements are builtin_function_or_method"),
    "keys": (jax.random.split(jax.random.key(0), 3), "cannot be made an array of NumPy: .*key"),
}


@pytest.mark.parametrize(("given", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_array_of_numbers_is_named(given: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^x: .*{sentence.removeprefix('x: ')}"):
        as_numpy("x", given)


def test_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    plain = torch.from_numpy(X)
    np.testing.assert_array_equal(host_array(plain.clone().requires_grad_()), X)
    np.testing.assert_array_equal(host_array(torch.nn.Parameter(plain)), X)
    np.testing.assert_array_equal(host_array(plain.double().T), X.T)
    for dtype in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"):
        got = host_array(plain.to(getattr(torch, dtype)))
        assert got.dtype == jnp.dtype(dtype)
        np.testing.assert_array_equal(
            got.astype(np.float32), plain.to(getattr(torch, dtype)).float()
        )
    z = torch.complex(plain, -plain)
    np.testing.assert_array_equal(host_array(z.conj()), X + 1j * X)
    with pytest.raises(
        ValueError, match=r"x: Tensor cannot be made an array of NumPy: .*to_dense\(\)"
    ):
        as_numpy("x", plain.to_sparse())


def test_a_frame_of_columns_of_several_dtypes_is_taken() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abc"))
    np.testing.assert_array_equal(host_array(frame), X)
    frame["above"] = frame["a"] > 0
    frame["count"] = pandas.array(Y, "Int64")
    frame["known"] = pandas.array(Y == 1, "boolean")
    frame["share"] = pandas.array(X[:, 1].astype(float), "Float64")
    expected = np.column_stack([X, X[:, 0] > 0, Y, Y == 1, X[:, 1]])
    got = host_array(frame)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    for column in ("above", "count", "known", "share"):
        np.testing.assert_array_equal(
            host_array(frame[column]), frame[column].to_numpy(dtype=float).astype(np.float32)
        )
    assert host_array(frame[["above", "known"]]).dtype == np.bool_
    assert host_array(frame[["count", "known"]]).dtype == np.int32
    assert host_array(frame[[]]).shape == (12, 0)


def test_gaps_categories_and_strings_of_a_frame_are_named() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    frame["n"] = pandas.array([1, None], "Int64")
    frame["c"] = pandas.Categorical(["x", "y"])
    frame["d"] = pandas.to_datetime(["2024-01-01", "2024-01-02"])
    for columns, sentence in (
        ("ab", r"x: column 'b': expected arrays of numbers, got object — number classes"),
        (
            "an",
            r"x: column 'n': 1 of 2 values are missing — fill them in, as in frame\.fillna\(0\), .* frame\.dropna\(\)",
        ),
        (
            "ac",
            r"x: column 'c': it is categorical — pass the codes of its categories, frame\[column\]\.cat\.codes",
        ),
        ("d", r"x: column 'd': .* got datetime64\[\w+\] — dates are not numbers"),
    ):
        with pytest.raises(ValueError, match=sentence):
            as_numpy("x", frame[list(columns)])
    with pytest.raises(ValueError, match="x: 1 of 2 values are missing"):
        as_numpy("x", frame["n"])
    with pytest.raises(ValueError, match="x: it is categorical"):
        as_numpy("x", frame["c"])


def test_frames_of_polars_are_taken() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": [1.5, 2.5], "b": [True, False], "n": [1, None]})
    np.testing.assert_array_equal(host_array(frame[["a", "b"]]), [[1.5, 1], [2.5, 0]])
    np.testing.assert_array_equal(host_array(frame["b"]), [True, False])
    with pytest.raises(ValueError, match="x: column 'n': 1 of 2 values are missing"):
        as_numpy("x", frame)


def trained(x: Any, y: Any, weights: Any = None) -> Any:
    data = (x, y) if weights is None else (x, y, weights)
    options: dict[str, Any] = {
        "loss": dl.losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "progress": False,
    }
    return dl.fit(dl.Dense(2), data, epochs=2, batch_size=5, **options)


@pytest.mark.slow
def test_a_run_on_arrays_of_the_other_byte_order_is_that_on_the_machines() -> None:
    model, weights = dl.Dense(2), np.linspace(0.5, 1, 12)
    run = trained(X, Y, weights)
    other = trained(X.astype(">f8"), Y.astype(">i8"), weights.astype(">f4"))
    jax.tree.map(np.testing.assert_array_equal, run.params, other.params)
    stream = [
        (X[:6].astype(">f4"), Y[:6].astype(">i2")),
        (X[6:].astype(">f4"), Y[6:].astype(">i2")),
    ]
    plain = [(X[:6], Y[:6].astype(np.int16)), (X[6:], Y[6:].astype(np.int16))]
    options: dict[str, Any] = {
        "loss": dl.losses.softmax_cross_entropy,
        "optimizer": optax.sgd(0.1),
        "progress": False,
    }
    jax.tree.map(
        np.testing.assert_array_equal,
        dl.fit(model, stream, **options).params,
        dl.fit(model, plain, **options).params,
    )

    params = jax.tree.map(lambda leaf: np.asarray(leaf).astype(">f4"), run.params)
    expected = dl.predict(model, run.params, run.state, X)
    np.testing.assert_array_equal(
        dl.predict(model, params, run.state, X.astype(">f8")), expected
    )
    np.testing.assert_array_equal(
        model.apply(run.params, {}, X.astype(">f4"))[0], model.apply(run.params, {}, X)[0]
    )
    loss = dl.losses.softmax_cross_entropy
    assert dl.evaluate(
        model, params, {}, (X.astype(">f4"), Y.astype(">i4")), loss=loss
    ) == dl.evaluate(model, run.params, {}, (X, Y), loss=loss)
    drawn = [model.init(jax.random.key(0), x)[0] for x in (X, X.astype(">f4"))]
    jax.tree.map(np.testing.assert_array_equal, *drawn)
    on = [
        dl.fit(model, (X, Y), initial=(start, {}), **options).params
        for start in (run.params, params)
    ]
    jax.tree.map(np.testing.assert_array_equal, *on)


def test_weights_of_every_kind_are_saved_or_named(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    kinds = {
        "plain": X,
        "big": X.astype(">f4"),
        "torch": torch.nn.Parameter(torch.from_numpy(X)),
        "jax": jnp.asarray(X),
    }
    dl.save(tmp_path / "w", kinds)
    for leaf in dl.load(tmp_path / "w")[0].values():
        np.testing.assert_array_equal(leaf, X)
    with pytest.raises(
        TypeError, match=r"(?s)save: params\.w is MaskedArray .* elements are masked"
    ):
        dl.save(tmp_path / "w", {"w": np.ma.masked_array(X, X > 1)})


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            ([[1.0, 2.0]] * 12, Y),
            r"data inputs: .* got a scalar — a list is read as a tree of arrays: give np\.asarray\(list\)",
        ),
        (
            (list(X), Y),
            r"data: every array needs one entry an example, got .* a list is read as a tree of arrays",
        ),
        ((X, [[1], [0]]), r"data targets: .* a list is read as a tree of arrays"),
        (
            [([[1.0, 2.0]] * 3, [1, 0, 1])],
            r"data: batch 1 has arrays of different lengths: .* — a list is read as a tree",
        ),
        ((np.ma.masked_array(X, X > 1), Y), r"data inputs: \d+ of 36 elements are masked"),
        ((X, np.ma.masked_array(Y, Y > 0)), r"data targets: \d+ of 12 elements are masked"),
        (
            (X, Y, np.ma.masked_array(X[:, 0] ** 2, Y > 0)),
            r"data weights: \d+ of 12 elements are masked",
        ),
        (
            (np.array([*X[:, 0].tolist()[:-1], True], object), Y),
            r"data inputs: .* pass array\.astype\(np\.float32\)",
        ),
        ((X[:0], Y[:0]), "data: the set is empty"),
        (
            (np.float32(1), Y),
            r"data inputs: expected arrays with one entry an example, got a scalar\.$",
        ),
        (
            (np.where(X[3, 1] == X, np.nan, X + 0j), Y),
            r"data inputs: 1 of 36 numbers are not finite, the first is .* \[3, 1\]",
        ),
    ],
)
def test_data_that_cannot_be_taken_are_named_with_their_place(data: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dl.fit(
            dl.Dense(2),
            data,
            loss=dl.losses.softmax_cross_entropy,
            optimizer=optax.sgd(0.1),
            progress=False,
        )
