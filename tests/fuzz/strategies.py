"""Values, arrays and layers, good and absurd."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import jaxdl as dl
from jaxdl import activations

init = jax.nn.initializers
ABSURD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        3,
        2.0,
        1.5,
        -0.5,
        float("nan"),
        float("inf"),
        float("-inf"),
        1j,
    ),
    *(10**9, 10**12, 2**31, 2**63, -(2**63), 10**30, 1e308, 1e-320),
    *(
        "3",
        "",
        "SAME",
        "same",
        "add",
        "float32",
        "int8",
        b"x",
        object(),
        object,
        dict,
        Ellipsis,
        range(2),
        slice(2),
    ),
    *(
        (),
        (1,),
        (2, 2),
        (1, 2, 3, 4, 5),
        (0, 1),
        (-1,),
        ((1, 1),),
        ((1, 2), (3,)),
        ((-5, 1),),
        ("a", "b"),
        (1.5, 2),
        (None,),
    ),
    *([], [2], [2, 2], {}, {"a": 1}, {1, 2}, {0: 1.0, 1: 2.0}),
    *(
        np.int64(2),
        np.float32(0.5),
        np.bool_(True),
        np.array(2),
        np.ones(2, np.float32),
        np.zeros((0,)),
        np.array(["a"]),
    ),
    *(
        jnp.float32,
        jnp.int32,
        np.dtype("float16"),
        jnp.bfloat16,
        jnp.arange(2, dtype=jnp.int32),
        jnp.asarray(0.5),
    ),
    *(
        lambda: None,
        lambda x: x,
        lambda *_: None,
        lambda *_: 3.0,
        lambda *_: jnp.ones(3),
        len,
        print,
        int,
    ),
    *(
        jax.nn.relu,
        np.tanh,
        init.lecun_normal,
        init.lecun_normal(),
        dl.Dense,
        dl.Dense(2),
        dl.BatchNorm(),
        dl.LSTM(2),
    ),
)
"""What no argument, or some other argument, should be."""
absurd = st.sampled_from(ABSURD)

COUNT = st.integers(1, 6)
RATE = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0, 0.999999])
FLAG = st.booleans()
SIZES = st.integers(1, 3) | st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
PADS = st.sampled_from(["SAME", "VALID"]) | st.lists(
    st.tuples(st.integers(0, 2), st.integers(-1, 2)), max_size=3
).map(tuple)
INIT = st.sampled_from(
    [
        init.zeros,
        init.ones,
        init.normal(0.1),
        init.lecun_normal(),
        init.glorot_uniform(),
        init.orthogonal(),
    ]
)
BIAS_INIT = st.sampled_from([init.zeros, init.ones, init.normal(0.1)])
DTYPE = st.sampled_from([None, jnp.float32, jnp.bfloat16, "float16", np.dtype("float32")])
PARAM_DTYPE = st.sampled_from([jnp.float32, jnp.bfloat16, "float16"])
METHOD = st.sampled_from(["nearest", "linear", "cubic", "cubic-pytorch"])
EPSILON = st.sampled_from([1e-6, 1e-3, 1, 0.0])
ACTIVATION = st.sampled_from([jnp.tanh, activations.relu, activations.gelu, jax.nn.silu])

_dense = {
    "use_bias": FLAG,
    "kernel_init": INIT,
    "bias_init": BIAS_INIT,
    "dtype": DTYPE,
    "param_dtype": PARAM_DTYPE,
}
_norm = {
    "epsilon": EPSILON,
    "use_scale": FLAG,
    "use_bias": FLAG,
    "dtype": DTYPE,
    "param_dtype": PARAM_DTYPE,
}
_recurrent = {
    "features": COUNT,
    "sequence": FLAG,
    "backward": FLAG,
    "carry": FLAG,
    "dropout": RATE,
    "recurrent_dropout": RATE,
    "recurrent_kernel_init": INIT,
    **_dense,
}
_attention = {
    "causal": FLAG,
    "kv_heads": st.none() | COUNT,
    "rotary": FLAG | st.builds(dl.Rotary, st.none() | st.just(2), FLAG),
    "head_features": st.none() | COUNT,
    "logit_soft_cap": st.none() | st.sampled_from([1, 30.0]),
    "dropout": RATE,
    "use_bias": FLAG,
}

ARGUMENTS: Mapping[type, Mapping[str, st.SearchStrategy[Any]]] = {
    dl.Dense: {"features": COUNT, **_dense},
    dl.Embedding: {
        "count": COUNT,
        "features": COUNT,
        "embedding_init": INIT,
        "dtype": DTYPE,
        "param_dtype": PARAM_DTYPE,
    },
    dl.Conv: {
        "features": COUNT,
        "kernel_size": SIZES,
        "stride": SIZES,
        "padding": PADS,
        "dilation": SIZES,
        "groups": st.sampled_from([1, 1, 2, 3]),
        **_dense,
    },
    dl.ConvTranspose: {
        "features": COUNT,
        "kernel_size": SIZES,
        "stride": SIZES,
        "padding": PADS,
        "dilation": SIZES,
        "groups": st.sampled_from([1, 1, 2, 3]),
        "output_padding": st.integers(0, 1),
        **_dense,
    },
    dl.MaxPool: {
        "window": SIZES,
        "stride": st.none() | SIZES,
        "padding": PADS,
        "dilation": SIZES,
    },
    dl.AvgPool: {
        "window": SIZES,
        "stride": st.none() | SIZES,
        "padding": PADS,
        "count_padding": FLAG,
        "dilation": SIZES,
    },
    dl.AdaptiveMaxPool: {"size": SIZES},
    dl.AdaptiveAvgPool: {"size": SIZES},
    dl.GlobalMaxPool: {},
    dl.GlobalAvgPool: {},
    dl.BatchNorm: {"momentum": st.sampled_from([0.0, 0.9, 0.99]), **_norm},
    dl.LayerNorm: _norm,
    dl.RMSNorm: {name: strategy for name, strategy in _norm.items() if name != "use_bias"},
    dl.GroupNorm: {"groups": st.integers(1, 3), **_norm},
    dl.InstanceNorm: _norm,
    dl.Dropout: {"rate": RATE, "channels": FLAG},
    dl.SimpleRNN: {**_recurrent, "activation": ACTIVATION},
    dl.LSTM: {
        **_recurrent,
        "forget_bias": st.sampled_from([0.0, 1.0, 2]),
        "projection": st.none() | COUNT,
        "peepholes": FLAG,
    },
    dl.GRU: {**_recurrent, "reset_after": FLAG},
    dl.MultiHeadAttention: {
        "heads": st.integers(1, 3),
        "features": st.none() | COUNT,
        "value_features": st.none() | COUNT,
        "out_kernel_init": INIT,
        **_attention,
        **_dense,
    },
    dl.TransformerBlock: {
        "heads": st.integers(1, 3),
        "hidden": st.none() | COUNT,
        "norm": st.sampled_from(["pre", "post"]),
        **_attention,
        "activation": ACTIVATION,
        "norm_layer": st.sampled_from([dl.LayerNorm(), dl.RMSNorm()]),
        "kernel_init": INIT,
        "out_kernel_init": INIT,
    },
    dl.SinusoidalPositions: {},
    dl.LearnedPositions: {
        "max_length": st.none() | st.integers(1, 8),
        "embedding_init": BIAS_INIT,
        "dtype": DTYPE,
        "param_dtype": PARAM_DTYPE,
    },
    dl.Pad: {
        "padding": COUNT | PADS,
        "fill": st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    },
    dl.Upsample: {"scale": SIZES, "method": METHOD},
    dl.Resize: {"size": SIZES, "method": METHOD, "antialias": FLAG},
    dl.Identity: {},
    dl.Flatten: {},
    dl.Reshape: {
        "shape": st.integers(1, 12)
        | st.lists(st.sampled_from([1, 2, 3, -1]), max_size=3).map(tuple)
    },
    dl.PReLU: {
        "negative_slope": st.sampled_from([0.25, 0, -1.0]),
        "shared": FLAG,
        "param_dtype": PARAM_DTYPE,
    },
}
REQUIRED = (
    *("features", "kernel_size", "window", "rate", "count", "heads", "shape"),
    *("padding", "scale", "size"),
)


@st.composite
def arguments(
    draw: Any, good: Mapping[str, st.SearchStrategy[Any]], spoil: bool = True
) -> dict[str, Any]:
    """Some of the arguments, all good, or one or two of them absurd."""
    chosen = [name for name in good if name in REQUIRED or draw(st.integers(0, 2)) == 0]
    values = {name: draw(good[name]) for name in chosen}
    if spoil and good and draw(FLAG):
        for name in draw(st.lists(st.sampled_from(list(good)), min_size=1, max_size=2)):
            values[name] = draw(absurd)
    return values


DTYPES = (
    np.float32,
    jnp.float16,
    jnp.bfloat16,
    np.int32,
    np.bool_,
    np.uint8,
    np.float64,
    np.int64,
    np.int8,
    np.complex64,
)


@st.composite
def arrays(
    draw: Any,
    shape: st.SearchStrategy[tuple[int, ...]] | None = None,
    dtype: st.SearchStrategy[Any] | None = None,
) -> np.ndarray:
    """A NumPy array of small numbers."""
    shapes = st.lists(st.integers(0, 6), max_size=5).map(tuple) | st.lists(
        st.integers(1, 6), min_size=2, max_size=4
    ).map(tuple)
    drawn = draw(shapes if shape is None else shape)
    return filled(
        drawn,
        draw(st.sampled_from(DTYPES) if dtype is None else dtype),
        draw(st.integers(0, 3)),
    )


def filled(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Small numbers of a dtype; Booleans both ways, bytes over their range."""
    random = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind == np.bool_:
        return random.integers(0, 2, shape).astype(bool)
    if jnp.issubdtype(kind, jnp.integer):
        return random.integers(0, 256 if kind == np.uint8 else 3, shape).astype(kind)
    return np.asarray(random.normal(size=shape)).astype(kind)


