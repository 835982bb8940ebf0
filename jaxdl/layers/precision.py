"""Mixed precision: a model that computes in a narrow dtype, with parameters and state stored as
they are.
"""

import copy
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.core.entry import as_intensities
from jaxdl.core.function import as_layer
from jaxdl.core.layer import Cache, Layer, Parameterless, Params, Span, State
from jaxdl.core.mode import Eval, Mode
from jaxdl.layers.wiring import Composite, Wiring
from jaxdl.ops.floating import DType, widest


def in_precision(model: Any, dtype: DType) -> Layer:
    """The model computing in a dtype: the same parameters, the same state, in the dtypes they are
    stored in.

    Floating inputs are cast to it, and so are the parameters where a layer uses them; gradients
    with respect to the parameters come in the parameters' own dtype. Normalisation takes its
    moments, and keeps its running statistics, in float32. Outputs are given in float32, so that
    losses and metrics are computed in it. A layer that was told a `dtype` keeps to it: `Dense(10,
    dtype="float32")` is a head in full precision. Images in uint8 stay so until the first layer
    that reads them.

    `fit(..., precision="bfloat16")` does this to its model. For another step do it by hand:
    `Reconstruction(in_precision(model, "bfloat16"), ...)`. float16 has a narrow range, and
    gradients that are too small for it
    vanish: `fit(..., precision="float16")` scales the loss against that.

    It costs accuracy: bfloat16 holds 8 bits of a number and float16 11, where float32 holds 24. It
    pays on hardware that multiplies matrices of that dtype faster; most CPUs are slower with it.

    Source: Micikevicius et al., *Mixed precision training* (2018).

    Args:
        model: a layer, or a plain function of one array.
        dtype: "bfloat16", "float16", or another floating dtype.

    Raises:
        ValueError: the dtype is not a floating one.

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
    """What `in_precision` gives."""

    body: Layer
    dtype: str
    takes_bytes: ClassVar[bool] = True

    def __repr__(self) -> str:
        return f"in_precision({self.body!r}, {self.dtype!r})"

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        return self.body.init(key, x)

    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        layer = _narrowed(self.body, self.dtype)
        y, state = layer.apply(params, state, _cast(x, self.dtype), mode)
        return _widened(y), state

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        layer = _narrowed(self.body, self.dtype)
        y, cache = layer.extend(params, state, cache, _cast(x, self.dtype), span)
        return _widened(y), cache


def _narrowed(layer: Layer, dtype: str) -> Layer:
    """The layer that computes in a dtype on the same parameters.

    A composite does so part by part; a layer that has parts, such as `Map`, in its parts; a layer
    with an argument `dtype` is given it, unless the caller gave one. Any other layer has its
    parameters and inputs cast.
    """
    if isinstance(layer, Composite):
        return _Wired(layer, dtype)
    if isinstance(layer, (Parameterless, _InPrecision)) or not dataclasses.is_dataclass(layer):
        return layer if isinstance(layer, (Parameterless, _InPrecision)) else _Cast(layer, dtype)
    values = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
    changed: dict[str, Any] = {
        name: _narrowed(value, dtype) for name, value in values.items() if isinstance(value, Layer)
    }
    if "dtype" in values and values["dtype"] is None:
        changed["dtype"] = jnp.dtype(dtype)
    if not changed and "dtype" not in values:
        return _Cast(layer, dtype)
    narrowed = copy.copy(
        layer
    )  # dataclasses.replace would call an __init__ that may take other arguments
    for name, value in changed.items():
        object.__setattr__(narrowed, name, value)
    return narrowed


@dataclasses.dataclass(frozen=True)
class _Wired(Composite):
    """A composite whose parts compute in a dtype."""

    body: Composite
    dtype: str

    def wire(self, wiring: Wiring, x: Any) -> Any:
        return self.body.wire(_NarrowWiring(wiring, self.dtype), x)

    def _groups(self) -> dict[str, int]:
        return self.body._groups()


@dataclasses.dataclass(frozen=True)
class _NarrowWiring(Wiring):
    wiring: Wiring
    dtype: str

    def run_part(self, name: str, layer: Layer, x: Any, shares: str | None) -> Any:
        return self.wiring.run_part(name, _narrowed(layer, self.dtype), x, shares)

    def run_math(self, function: Any, *xs: Any) -> Any:
        return self.wiring.run_math(function, *xs)


@dataclasses.dataclass(frozen=True)
class _Cast(Layer):
    """A layer that computes in the dtype of what it is given."""

    body: Layer
    dtype: str
    takes_bytes: ClassVar[bool] = True

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        return self.body.init(key, x)

    def apply(self, params: Params, state: State, x: Any, mode: Mode = Eval()) -> tuple[Any, State]:
        y, new = self.body.apply(_cast(params, self.dtype), state, self._input(x), mode)
        return y, jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), new, state)

    def extend(
        self, params: Params, state: State, cache: Cache, x: Any, span: Span
    ) -> tuple[Any, Cache]:
        return self.body.extend(_cast(params, self.dtype), state, cache, self._input(x), span)

    def _input(self, x: Any) -> Any:
        return _cast(x if self.body.takes_bytes else as_intensities(x, self.dtype), self.dtype)


def _cast(tree: Any, dtype: DType) -> Any:
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def _widened(tree: Any) -> Any:
    """Floating leaves in at least float32."""
    return jax.tree.map(
        lambda y: y.astype(widest(y.dtype)) if jnp.issubdtype(y.dtype, jnp.floating) else y, tree
    )
