"""The algorithm of a convolution on a CPU: that of XLA's library, or a product of patches."""

import os

import jax.numpy as jnp
import jaxlib.version
from jax import Array

from jaxdl.compiling.target import target
from jaxdl.ops.primitives import conv_output_shape
from jaxdl.ops.sharding import explicit_spec
from jaxdl.ops.window import Pads, Sizes

MIN_EXAMPLES = 8
"""With fewer the kernel's gradient is slow, which takes the examples as channels."""
MIN_CHANNELS = 8
"""With fewer input channels patches are small, and fast to form."""

_YNNPACK = "xla_cpu_experimental_ynn_fusion_type"
_WITHOUT_CONV = {_YNNPACK: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
_YNNPACK_IS_SLOW = (0, 10, 2) <= jaxlib.version.__version_info__ < (0, 11)
"""This XLA passes convolutions to YNNPACK, where they take twice as long as in its own library;
later ones are faster there.
"""


def _cpu_options() -> dict[str, str]:
    is_set = _YNNPACK in os.environ.get("XLA_FLAGS", "")
    return _WITHOUT_CONV if _YNNPACK_IS_SLOW and not is_set else {}


CPU_OPTIONS: dict[str, str] = _cpu_options()
"""The `compiler_options` that programs for a CPU need for a fast native convolution."""


def native_conv_is_fast() -> bool:
    """Whether XLA's convolutions are fast on a CPU in the program that is being traced, if it is
    compiled with `CPU_OPTIONS`.
    """
    return not _YNNPACK_IS_SLOW or (bool(CPU_OPTIONS) and target().program)


def use_native_conv(
    x: Array, kernel: Array, *, stride: Sizes, pads: Pads, dilation: Sizes, groups: int
) -> bool:
    """Whether XLA's library is faster than a product of patches, for a convolution and its
    gradients.

    It is not for few channels or examples, for strides and dilation (whose gradients are others),
    and windows of one position. It does not support three dimensions, other dtypes than float32,
    symbolic sizes, explicit sharding and empty outputs.
    """
    return (
        _is_supported(x, kernel, pads)
        and groups == 1
        and x.shape[0] >= MIN_EXAMPLES
        and x.shape[-1] >= MIN_CHANNELS
        and all(size == 1 for size in (*stride, *dilation))
        and any(size > 1 for size in kernel.shape[:-2])
    )


def _is_supported(x: Array, kernel: Array, pads: Pads) -> bool:
    window = kernel.shape[:-2]
    return (
        x.dtype == jnp.float32
        and explicit_spec(x) is None
        and explicit_spec(kernel) is None
        and all(isinstance(size, int) for size in x.shape)
        and all(size > 0 for size in conv_output_shape(x, kernel, pads))
        and len(window) <= 2
        and all(
            0 <= pad < size for both, size in zip(pads, window, strict=True) for pad in both
        )
    )
