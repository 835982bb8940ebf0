"""What a model consists of: a table of its parts, with their output shapes, parameters, operations
and memory.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
from jax import Array

from jaxdl.compiling import threefry
from jaxdl.compiling.pytree import PyTree
from jaxdl.core.error import located
from jaxdl.core.function import Function, as_layer
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.tree import byte_count, parameter_count, shapes
from jaxdl.core.units import scaled
from jaxdl.layers.wiring import Composite, Wiring

if TYPE_CHECKING:
    from rich.table import Table

NONE = "–"


@dataclasses.dataclass(frozen=True)
class Row:
    """One part of a model.

    Args:
        path: its name, after those of the parts that it lies in: `body.conv_0`.
        kind: its class, or the name of a plain function.
        output: the shape of its output, batch first; a tree of shapes where it has several.
        parameters: how many trainable parameters it has; none where it uses another part's.
        state: how many elements its state has, such as running statistics.
        flops: floating-point operations of its forward pass in evaluation, as XLA counts them
            (exponentials and other transcendental functions apart); None where the platform does
            not count.
        bytes: the memory that parameters and state take.
        parts: how many of the rows that follow lie in it.
    """

    path: str
    kind: str
    output: PyTree
    parameters: int
    state: int
    flops: int | None
    bytes: int
    parts: int = 0


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """The parts of a model and their totals; `parameters`, `state`, `flops` and `bytes` as in
    `Row`.

    Args:
        input: the shape of the batch that shapes and operations are for.
        rows: a row for each part; one that is made of others precedes them and holds their sum.
        parameters: of all parts.
        state: of all parts.
        flops: of all parts.
        bytes: of all parts.
    """

    input: PyTree
    rows: tuple[Row, ...]
    parameters: int
    state: int
    flops: int | None
    bytes: int

    def __repr__(self) -> str:
        flops = ""
        if self.flops is not None:
            flops = f", {scaled(self.flops)}FLOPs for an input of {_as_text(self.input)}"
        layers = sum(not row.parts for row in self.rows)
        return (
            f"Summary({layers} layer{'s' * (layers != 1)}, {self.parameters:,} parameters, "
            f"{scaled(self.bytes)}B{flops})"
        )

    def table(self) -> "Table":
        """The summary as a `rich.table.Table`.

        Returns:
            A row for each part, and the totals as its footer.
        """
        from rich import box
        from rich.table import Table

        table = Table(
            box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0)
        )
        for heading, total in (("layer", "total"), ("kind", ""), ("output", "")):
            table.add_column(heading, total, overflow="fold")
        for heading, total in _cells(self, self).items():
            table.add_column(heading, total, justify="right", no_wrap=True)
        table.add_row("", "input", _as_text(self.input))
        for row in self.rows:
            *outer, name = row.path.split(".")
            name = "  " * len(outer) + name
            table.add_row(name, row.kind, _as_text(row.output), *_cells(row, self).values())
        return table


def summary(
    model: Layer | Callable[[Array], PyTree], x: PyTree, *, show: bool = True
) -> Summary:
    """Prints a table of a model's parts; it is computed from shapes, and no array is allocated.

    Args:
        model: a layer, or a plain function of one array.
        x: an input, batch first, or its `jax.ShapeDtypeStruct`. FLOPs are those of the whole batch.
        show: whether the table is printed.

    Returns:
        The rows and their totals.

    Raises:
        LayerError: a part does not fit its input.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = dl.Sequential(dl.Dense(32), jax.nn.relu, dl.Dense(10))
    >>> summary(model, jax.ShapeDtypeStruct((64, 8), jnp.float32), show=False)
    Summary(3 layers, 618 parameters, 2.47 kB, 78.5 kFLOPs for an input of 64×8)
    """
    layer = as_layer(model)
    given = shapes(x)
    params, state = jax.eval_shape(lambda key: layer.init(key, given), threefry.of_seed(0))
    record = _Record("", params, state)
    if isinstance(layer, Composite):
        layer.wire(record, given)
    else:
        record.params = {"": params}
        record.state = {"": state}
        record.run_part("", layer, given, None)
        record.rows[0] = dataclasses.replace(record.rows[0], path=_kind(layer).lower())
    whole = Summary(
        _sizes(given),
        tuple(record.rows),
        parameter_count(params),
        parameter_count(state),
        record.flops,
        byte_count((params, state)),
    )
    if show:
        from rich.console import Console

        Console().print(whole.table())
    return whole


@dataclasses.dataclass
class _Record(Wiring):
    """Runs parts on shapes and records a row for each; `flops` is their sum, or None once the
    operations of a part cannot be counted.
    """

    prefix: str
    params: Params
    state: State
    rows: list[Row] = dataclasses.field(default_factory=list)
    flops: int | None = 0

    def run_part(self, name: str, layer: Layer, x: PyTree, shares: str | None) -> PyTree:
        owner = shares or name
        params = self.params.get(owner, {})
        state = self.state.get(owner, {})
        inner = _Record(f"{self.prefix}{name}.", params, state)
        with located(name):
            if isinstance(layer, Composite):
                y = layer.wire(inner, x)
            else:
                y = inner.run(lambda p, s, v: layer.apply(p, s, v)[0], params, state, x)
        row = Row(
            f"{self.prefix}{name}",
            _kind(layer),
            _sizes(y),
            parameter_count(params),
            parameter_count(state),
            inner.flops,
            byte_count((params, state)),
            len(inner.rows),
        )
        rows = [row, *inner.rows]
        if shares is not None:
            rows = [dataclasses.replace(each, parameters=0, state=0, bytes=0) for each in rows]
            rows[0] = dataclasses.replace(rows[0], kind=f"Tied({shares!r})")
        self.rows += rows
        self._add(inner.flops)
        return y

    def run_math(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        return self.run(function, *xs)

    def run(self, function: Callable[..., PyTree], *xs: PyTree) -> PyTree:
        """The shapes of a function's outputs; its FLOPs are added."""
        program = jax.jit(function)
        self._add(_flops(program, xs))
        return jax.eval_shape(program, *xs)

    def _add(self, flops: int | None) -> None:
        if self.flops is None or flops is None:
            self.flops = None
        else:
            self.flops += flops


def _flops(program: jax.stages.Wrapped, xs: tuple[PyTree, ...]) -> int | None:
    """What XLA counts in the program as JAX lowers it, before fusion; nothing is compiled."""
    costs = program.lower(*xs).cost_analysis()
    return None if costs is None else int(costs.get("flops", 0.0))


def _kind(layer: Layer) -> str:
    return layer.name if isinstance(layer, Function) else type(layer).__name__


def _sizes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _as_text(shape: PyTree) -> str:
    if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
        return "×".join(map(str, shape)) or "scalar"
    return str(jax.tree.map(_as_text, shape, is_leaf=lambda node: isinstance(node, tuple)))


def _cells(of: Row | Summary, whole: Summary) -> dict[str, str]:
    """The cells of a row or of the totals by heading; without state, where the model has none."""
    cells = {"parameters": f"{of.parameters:,}" if of.parameters else NONE}
    if whole.state:
        cells["state"] = f"{of.state:,}" if of.state else NONE
    cells["FLOPs"] = scaled(of.flops) if of.flops else NONE
    cells["bytes"] = scaled(of.bytes) if of.bytes else NONE
    return cells
