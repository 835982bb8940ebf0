"""Normalisation layers. Names and defaults are Flax's, but for the momentum, which is PyTorch's;
channels are last.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax

from jaxdl import ops
from jaxdl.core.error import LayerError
from jaxdl.core.layer import Layer, OnPadded, Params, State, Stateless, refuse_padded
from jaxdl.core.mode import Eval, Mode, Train
from jaxdl.layers import arguments
from jaxdl.ops.floating import DType, widest
from jaxdl.ops.sharding import splittable


@dataclasses.dataclass(frozen=True)
class BatchNorm(Layer):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over the batch and space, one a
    channel.

    In training the moments are the batch's own (of the examples that the mode's mask counts; where
    the mode says that the batch is split over devices, of all parts), and the running ones move:
    r ← momentum · r + (1 − momentum) · moment, with the biased variance. In evaluation the running
    ones are used. Source: Ioffe and Szegedy, 2015, algorithms 1 and 2. Parameters: `scale`, `bias`
    [channels]; state: `mean`, `var` [channels].

    Args:
        momentum: of the running statistics; at 0.99, as Flax and Keras have it, they take hundreds
            of steps to come near.
        epsilon: ε, added to the variance.
        use_scale, use_bias: whether the output is scaled and shifted.
        dtype: of the output; None means the input's own. Moments are taken in at least float32.
        param_dtype: of the stored parameters and statistics.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check(self)
        if not arguments.is_traced(self.momentum) and not 0 <= self.momentum < 1:
            raise LayerError(
                "BatchNorm",
                f"momentum is the share of the old statistics, in [0, 1), got {self.momentum!r}.",
            )

    def init(self, key: Array, x: Any) -> tuple[Params, State]:
        del key
        refuse_padded("BatchNorm", x)
        channels = arguments.features("BatchNorm", x)
        arguments.some_space("BatchNorm", x)
        arguments.init_floating("BatchNorm", x, self.dtype)
        params = _affine(self, channels)
        return params, {
            "mean": jnp.zeros(channels, self.param_dtype),
            "var": jnp.ones(channels, self.param_dtype),
        }

    def apply(
        self, params: Params, state: State, x: Any, mode: Mode = Eval()
    ) -> tuple[Array, State]:
        refuse_padded("BatchNorm", x)
        arguments.parameters("BatchNorm", state, mean=(None,))
        arguments.same_features("BatchNorm", x, state["mean"].shape[0], "channels")
        arguments.parameters("BatchNorm", state, var=x.shape[-1:])
        _check_affine(self, params, x)
        arguments.some_space("BatchNorm", x)
        x = arguments.floating("BatchNorm", x, self.dtype)
        if isinstance(mode, Train):
            arguments.mask_fits("BatchNorm", x, mode.mask)
            residuals, mean, variance = ops.norm.centred(
                x, tuple(range(x.ndim - 1)), mode.mask, mode.across
            )
            state = (
                self._moved(state, {"mean": mean, "var": variance}, mode) if x.shape[0] else state
            )
        else:
            mean, variance = (
                state[name].reshape((1,) * (x.ndim - 1) + (-1,)) for name in ("mean", "var")
            )
            wide = widest(x.dtype, mean.dtype)
            residuals = x.astype(wide) - mean.astype(wide)
        return _normalised(self, params, residuals, variance, x.dtype), state

    def _moved(self, state: State, moments: State, mode: Train) -> State:
        """The running statistics one step on; where the mask counts no example, there are no
        moments to move to.
        """
        moved, some = {}, None if mode.mask is None else mode.mask.any()
        if some is not None and mode.across is not None:
            some = lax.pmax(some.astype(jnp.int32), mode.across) > 0
        for name, running in state.items():
            moment = moments[name].reshape(-1).astype(running.dtype)
            new = self.momentum * running + (1 - self.momentum) * moment
            moved[name] = new if some is None else jnp.where(some, new, running)
        return moved


@dataclasses.dataclass(frozen=True)
class LayerNorm(Stateless):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over the last axis of each element (Ba
    et al., 2016).

    Parameters: `scale`, `bias` [features]. Arguments as in `BatchNorm`.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "each step"

    def __post_init__(self) -> None:
        _check(self)

    def weights(self, key: Array, x: Any) -> Params:
        del key
        arguments.init_floating("LayerNorm", x, self.dtype)
        return _affine(self, arguments.features("LayerNorm", x))

    def forward(self, params: Params, x: Array) -> Array:
        _check_affine(self, params, x)
        x = arguments.floating("LayerNorm", x, self.dtype)
        rows = ops.linear.rows(x)
        residuals, _, variance = ops.norm.centred(rows, (1,))
        return _normalised(self, params, residuals, variance, x.dtype).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class RMSNorm(Stateless):
    """y = x / √(mean(x²) + ε) · scale, over the last axis (Zhang and Sennrich, 2019, equation 4).
    Parameters: `scale`.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    padded: ClassVar[OnPadded] = "each step"

    def __post_init__(self) -> None:
        _check(self)

    def weights(self, key: Array, x: Any) -> Params:
        del key
        arguments.init_floating("RMSNorm", x, self.dtype)
        return _affine(self, arguments.features("RMSNorm", x))

    def forward(self, params: Params, x: Array) -> Array:
        _check_affine(self, params, x)
        x = arguments.floating("RMSNorm", x, self.dtype)
        rows = ops.linear.rows(x)
        wide = rows.astype(widest(x.dtype))
        return _normalised(
            self, params, wide, jnp.square(wide).mean(-1, keepdims=True), x.dtype
        ).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class GroupNorm(Stateless):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over space and a group of channels (Wu
    and He, 2018).

    Parameters: `scale`, `bias` [channels]. `groups` must divide the channels; other arguments as in
    `BatchNorm`.
    """

    groups: int = 32
    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        arguments.positive("GroupNorm", groups=self.groups)
        _check(self)

    def weights(self, key: Array, x: Any) -> Params:
        del key
        channels = arguments.features("GroupNorm", x)
        arguments.init_floating("GroupNorm", x, self.dtype)
        self._check_groups(channels)
        return _affine(self, channels)

    def forward(self, params: Params, x: Array) -> Array:
        _check_affine(self, params, x)
        self._check_groups(x.shape[-1])
        x = arguments.floating("GroupNorm", x, self.dtype)
        split = splittable(x, self.groups).reshape(*x.shape[:-1], self.groups, -1)
        residuals, _, variance = ops.norm.centred(split, (*range(1, x.ndim - 1), x.ndim))
        spread = jnp.broadcast_to(variance, (*variance.shape[:-1], split.shape[-1]))
        variance = spread.reshape(*variance.shape[:-2], x.shape[-1])
        return _normalised(self, params, residuals.reshape(x.shape), variance, x.dtype)

    def _check_groups(self, channels: int) -> None:
        if channels % self.groups:
            raise LayerError(
                "GroupNorm",
                f"{channels} channels cannot be split into {self.groups} groups of one size.",
            )


@dataclasses.dataclass(frozen=True)
class InstanceNorm(Stateless):
    """y = (x − μ) / √(σ² + ε) · scale + bias, with μ and σ² over space, one an example and channel
    (Ulyanov et al., 2016).

    Parameters: `scale`, `bias` [channels]. Arguments as in `BatchNorm`.
    """

    epsilon: float = 1e-6
    use_scale: bool = True
    use_bias: bool = True
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __post_init__(self) -> None:
        _check(self)

    def weights(self, key: Array, x: Any) -> Params:
        del key
        arguments.spatial("InstanceNorm", x)
        arguments.init_floating("InstanceNorm", x, self.dtype)
        return _affine(self, x.shape[-1])

    def forward(self, params: Params, x: Array) -> Array:
        arguments.spatial("InstanceNorm", x)
        _check_affine(self, params, x)
        x = arguments.floating("InstanceNorm", x, self.dtype)
        residuals, _, variance = ops.norm.centred(x, tuple(range(1, x.ndim - 1)))
        return _normalised(self, params, residuals, variance, x.dtype)


_Norm = BatchNorm | LayerNorm | RMSNorm | GroupNorm | InstanceNorm


def _check(norm: _Norm) -> None:
    arguments.declared(norm)
    arguments.not_negative(type(norm).__name__, epsilon=norm.epsilon)


def _affine(norm: _Norm, channels: int) -> Params:
    arguments.available(type(norm).__name__, "param_dtype", norm.param_dtype)
    params = {}
    if norm.use_scale:
        params["scale"] = jnp.ones(channels, norm.param_dtype)
    if getattr(norm, "use_bias", False):
        params["bias"] = jnp.zeros(channels, norm.param_dtype)
    return params


def _check_affine(norm: _Norm, params: Params, x: Array) -> None:
    name = type(norm).__name__
    arguments.features(name, x)
    for parameter in ("scale", "bias"):
        if getattr(norm, f"use_{parameter}", False):
            arguments.parameters(name, params, **{parameter: (None,)})
            arguments.same_features(
                name,
                x,
                params[parameter].shape[0],
                "channels" if name == "BatchNorm" else "features",
            )


def _normalised(
    norm: _Norm, params: Params, residuals: Array, variance: Array, dtype: DType
) -> Array:
    shape = (1,) * (residuals.ndim - 1) + (-1,)
    scale, bias = (
        params[name].reshape(shape) if name in params else None for name in ("scale", "bias")
    )
    return ops.norm.normalise(residuals, variance, norm.epsilon, scale, bias, dtype)
