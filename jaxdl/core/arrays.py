"""Conversion of arrays of any library to NumPy's, or an error with the call that converts them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl.compiling.pytree import PyTree

_CONVERSIONS = {
    "M": "dates are not numbers: take differences, (dates - dates[0]) / np.timedelta64(1, 'D')",
    "m": "divide durations by a unit, durations / np.timedelta64(1, 's')",
    "V": "its fields become columns by np.lib.recfunctions.structured_to_unstructured(array)",
}
_STRINGS = (
    "number classes from 0 (np.unique(labels, return_inverse=True)), and map strings to "
    "indices (data.Vocabulary)"
)


def as_numpy(name: str, value: Any) -> np.ndarray:
    """Converts a numeric array to NumPy's, in the native byte order, without a copy if possible.

    Takes arrays of NumPy and JAX, tensors of PyTorch (also those that require gradients, are on
    another device, or are bfloat16), and columns and frames of pandas and Polars, whose columns
    may differ in dtype.

    Args:
        name: what an error calls the array.
        value: the array.

    Raises:
        ValueError: the array is not numeric, or has elements that are masked or missing.
    """
    if np.ma.is_masked(value):
        count = np.ma.count_masked(value)
        raise ValueError(
            f"{name}: {count} of {value.size} elements are masked, and an array has no gaps — fill "
            f"them, array.filled(0), or "
            "leave such examples out, or out of the loss by a weight of 0."
        )
    library = type(value).__module__.partition(".")[0]
    if library not in ("pandas", "polars"):
        array = _from_array(name, value, library)
    elif hasattr(value, "columns"):
        array = _from_frame(name, value)
    else:
        array = _from_column(name, value)
    if not is_numeric(array.dtype):
        raise ValueError(f"{name}: expected arrays of numbers, got {_describe_content(array)}.")
    return _native(array)


def _native(array: np.ndarray) -> np.ndarray:
    """The array in at most 64 bits an element (128 if complex), in the native byte order."""
    narrower = {"g": np.float64, "G": np.complex128}.get(array.dtype.char)
    if narrower is not None:
        array = array.astype(narrower)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_numeric(dtype: np.dtype) -> bool:
    """Whether a dtype is numeric or Boolean."""
    if dtype == np.bool_:
        return True
    return dtype.names is None and dtype.kind != "m" and jnp.issubdtype(dtype, np.number)


def _describe_content(array: np.ndarray) -> str:
    """The content of an array that is not numeric, and the call that converts it."""
    kind = "V" if array.dtype.names else array.dtype.kind
    if kind != "O":
        return f"{array.dtype} — {_CONVERSIONS.get(kind, _STRINGS)}"
    first = next(iter(array.flat), None)
    if first is None or isinstance(first, str):
        return f"object — {_STRINGS}"
    if isinstance(first, (bool, int, float, np.generic)):
        return (
            "object, whose elements may be anything — if they are numbers, pass "
            "array.astype(np.float32)"
        )
    if hasattr(first, "toarray"):
        return (
            f"{type(first).__name__} — convert a sparse matrix to a dense one: matrix.toarray()"
        )
    if hasattr(first, "__len__"):
        return (
            f"object, whose elements are {type(first).__name__} — if they are arrays of one shape, "
            f"pass np.stack(list(array)), "
            "and if they differ in length, data.pad"
        )
    return f"object, whose elements are {type(first).__name__} — {_STRINGS}"


def _from_array(name: str, value: Any, library: str) -> np.ndarray:
    try:
        return _from_tensor(value) if library == "torch" else np.asarray(value)
    except Exception as error:
        raise ValueError(
            f"{name}: {type(value).__name__} cannot be made an array of NumPy: {error}"
        ) from error


def _from_tensor(tensor: Any) -> np.ndarray:
    """A tensor of PyTorch."""
    tensor = tensor.detach().cpu()
    name = str(tensor.dtype).removeprefix("torch.")
    # NumPy has these dtypes only through JAX.
    if name == "bfloat16" or name.startswith("float8"):
        return np.asarray(tensor.float()).astype(jnp.dtype(name))
    if tensor.is_complex():
        tensor = tensor.resolve_conj().resolve_neg()
    return np.asarray(tensor)


def _from_frame(name: str, frame: Any) -> np.ndarray:
    """The columns of a frame side by side, in the dtype that NumPy promotes them to."""
    if hasattr(frame, "items"):
        columns = list(frame.items())
    else:
        columns = [(column.name, column) for column in frame.get_columns()]
    if not columns:
        return np.zeros((len(frame), 0), np.float32)
    arrays = [as_numpy(f"{name}: column {label!r}", column) for label, column in columns]
    return np.stack(arrays, axis=1)


def _from_column(name: str, column: Any) -> np.ndarray:
    """A column of pandas or Polars; NaN in a column of a NumPy dtype is left to a later check."""
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    missing = _missing_count(column)
    if missing:
        raise ValueError(
            f"{name}: {missing} of {len(column)} values are missing — fill them in, as in "
            f"frame.fillna(0), or leave such rows "
            "out, frame.dropna()."
        )
    if type(dtype).__name__ == "CategoricalDtype":
        raise ValueError(
            f"{name}: it is categorical — pass the codes of its categories, "
            f"frame[column].cat.codes."
        )
    numpy_dtype = getattr(dtype, "numpy_dtype", None)
    return np.asarray(column) if numpy_dtype is None else column.to_numpy(dtype=numpy_dtype)


def _missing_count(column: Any) -> int:
    if hasattr(column, "null_count"):
        return int(column.null_count())
    return int(np.sum(column.isna()))


def host_array(value: object, name: str = "data") -> np.ndarray:
    """`as_numpy` in the dtype that JAX has on the device: float64 becomes float32, unless x64 is
    enabled.

    Args:
        value: the array.
        name: what an error calls it.

    Raises:
        ValueError: as in `as_numpy`; or an integer does not fit the dtype.
    """
    array = as_numpy(name, value)
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.size and array.dtype != dtype and np.issubdtype(dtype, np.integer):
        _check_range(name, array, dtype)
    # What overflows is infinite, which a later check reports with its index.
    with np.errstate(over="ignore"):
        return array.astype(dtype, copy=False)


def _check_range(name: str, array: np.ndarray, dtype: np.dtype) -> None:
    bounds = np.iinfo(dtype)
    for value in (int(array.min()), int(array.max())):
        if not bounds.min <= value <= bounds.max:
            raise ValueError(
                f"{name}: {value} does not fit {dtype}, which {array.dtype} becomes on the device "
                f"— use smaller numbers, or "
                "call jax.config.update('jax_enable_x64', True)."
            )


def host_arrays(name: str, tree: PyTree) -> PyTree:
    """A tree of arrays of examples, each converted by `host_array`, and float16 to float32.

    Layers compute in the dtype of their inputs, and in float16 gradients underflow unless the loss
    is scaled, as it is with `precision="float16"`.
    """

    def convert(leaf: object) -> np.ndarray:
        array = host_array(leaf, name)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    return jax.tree.map(convert, tree)


def convert_foreign(name: str, tree: PyTree) -> PyTree:
    """A tree with arrays of other libraries converted by `host_array`, and other leaves as they
    are.
    """

    def convert(leaf: object) -> object:
        return host_array(leaf, name) if is_foreign(leaf) else leaf

    return jax.tree.map(convert, tree)


def is_foreign(leaf: object) -> bool:
    """Whether a leaf is an array of another library than JAX."""
    return hasattr(leaf, "__array__") and not isinstance(leaf, jax.Array)
