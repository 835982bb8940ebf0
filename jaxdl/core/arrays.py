"""From an array of whatever library to one of NumPy's, or a sentence with the call that makes
one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_NO_NUMBERS = {
    "M": "dates are no numbers: take differences, (dates - dates[0]) / np.timedelta64(1, 'D')",
    "m": "divide durations by a unit, durations / np.timedelta64(1, 's')",
    "V": "its fields become columns by np.lib.recfunctions.structured_to_unstructured(array)",
}
_STRINGS = (
    "number classes from 0 (np.unique(labels, return_inverse=True)), and turn words into "
    "indices (data.Vocabulary)"
)


def as_numpy(name: str, value: Any) -> np.ndarray:
    """An array of numbers as NumPy's, in the byte order of the machine, without copying where that
    can be.

    NumPy's own arrays, JAX's, PyTorch's tensors (those that require gradients, lie on another
    device or are bfloat16 too), and columns and frames of pandas and Polars, whose columns may
    differ in dtype.

    Args:
        name: what an error calls it.
        value: the array.

    Raises:
        ValueError: it is no array of numbers, or has elements that are masked or missing.
    """
    if np.ma.is_masked(value):
        count = np.ma.count_masked(value)
        raise ValueError(
            f"{name}: {count} of {value.size} elements are masked, and an array has no gaps — fill "
            f"them, array.filled(0), or "
            "leave such examples out, or out of the loss by a weight of 0."
        )
    library = type(value).__module__.partition(".")[0]
    if library in ("pandas", "polars"):
        array = _frame(name, value) if hasattr(value, "columns") else _column(name, value)
    else:
        array = _plain(name, value, library)
    if not is_numeric(array.dtype):
        raise ValueError(f"{name}: expected arrays of numbers, got {_called(array)}.")
    if array.dtype.char in "gG":  # more than 64 bits a number, which no device has
        array = array.astype(np.float64 if array.dtype.char == "g" else np.complex128)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_numeric(dtype: Any) -> bool:
    """Whether a dtype is of numbers or truth values."""
    return dtype == np.bool_ or (
        dtype.names is None and dtype.kind != "m" and jnp.issubdtype(dtype, np.number)
    )


def _called(array: np.ndarray) -> str:
    """What is in an array of no numbers, and what makes one of it."""
    kind = "V" if array.dtype.names else array.dtype.kind
    if kind != "O":
        return f"{array.dtype} — {_NO_NUMBERS.get(kind, _STRINGS)}"
    first = next(iter(array.flat), None)
    if first is None or isinstance(first, str):
        return f"object — {_STRINGS}"
    if isinstance(first, (bool, int, float, np.generic)):
        return (
            "object, whose elements may be anything — if they are numbers, give "
            "array.astype(np.float32)"
        )
    if hasattr(first, "toarray"):
        return f"{type(first).__name__} — make a sparse matrix dense: matrix.toarray()"
    if hasattr(first, "__len__"):
        return (
            f"object, whose elements are {type(first).__name__} — if they are arrays of one shape, "
            f"give np.stack(list(array)), "
            "and if they differ in length, data.pad"
        )
    return f"object, whose elements are {type(first).__name__} — {_STRINGS}"


def _plain(name: str, value: Any, library: str) -> np.ndarray:
    try:
        return _tensor(value) if library == "torch" else np.asarray(value)
    except Exception as error:
        raise ValueError(
            f"{name}: {type(value).__name__} cannot be made an array of NumPy: {error}"
        ) from error


def _tensor(tensor: Any) -> np.ndarray:
    """A tensor of PyTorch's."""
    plain = tensor.detach().cpu()
    name = str(plain.dtype).removeprefix("torch.")
    if name == "bfloat16" or name.startswith("float8"):  # dtypes that NumPy has from JAX alone
        return np.asarray(plain.float()).astype(jnp.dtype(name))
    return np.asarray(plain.resolve_conj().resolve_neg() if plain.is_complex() else plain)


def _frame(name: str, frame: Any) -> np.ndarray:
    """A frame's columns side by side, in the dtype that NumPy promotes theirs to."""
    columns = (
        frame.items()
        if hasattr(frame, "items")
        else [(column.name, column) for column in frame.get_columns()]
    )
    arrays = [as_numpy(f"{name}: column {label!r}", column) for label, column in columns]
    return np.stack(arrays, axis=1) if arrays else np.zeros((len(frame), 0), np.float32)


def _column(name: str, column: Any) -> np.ndarray:
    """A column of pandas' or Polars'; one of NumPy's dtypes may hold NaN, which a check of its own
    finds.
    """
    dtype = column.dtype
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    missing = (
        int(column.null_count()) if hasattr(column, "null_count") else int(np.sum(column.isna()))
    )
    if missing:
        raise ValueError(
            f"{name}: {missing} of {len(column)} values are missing — fill them in, as in "
            f"frame.fillna(0), or leave such rows "
            "out, frame.dropna()."
        )
    if type(dtype).__name__ == "CategoricalDtype":
        raise ValueError(
            f"{name}: it is categorical — give the numbers of its categories, "
            f"frame[column].cat.codes."
        )
    wanted = getattr(dtype, "numpy_dtype", None)
    return np.asarray(column) if wanted is None else column.to_numpy(dtype=wanted)


def host_array(value: Any, name: str = "data") -> np.ndarray:
    """`as_numpy` in the dtype that JAX gives it on the device: float64 is float32 there unless x64
    is enabled.

    Raises:
        ValueError: as in `as_numpy`; or whole numbers do not fit that dtype.
    """
    array = as_numpy(name, value)
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.size and array.dtype != dtype and np.issubdtype(dtype, np.integer):
        least, greatest, bounds = int(array.min()), int(array.max()), np.iinfo(dtype)
        if least < bounds.min or greatest > bounds.max:
            wrong = least if least < bounds.min else greatest
            raise ValueError(
                f"{name}: {wrong} does not fit {dtype}, which {array.dtype} becomes on the device "
                f"— give smaller numbers, or "
                "call jax.config.update('jax_enable_x64', True)."
            )
    with np.errstate(over="ignore"):  # infinite then, and refused with its place
        return array.astype(dtype, copy=False)


def host_arrays(name: str, tree: Any) -> Any:
    """A tree of arrays of examples, each as `host_array` gives it, and float16 as float32.

    Layers compute in the dtype of their inputs, and in float16 gradients vanish unless the loss is
    scaled, as it is where float16 is asked for as the `precision`.
    """

    def widened(leaf: Any) -> np.ndarray:
        array = host_array(leaf, name)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    return jax.tree.map(widened, tree)


def taken_over(name: str, tree: Any) -> Any:
    """A tree of JAX arrays, in which arrays of other libraries stand as `host_array` gives them;
    all else as it is.
    """
    return jax.tree.map(lambda leaf: host_array(leaf, name) if is_foreign(leaf) else leaf, tree)


def is_foreign(leaf: Any) -> bool:
    """Whether a leaf is an array that is not JAX's own."""
    return hasattr(leaf, "__array__") and not isinstance(leaf, jax.Array)
