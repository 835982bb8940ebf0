"""Normalisation layers. Names and defaults are those of Flax, but for the momentum, which is that
of PyTorch; channels are last.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, lax

from jaxdl import ops
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Layer, OnPadded, Params, State, Stateless, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.layers import arguments, inputs, parameters
from jaxdl.ops.floating import DType, widest
from jaxdl.ops.sharding import gather_unless_divisible


@dataclasses.dataclass(frozen=True)
class BatchNorm(Layer):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over the batch and space, one for each
    channel: [batch, ..., channels] to the same.

    In training the moments are those of the batch (of the examples that the mode's mask counts; of
    all shards, if the mode names the axis that the batch is sharded along), and the running moments
    are updated: r ← momentum · r + (1 − momentum) · moment, with the biased variance. In evaluation
    the running moments are used. Source: Ioffe and Szegedy, 2015, algorithms 1 and 2.

    Parameters: `scale`, `bias` [channels]. State: `mean`, `var` [channels].

    Args:
        momentum: of the running moments, in [0, 1); at 0.99, as in Flax and Keras, they take
            hundreds of steps to converge.
        epsilon: ε, added to the variance.
        use_scale, use_bias: whether the output is scaled and shifted.
        dtype: of the output; None is the input's own. Moments are taken in at least float32.
        param_dtype: of the stored parameters and moments.

    Raises:
        LayerError: an argument is invalid, an input has another number of channels than at init,
            no elements, or is `Padded`, or the mode's mask does not fit it.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check_arguments(self)
        if not arguments.is_traced(self.momentum) and not 0 <= self.momentum < 1:
            raise LayerError(
                "BatchNorm",
                f"momentum is the share of the old statistics, in [0, 1), got {self.momentum!r}.",
            )

    def init(self, key: Array, x: PyTree) -> tuple[Params, State]:
        del key
        refuse_padded("BatchNorm", x)
        channels = inputs.features("BatchNorm", x)
        inputs.check_non_empty("BatchNorm", x)
        inputs.check_floating("BatchNorm", x, self.dtype)
        params = _affine(self, channels)
        mean = jnp.zeros(channels, self.param_dtype)
        variance = jnp.ones(channels, self.param_dtype)
        return params, {"mean": mean, "var": variance}

    def apply(
        self, params: Params, state: State, x: PyTree, mode: Mode = Eval()
    ) -> tuple[Array, State]:
        refuse_padded("BatchNorm", x)
        parameters.check_shapes("BatchNorm", state, mean=(None,))
        inputs.check_features("BatchNorm", x, state["mean"].shape[0], "channels")
        parameters.check_shapes("BatchNorm", state, var=x.shape[-1:])
        _check_affine(self, params, x)
        inputs.check_non_empty("BatchNorm", x)
        x = inputs.as_computed("BatchNorm", x, self.dtype)
        if isinstance(mode, Train):
            residuals, variance, state = self._centre_by_batch(state, x, mode)
        else:
            residuals, variance = _centre_by_state(state, x)
        return _normalise(self, params, residuals, variance, x.dtype), state

    def _centre_by_batch(
        self, state: State, x: Array, mode: Train
    ) -> tuple[Array, Array, State]:
        """x − μ and σ² of the batch, and the running moments after it."""
        inputs.check_mask("BatchNorm", x, mode.mask)
        axes = tuple(range(x.ndim - 1))
        residuals, mean, variance = ops.norm.centred(x, axes, mode.mask, mode.across)
        if x.shape[0]:
            state = self._update(state, {"mean": mean, "var": variance}, mode)
        return residuals, variance, state

    def _update(self, state: State, moments: State, mode: Train) -> State:
        """The running moments after a step; unchanged if the mask counts no example."""
        has_examples = None if mode.mask is None else mode.mask.any()
        if has_examples is not None and mode.across is not None:
            has_examples = lax.pmax(has_examples.astype(jnp.int32), mode.across) > 0
        updated = {}
        for name, running in state.items():
            moment = moments[name].reshape(-1).astype(running.dtype)
            new = self.momentum * running + (1 - self.momentum) * moment
            updated[name] = (
                new if has_examples is None else jnp.where(has_examples, new, running)
            )
        return updated


def _centre_by_state(state: State, x: Array) -> tuple[Array, Array]:
    """x − μ and σ², with the running moments."""
    shape = (1,) * (x.ndim - 1) + (-1,)
    mean = state["mean"].reshape(shape)
    variance = state["var"].reshape(shape)
    wide = widest(x.dtype, mean.dtype)
    return x.astype(wide) - mean.astype(wide), variance


@dataclasses.dataclass(frozen=True)
class LayerNorm(Stateless):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over the last axis of each element:
    [batch, ..., features] to the same (Ba et al., 2016).

    Parameters: `scale`, `bias` [features].

    Args:
        epsilon, use_scale, use_bias, dtype, param_dtype: as in `BatchNorm`.

    Raises:
        LayerError: an argument is invalid, or an input has another number of features than at init.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "pointwise"

    def __post_init__(self) -> None:
        _check_arguments(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        del key
        inputs.check_floating("LayerNorm", x, self.dtype)
        return _affine(self, inputs.features("LayerNorm", x))

    def forward(self, params: Params, x: Array) -> Array:
        x = _computed(self, params, x)
        residuals, _, variance = ops.norm.centred(ops.linear.rows(x), (1,))
        return _normalise(self, params, residuals, variance, x.dtype).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class RMSNorm(Stateless):
    """y = x / √(mean(x²) + ε) · scale, over the last axis: [batch, ..., features] to the same
    (Zhang and Sennrich, 2019, equation 4).

    Parameters: `scale` [features].

    Args:
        epsilon, use_scale, dtype, param_dtype: as in `BatchNorm`.

    Raises:
        LayerError: as in `LayerNorm`.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "pointwise"

    def __post_init__(self) -> None:
        _check_arguments(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        del key
        inputs.check_floating("RMSNorm", x, self.dtype)
        return _affine(self, inputs.features("RMSNorm", x))

    def forward(self, params: Params, x: Array) -> Array:
        x = _computed(self, params, x)
        wide = ops.linear.rows(x).astype(widest(x.dtype))
        mean_square = jnp.square(wide).mean(-1, keepdims=True)
        return _normalise(self, params, wide, mean_square, x.dtype).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class GroupNorm(Stateless):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over space and a group of channels:
    [batch, ..., channels] to the same (Wu and He, 2018).

    Parameters: `scale`, `bias` [channels].

    Args:
        groups: the number of groups, which divides the channels.
        epsilon, use_scale, use_bias, dtype, param_dtype: as in `BatchNorm`.

    Raises:
        LayerError: as in `LayerNorm`, or the groups do not divide the channels.
    """

    groups: int = 32
    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        arguments.check_positive("GroupNorm", groups=self.groups)
        _check_arguments(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        del key
        channels = inputs.features("GroupNorm", x)
        inputs.check_floating("GroupNorm", x, self.dtype)
        self._check_groups(channels)
        return _affine(self, channels)

    def forward(self, params: Params, x: Array) -> Array:
        _check_affine(self, params, x)
        self._check_groups(x.shape[-1])
        x = inputs.as_computed("GroupNorm", x, self.dtype)
        split = gather_unless_divisible(x, self.groups).reshape(*x.shape[:-1], self.groups, -1)
        residuals, _, variance = ops.norm.centred(split, (*range(1, x.ndim - 1), x.ndim))
        # One variance for each channel of a group.
        spread = jnp.broadcast_to(variance, (*variance.shape[:-1], split.shape[-1]))
        variance = spread.reshape(*variance.shape[:-2], x.shape[-1])
        return _normalise(self, params, residuals.reshape(x.shape), variance, x.dtype)

    def _check_groups(self, channels: int) -> None:
        if channels % self.groups:
            raise LayerError(
                "GroupNorm",
                f"{channels} channels cannot be split into {self.groups} groups of one size.",
            )


@dataclasses.dataclass(frozen=True)
class InstanceNorm(Stateless):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over space, one for each example and
    channel: [batch, *space, channels] to the same (Ulyanov et al., 2016).

    Parameters: `scale`, `bias` [channels].

    Args:
        epsilon, use_scale, use_bias, dtype, param_dtype: as in `BatchNorm`.

    Raises:
        LayerError: as in `LayerNorm`, or an input has no spatial dimension.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check_arguments(self)

    def weights(self, key: Array, x: PyTree) -> Params:
        del key
        inputs.check_spatial("InstanceNorm", x)
        inputs.check_floating("InstanceNorm", x, self.dtype)
        return _affine(self, x.shape[-1])

    def forward(self, params: Params, x: Array) -> Array:
        inputs.check_spatial("InstanceNorm", x)
        x = _computed(self, params, x)
        residuals, _, variance = ops.norm.centred(x, tuple(range(1, x.ndim - 1)))
        return _normalise(self, params, residuals, variance, x.dtype)


_Norm = BatchNorm | LayerNorm | RMSNorm | GroupNorm | InstanceNorm


def _check_arguments(norm: _Norm) -> None:
    arguments.check_fields(norm)
    arguments.check_non_negative(type(norm).__name__, epsilon=norm.epsilon)


def _affine(norm: _Norm, channels: int) -> Params:
    """The initial scale and bias."""
    arguments.check_enabled(type(norm).__name__, "param_dtype", norm.param_dtype)
    params = {}
    if norm.use_scale:
        params["scale"] = jnp.ones(channels, norm.param_dtype)
    if getattr(norm, "use_bias", False):
        params["bias"] = jnp.zeros(channels, norm.param_dtype)
    return params


def _check_affine(norm: _Norm, params: Params, x: Array) -> None:
    name = type(norm).__name__
    inputs.features(name, x)
    axis = "channels" if name == "BatchNorm" else "features"
    for parameter in ("scale", "bias"):
        if getattr(norm, f"use_{parameter}", False):
            parameters.check_shapes(name, params, **{parameter: (None,)})
            inputs.check_features(name, x, params[parameter].shape[0], axis)


def _computed(norm: _Norm, params: Params, x: Array) -> Array:
    """x in the dtype of the computation, if it fits the parameters."""
    _check_affine(norm, params, x)
    return inputs.as_computed(type(norm).__name__, x, norm.dtype)


def _normalise(
    norm: _Norm, params: Params, residuals: Array, variance: Array, dtype: DType
) -> Array:
    shape = (1,) * (residuals.ndim - 1) + (-1,)
    scale = params["scale"].reshape(shape) if "scale" in params else None
    bias = params["bias"].reshape(shape) if "bias" in params else None
    return ops.norm.normalise(residuals, variance, norm.epsilon, scale, bias, dtype)
