"""How the parameters of layers are drawn, and checked when they are used."""

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.compiling.draws import deferred
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Params
from jaxdl.layers.arguments import check_enabled
from jaxdl.layers.initializers import Initializer
from jaxdl.ops.floating import DType

MAX_ELEMENTS = 2**48
"""Of a parameter: a petabyte in float32."""

Shape = tuple[int, ...]
PartialShape = tuple[int | None, ...]
"""A shape in which None stands for any size."""


@runtime_checkable
class Affine(Protocol):
    """A layer with a kernel and a bias."""

    @property
    def use_bias(self) -> bool: ...
    @property
    def kernel_init(self) -> Initializer: ...
    @property
    def bias_init(self) -> Initializer: ...
    @property
    def param_dtype(self) -> DType: ...


def draw_affine(
    layer: Affine, key: Array, shape: Shape, kernel_init: str = "kernel_init"
) -> Params:
    """Draws `kernel`, and `bias` if the layer has one.

    Args:
        layer: its kind, initializers and dtype.
        key: a typed key.
        shape: of the kernel, whose last axis is the outputs.
        kernel_init: the name of the kernel's initializer.
    """
    kernel_key, bias_key = jax.random.split(key)
    name = type(layer).__name__
    dtype = layer.param_dtype
    initializer = getattr(layer, kernel_init)
    params = {"kernel": draw(name, kernel_init, initializer, kernel_key, shape, dtype)}
    if layer.use_bias:
        bias = draw(name, "bias_init", layer.bias_init, bias_key, shape[-1:], dtype)
        params["bias"] = bias
    return params


def draw(
    layer: str, name: str, initializer: Initializer, key: Array, shape: Shape, dtype: DType
) -> Array:
    """Draws a parameter, and checks its shape and dtype.

    Args:
        layer: its kind.
        name: of the argument that the initializer is.
        initializer: `initializer(key, shape, dtype) -> array`.
        key: a typed key.
        shape: of the parameter.
        dtype: of the parameter.

    Raises:
        LayerError: the initializer fails, or returns something else.
    """
    parameter = f"a parameter of shape {list(shape)}"
    size = math.prod(shape)
    if size > MAX_ELEMENTS:
        raise LayerError(
            layer, f"{parameter} has {size:.3g} elements, more than any device can hold."
        )
    check_enabled(layer, "param_dtype", dtype)
    later = deferred(initializer, key, shape, dtype)
    if later is not None:
        return later
    try:
        values: Any = initializer(key, shape, dtype)
    except Exception as error:
        raise LayerError(
            layer,
            f"{name} failed for {parameter} ({error}) — give one such as "
            f"dl.initializers.Normal(0.02).",
        ) from error
    if _is_parameter(values, shape, dtype):
        return jnp.asarray(values)
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        got = f"{values.dtype}{list(values.shape)}"
    else:
        got = repr(values)
    raise LayerError(
        layer,
        f"{name} gave {got} for {parameter} and dtype {jnp.dtype(dtype)} — has it been called, as "
        f"in lecun_normal()?",
    )


def _is_parameter(values: object, shape: Shape, dtype: DType) -> bool:
    if not isinstance(values, (Array, np.ndarray)):
        return False
    return values.shape == shape and values.dtype == dtype


def check_shapes(layer: str, params: Params, **expected: PartialShape | None) -> None:
    """Checks that parameters have the names and shapes that init draws.

    Args:
        layer: its kind.
        params: its parameters, or its state.
        expected: shapes by name; None for a parameter that the layer does not have.

    Raises:
        LayerError: a parameter is missing, or has another shape.
    """
    for name, shape in expected.items():
        if shape is None:
            continue
        got = np.shape(lookup(layer, params, name))
        if not _matches(got, shape):
            raise LayerError(layer, _describe_mismatch(name, shape, got))


def lookup(layer: str, params: Params, name: str) -> PyTree:
    """The parameter or part of that name.

    Raises:
        LayerError: there is none.
    """
    if isinstance(params, Mapping) and name in params:
        return params[name]
    if isinstance(params, Mapping):
        got = ", ".join(map(repr, params)) or "none"
    else:
        got = f"a {type(params).__name__}"
    raise LayerError(
        layer,
        f"expected parameters by name, among them '{name}', got {got} — init draws them as they "
        f"have to be.",
    )


def _matches(got: Shape, shape: PartialShape) -> bool:
    if len(got) != len(shape):
        return False
    return all(size in (None, length) for size, length in zip(shape, got, strict=True))


def _describe_mismatch(name: str, shape: PartialShape, got: Shape) -> str:
    """The message for a parameter of another shape, with the likely reason."""
    expected = ", ".join("…" if size is None else str(size) for size in shape)
    is_matrix = len(got) == len(shape) > 1
    is_kernel = len(got) == len(shape) > 2
    fix = "was the layer changed after init?"
    if is_matrix and _matches(got[::-1], shape):
        fix = f"it seems to be transposed, as PyTorch's are: params['{name}'].T."
    elif is_kernel and _matches((*got[2:], got[1], got[0]), shape):
        fix = (
            f"it seems to be PyTorch's, with the window last: jnp.moveaxis(params['{name}'], (1, "
            f"0), (-2, -1))."
        )
    return f"expected '{name}' of shape [{expected}], got {list(got)} — {fix}"
