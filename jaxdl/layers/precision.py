"""Mixed precision: a model that computes in a narrow dtype, while parameters and state keep
theirs.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.function import as_layer
from jaxdl.core.inputs import scale_images
from jaxdl.core.layer import Cache, Layer, Parameterless, Params, Span, State
from jaxdl.core.mode import Eval, Mode
from jaxdl.layers.wiring import Composite, Wiring
from jaxdl.ops.floating import DType, widest


def in_precision(model: Layer | Callable[[Any], Any], dtype: DType | None) -> Layer:
    """The model, computed in a dtype; its parameters and state keep the dtypes they are stored in.

    Floating inputs are cast to the dtype, and so are the parameters where a layer uses them;
    gradients have the dtypes of the parameters. Normalisation takes its moments and running
    statistics in float32. Outputs are float32, so that losses and metrics are computed in it. A
    layer with a `dtype` of its own keeps it: `Dense(10, dtype="float32")` is a head in full
    precision. uint8 images are cast by the first layer that computes with them.

    `fit(..., precision="bfloat16")` applies this to its model. With another step it is applied
    explicitly: `Reconstruction(in_precision(model, "bfloat16"), ...)`. float16 has a narrow range,
    in which small gradients underflow; `fit(..., precision="float16")` scales the loss to avoid it.

    It costs accuracy: bfloat16 has a significand of 8 bits and float16 of 11, where float32 has 24.
    It is faster on hardware that multiplies matrices of that dtype faster; most CPUs do not.

    Source: Micikevicius et al., *Mixed precision training* (2018).

    Args:
        model: a layer, or a plain function of one array.
        dtype: "bfloat16", "float16", or another floating dtype.

    Returns:
        A layer with the parameters and state of the model.

    Raises:
        ValueError: the dtype is not floating, or JAX has not enabled it.

    >>> import jaxdl as dl
    >>> model = dl.in_precision(dl.Dense(3), "bfloat16")
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> params["kernel"].dtype, model.apply(params, state, jnp.ones((1, 4)))[0].dtype
    (dtype('float32'), dtype('float32'))
    """
    try:
        known = jnp.dtype(dtype) if isinstance(dtype, (str, type, jnp.dtype)) else None
    except (TypeError, ValueError):
        known = None
    if known is None or not jnp.issubdtype(known, jnp.floating):
        raise ValueError(
            f"precision: expected a floating dtype such as 'bfloat16' or 'float16', got {dtype!r}."
        )
    if jax.dtypes.canonicalize_dtype(known) != known:
        raise ValueError(
            f"precision: {known} is not enabled in JAX — call jax.config.update('jax_enable_x64', "
            f"True)."
        )
    return _InPrecision(as_layer(model), known.name)


@dataclasses.dataclass(frozen=True)
class _InPrecision(Layer):
    """A model that computes in a dtype, as `in_precision` returns it."""

    body: Layer
    dtype: str
    takes_bytes: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"in_precision({self.body!r}, {self.dtype!r})"

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        return self.body.init(key, x)

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        layer = _narrowed(self.body, self.dtype)
        y, state = layer.apply(params, state, _cast(x, self.dtype), mode)
        return _widened(y), state

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        layer = _narrowed(self.body, self.dtype)
        y, cache = layer.decode(params, state, cache, _cast(x, self.dtype), span)
        return _widened(y), cache


def _narrowed(layer: Layer, dtype: str) -> Layer:
    """The layer that computes in a dtype with the same parameters.

    It is applied to the parts of a composite, and to the layers that another one has, such as
    `Map`; a layer with an argument `dtype` gets it, unless it has one already. For any other layer
    parameters and inputs are cast.
    """
    if isinstance(layer, Composite):
        return _NarrowComposite(layer, dtype)
    if isinstance(layer, (Parameterless, _InPrecision)):
        return layer
    if not dataclasses.is_dataclass(layer):
        return _Cast(layer, dtype)
    values = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    changed: dict[str, object] = {
        name: _narrowed(value, dtype)
        for name, value in values.items()
        if isinstance(value, Layer)
    }
    if "dtype" in values and values["dtype"] is None:
        changed["dtype"] = jnp.dtype(dtype)
    if not changed and "dtype" not in values:
        return _Cast(layer, dtype)
    # `dataclasses.replace` would call an __init__ that may take other arguments.
    narrowed = copy.copy(layer)
    for name, value in changed.items():
        object.__setattr__(narrowed, name, value)
    return narrowed


@dataclasses.dataclass(frozen=True)
class _NarrowComposite(Composite):
    """A composite whose parts compute in a dtype."""

    body: Composite
    dtype: str

    def wire(self, wiring: Wiring, x: PyTree) -> PyTree:
        return self.body.wire(_NarrowWiring(wiring, self.dtype), x)

    def _groups(self) -> dict[str, int]:
        return self.body._groups()


@dataclasses.dataclass(frozen=True)
class _NarrowWiring(Wiring):
    """Runs parts in a dtype."""

    wiring: Wiring
    dtype: str

    def run_part(self, name: str, layer: Layer, x: PyTree, shares: str | None) -> PyTree:
        return self.wiring.run_part(name, _narrowed(layer, self.dtype), x, shares)

    def run_math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        return self.wiring.run_math(function, *xs)


@dataclasses.dataclass(frozen=True)
class _Cast(Layer):
    """A layer that computes in the dtype of its inputs and parameters, which are cast."""

    body: Layer
    dtype: str
    takes_bytes: ClassVar[bool] = True

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        return self.body.init(key, x)

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        y, new = self.body.apply(_cast(params, self.dtype), state, self._input(x), mode)
        return y, _as_stored(new, state)

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        params = _cast(params, self.dtype)
        return self.body.decode(params, state, cache, self._input(x), span)

    def _input(self, x: PyTree) -> PyTree:
        if not self.body.takes_bytes:
            x = scale_images(x, self.dtype)
        return _cast(x, self.dtype)


def _cast(tree: PyTree, dtype: DType) -> PyTree:
    """Floating leaves in a dtype."""

    def cast(leaf: Array) -> Array:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)


def _widened(tree: PyTree) -> PyTree:
    """Floating leaves in at least float32."""

    def widen(leaf: Array) -> Array:
        is_floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(widest(leaf.dtype)) if is_floating else leaf

    return jax.tree.map(widen, tree)


def _as_stored(new: PyTree, old: PyTree) -> PyTree:
    """The next state in the dtypes that are stored; losses, which are no state, as they are."""
    if isinstance(new, dict):
        given = old if isinstance(old, dict) else {}
        return {name: _as_stored(value, given.get(name)) for name, value in new.items()}
    if old is None:
        return new
    return jax.tree.map(lambda leaf, stored: leaf.astype(stored.dtype), new, old)