INPUTS: Mapping[str, st.SearchStrategy[np.ndarray]] = {
    "vectors": arrays(
        st.tuples(st.integers(1, 5), st.integers(1, 6)),
        st.sampled_from([np.float32, np.float64, jnp.bfloat16]),
    ),
    "sequences": arrays(
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6)),
        st.sampled_from([np.float32, np.uint8, jnp.float16]),
    ),
    "images": arrays(
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
        st.sampled_from([np.float32, np.uint8, jnp.bfloat16]),
    ),
    "indices": arrays(
        st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
        st.sampled_from([np.int32, np.uint8, np.int8, np.int64]),
    ),
    "any": arrays(),
}


def inputs_of(kind: type) -> st.SearchStrategy[np.ndarray]:
    """Inputs of the kind that a layer reads, and any others."""
    if kind is dl.Embedding:
        return INPUTS["indices"] | INPUTS["any"]
    fitting = "images"
    if (
        kind in (dl.SimpleRNN, dl.LSTM, dl.GRU, dl.MultiHeadAttention, dl.TransformerBlock)
        or "Positions" in kind.__name__
    ):
        fitting = "sequences"
    if kind in (dl.Dense, dl.BatchNorm, dl.LayerNorm, dl.RMSNorm, dl.Dropout, dl.PReLU):
        fitting = "vectors"
    return (
        INPUTS[fitting]
        | INPUTS[fitting]
        | INPUTS["any"]
        | st.sampled_from(list(INPUTS)).flatmap(INPUTS.__getitem__)
    )
