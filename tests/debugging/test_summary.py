"""The summary: shapes, parameters and operations of each part, and their totals."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdl as dl
from jaxdl import models
from jaxdl.debugging.summary import Row, Summary, summary
from jaxdl.layers.wiring import Wiring


def shape(*sizes: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)


def by_path(whole: Summary) -> dict[str, Row]:
    return {row.path: row for row in whole.rows}


def test_dense_multiplies_and_adds_once_for_each_weight_and_then_the_bias() -> None:
    whole = summary(dl.Dense(10), shape(64, 30), show=False)
    assert whole.rows == (
        Row(
            "dense",
            "Dense",
            (64, 10),
            parameters=310,
            state=0,
            flops=2 * 64 * 30 * 10 + 64 * 10,
            bytes=1240,
        ),
    )
    assert (whole.parameters, whole.bytes, whole.flops) == (310, 1240, 39040)


def test_a_convolution_counts_its_patches_times_its_kernel() -> None:
    whole = summary(dl.Conv(8, 3, padding="VALID"), shape(4, 10, 12, 5), show=False)
    outputs = 4 * 8 * 10 * 8
    assert whole.flops == 2 * outputs * (3 * 3 * 5) + outputs
    assert whole.rows[0].output == (4, 8, 10, 8)


@pytest.mark.slow
def test_rows_follow_the_data_and_name_their_place() -> None:
    block = dl.Residual(dl.Sequential(dl.Conv(4, 3), dl.BatchNorm(), jax.nn.relu))
    model = dl.Sequential(dl.Conv(4, 3), block, flat=dl.Flatten(), out=dl.Dense(2))
    whole = summary(model, shape(2, 6, 6, 1, dtype=jnp.uint8), show=False)
    assert [(row.path, row.kind, row.output) for row in whole.rows] == [
        ("conv_0", "Conv", (2, 6, 6, 4)),
        ("residual_0", "Residual", (2, 6, 6, 4)),
        ("residual_0.body", "Sequential", (2, 6, 6, 4)),
        ("residual_0.body.conv_0", "Conv", (2, 6, 6, 4)),
        ("residual_0.body.batch_norm_0", "BatchNorm", (2, 6, 6, 4)),
        ("residual_0.body.relu_0", "relu", (2, 6, 6, 4)),
        ("flat", "Flatten", (2, 144)),
        ("out", "Dense", (2, 2)),
    ]
    params, state = model.init(jax.random.key(0), jnp.zeros((2, 6, 6, 1)))
    assert whole.parameters == dl.tree.parameter_count(params)
    assert whole.state == dl.tree.parameter_count(state) == 8
    assert whole.bytes == dl.tree.byte_count((params, state))


def test_a_part_made_of_parts_holds_their_sum_and_the_mathematics_between_them() -> None:
    model = dl.Sequential(
        block=dl.Residual(dl.Sequential(dl.Dense(5), jax.nn.relu)), out=dl.Dense(3)
    )
    rows = by_path(summary(model, shape(7, 5), show=False))
    inner, outer = rows["block.body"], rows["block"]
    assert (inner.parts, outer.parts, rows["out"].parts) == (2, 3, 0)
    assert inner.flops == (2 * 7 * 5 * 5 + 7 * 5) + 7 * 5
    assert inner.flops is not None
    assert outer.flops == inner.flops + 7 * 5  # the sum x + f(x)


def test_totals_are_those_of_the_leaves_and_of_the_whole_program() -> None:
    model = models.cnn(4, 8, head=(16, 3))
    whole = summary(model, shape(2, 8, 8, 1), show=False)
    leaves = [row for row in whole.rows if not row.parts]
    assert whole.parameters == sum(row.parameters for row in leaves)
    assert whole.flops == sum(row.flops or 0 for row in leaves)
    params, state = jax.eval_shape(
        lambda key: model.init(key, shape(2, 8, 8, 1)), jax.random.key(0)
    )
    costs = (
        jax.jit(lambda p, s, x: model.apply(p, s, x)[0])
        .lower(params, state, shape(2, 8, 8, 1))
        .cost_analysis()
    )
    assert costs is not None
    assert whole.flops == costs["flops"]


def test_tied_parameters_count_once() -> None:
    model = dl.Sequential(
        embed=dl.Embedding(100, 16),
        body=dl.Sequential(dl.Dense(16)),
        again=dl.Tied("body"),
        logits=dl.Tied("embed", lambda params, x: x @ params["embedding"].T),
    )
    whole = summary(model, shape(4, 6, dtype=jnp.int32), show=False)
    rows = by_path(whole)
    assert whole.parameters == 1600 + 272
    assert (
        rows["again"].parameters,
        rows["again.dense_0"].parameters,
        rows["logits"].parameters,
    ) == (0, 0, 0)
    assert rows["again"].flops == rows["body"].flops
    assert (rows["logits"].kind, rows["logits"].output) == ("Tied('embed')", (4, 6, 100))


def test_frozen_parameters_are_state() -> None:
    (row,) = summary(dl.Frozen(dl.Dense(3)), shape(4, 6), show=False).rows
    assert (row.parameters, row.state, row.bytes) == (0, 21, 84)


def test_an_array_and_its_shape_give_the_same() -> None:
    model = dl.Sequential(dl.Dense(3), jnp.tanh)
    from_array, from_shape = (
        summary(model, x, show=False) for x in (np.ones((4, 6), np.float32), shape(4, 6))
    )
    assert from_array == from_shape
    assert hash(from_array) == hash(from_shape)


def test_nothing_is_allocated() -> None:
    whole = summary(
        dl.Sequential(dl.Dense(10**7), dl.Dense(10**7)), shape(10**6, 10**7), show=False
    )
    assert whole.bytes == 4 * 2 * (10**14 + 10**7)


def test_an_input_or_output_may_be_a_tree_of_arrays() -> None:
    @dataclasses.dataclass(frozen=True)
    class Split(dl.Composite):
        def wire(self, wiring: Wiring, x: Any) -> Any:
            left = wiring.part("left", dl.Dense(2), x["a"])
            return {"left": left, "right": wiring.math(jnp.sin, x["b"])}

    whole = summary(dl.Sequential(split=Split()), {"a": shape(3, 4), "b": shape(3)}, show=False)
    assert by_path(whole)["split"].output == {"left": (3, 2), "right": (3,)}
    assert "'left': '3×2'" in str(list(whole.table().columns[2].cells))


def test_a_plain_function_is_a_model() -> None:
    (row,) = summary(jax.nn.relu, shape(4, 6), show=False).rows
    assert (row.path, row.kind, row.flops) == ("relu", "relu", 24)


def test_it_prints_a_table_and_reads_as_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    whole = summary(
        dl.Sequential(dl.Dense(1000), jax.nn.relu, dl.Sequential(dl.Dense(10))), shape(64, 784)
    )
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    assert lines[0] == ["layer", "kind", "output", "parameters", "FLOPs", "bytes"]
    assert ["dense_0", "Dense", "64×1000", "785,000", "100", "M", "3.14", "M"] in lines
    assert ["relu_0", "relu", "64×1000", "–", "64.0", "k", "–"] in lines
    assert any(line.startswith("   dense_0 ") for line in printed.splitlines()), (
        "parts of parts are indented"
    )
    assert lines[-1] == ["total", "795,010", "102", "M", "3.18", "M"]
    assert (
        repr(whole)
        == "Summary(3 layers, 795,010 parameters, 3.18 MB, 102 MFLOPs for an input of 64×784)"
    )


def test_what_does_not_fit_is_said_with_its_place() -> None:
    model = dl.Sequential(dl.Flatten(), head=dl.Sequential(dl.Dense(4), dl.MaxPool(2)))
    with pytest.raises(
        dl.LayerError, match=r"MaxPool at 'head.max_pool_0': .* at least one spatial dimension"
    ):
        summary(model, shape(2, 8, 8, 1))
