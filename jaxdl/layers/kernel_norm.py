"""Layers whose kernel is normalized before it is used: by its largest singular value, or each
column by its length.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError, describe, located
from jaxdl.core.keys import fold_in_name
from jaxdl.core.layer import Cache, Layer, Params, Span, State
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.layers import arguments, parameters
from jaxdl.ops.floating import widest
from jaxdl.ops.sharding import gathered

FIRST_ITERATIONS = 15
"""The power iterations of `init`, after which the singular vectors are near."""


@dataclasses.dataclass(frozen=True)
class SpectralNorm(Layer):
    """f with the kernel W / σ(W), where σ(W) is the largest singular value of W: a layer whose
    Lipschitz constant is 1, up to its window (Miyato et al., 2018).

        v ← Wᵀ u / ‖Wᵀ u‖,  u ← W v / ‖W v‖ in training,  σ(W) = uᵀ W v,  y = f(x; W / σ(W))

    W is the kernel as a matrix, with its last axis, the features, as rows. The gradient flows
    through W and σ(W), and holds u and v constant, as in the paper. Evaluation uses the u and v
    of the last step in training, as PyTorch does (whose newer form updates u before v).

    Parameters: `body`. State: `u` [features] and `v` [the other axes], unit vectors, and `body`.

    Args:
        body: f, a layer with a parameter of that name, such as `Dense`, `Conv`, `ConvTranspose`.
        iterations: of the power method in a training step.
        parameter: the name of W, such as "embedding", or "recurrent_kernel".
        epsilon: the least length that a vector is divided by.

    Raises:
        LayerError: an argument is invalid, or the body has no such parameter.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.SpectralNorm(dl.Dense(3, use_bias=False))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> y, state = layer.apply(params, state, jnp.ones((1, 4)), dl.Train(jax.random.key(1)))
    >>> bool(jnp.linalg.norm(y) <= 2.001)
    True
    """

    body: Layer
    iterations: int = 1
    parameter: str = "kernel"
    epsilon: float = 1e-12
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_arguments(self)
        arguments.check_positive("SpectralNorm", iterations=self.iterations)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        with located("body"):
            params, state = self.body.init(fold_in_name(key, "body"), x)
        kernel = _matrix("SpectralNorm", params, self.parameter)
        u = jax.random.normal(fold_in_name(key, "u"), kernel.shape[:1], kernel.dtype)
        v = jnp.zeros(kernel.shape[1:], kernel.dtype)
        u, v = _power_iterations(kernel, u, v, FIRST_ITERATIONS, self.epsilon)
        dtype = params[self.parameter].dtype
        own = {"u": u.astype(dtype), "v": v.astype(dtype)}
        return {"body": params}, _with_body(own, state)

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        body, new = self._normalized(params, state, isinstance(mode, Train))
        with located("body"):
            y, inner = self.body.apply(body, state.get("body", {}), x, mode.for_part("body"))
        return y, _with_body(new, inner)

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        body, _ = self._normalized(params, state, False)
        return self.body.decode(body, state.get("body", {}), cache, x, span)

    def _normalized(self, params: Params, state: State, update: bool) -> tuple[Params, State]:
        """The parameters of the body with the kernel W / σ(W), and u and v."""
        body = parameters.lookup("SpectralNorm", params, "body")
        kernel = _matrix("SpectralNorm", body, self.parameter)
        rows, columns = kernel.shape
        parameters.check_shapes("SpectralNorm", state, u=(rows,), v=(columns,))
        u = state["u"].astype(kernel.dtype)
        v = state["v"].astype(kernel.dtype)
        if update:
            constant = lax.stop_gradient(kernel)
            u, v = _power_iterations(constant, u, v, self.iterations, self.epsilon)
        sigma = u @ (kernel @ v)
        weights = body[self.parameter]
        normalized = (weights.astype(kernel.dtype) / sigma).astype(weights.dtype)
        new = {"u": u.astype(state["u"].dtype), "v": v.astype(state["v"].dtype)}
        return {**body, self.parameter: normalized}, new


@dataclasses.dataclass(frozen=True)
class WeightNorm(Layer):
    """f with the kernel W = g · V / ‖V‖, whose columns, one for each feature, have a direction V
    and a length g of their own (Salimans and Kingma, 2016, equation 2).

    At init g = ‖V‖, so that f is what it is without it.

    Parameters: `body`, with V by the name of W, and `scale` g [features]. State: `body`.

    Args:
        body, parameter: as in `SpectralNorm`; the last axis of W are the features.
        epsilon: is added to ‖V‖², which may be zero.

    Raises:
        LayerError: as in `SpectralNorm`.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> layer = dl.WeightNorm(dl.Dense(3))
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, params)
    {'body': {'bias': (3,), 'kernel': (4, 3)}, 'scale': (3,)}
    """

    body: Layer
    parameter: str = "kernel"
    epsilon: float = 1e-12
    takes_bytes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_arguments(self)

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        with located("body"):
            params, state = self.body.init(fold_in_name(key, "body"), x)
        kernel = _matrix("WeightNorm", params, self.parameter)
        scale = jnp.sqrt(jnp.square(kernel).sum(1) + self.epsilon)
        scale = scale.astype(params[self.parameter].dtype)
        return {"body": params, "scale": scale}, _with_body({}, state)

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[PyTree, State]:
        body = self._normalized(params)
        with located("body"):
            y, inner = self.body.apply(body, state.get("body", {}), x, mode.for_part("body"))
        return y, _with_body({}, inner)

    def decode(
        self, params: Params, state: State, cache: Cache, x: PyTree, span: Span
    ) -> tuple[PyTree, Cache]:
        return self.body.decode(self._normalized(params), state.get("body", {}), cache, x, span)

    def _normalized(self, params: Params) -> Params:
        """The parameters of the body with the kernel g · V / ‖V‖."""
        body = parameters.lookup("WeightNorm", params, "body")
        kernel = _matrix("WeightNorm", body, self.parameter)
        parameters.check_shapes("WeightNorm", params, scale=kernel.shape[:1])
        scale = gathered(params["scale"].astype(kernel.dtype))
        lengths = jnp.sqrt(jnp.square(kernel).sum(1) + self.epsilon)
        weights = body[self.parameter]
        normalized = (kernel * (scale / lengths)[:, None]).T.reshape(weights.shape)
        return {**body, self.parameter: normalized.astype(weights.dtype)}


def _check_arguments(layer: SpectralNorm | WeightNorm) -> None:
    name = type(layer).__name__
    if not isinstance(layer.body, Layer):
        raise LayerError(name, f"body is a layer with parameters, got {describe(layer.body)}.")
    if not isinstance(layer.parameter, str):
        raise LayerError(name, f"parameter is the name of one, got {layer.parameter!r}.")
    arguments.check_fields(layer)
    arguments.check_non_negative(name, epsilon=layer.epsilon)


def _matrix(layer: str, params: Params, name: str) -> Array:
    """The parameter as a matrix [features, the other axes], in at least float32."""
    weights = params.get(name) if isinstance(params, Mapping) else None
    if weights is None or isinstance(weights, Mapping) or weights.ndim < 2:
        names = ", ".join(map(repr, params)) or "none"
        raise LayerError(
            layer,
            f"its body has no parameter {name!r} of two or more axes, got {names} — wrap the layer "
            f"that has it, or say parameter=….",
        )
    matrix = gathered(weights).reshape(-1, weights.shape[-1])
    return matrix.astype(widest(weights.dtype)).T


def _power_iterations(
    kernel: Array, u: Array, v: Array, count: int, epsilon: float
) -> tuple[Array, Array]:
    """u and v after some iterations of the power method."""
    for _ in range(count):
        v = _unit(u @ kernel, epsilon)
        u = _unit(kernel @ v, epsilon)
    return u, v


def _unit(x: Array, epsilon: float) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), epsilon)


def _with_body(own: State, body: State) -> State:
    """The state of a wrapper and of its body, which leaves no key if it has none."""
    return {**own, "body": body} if body else own
