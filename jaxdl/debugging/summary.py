"""What a model consists of: a table of its parts, their output shapes, parameters, operations and
memory.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax

from jaxdl.compiling import threefry
from jaxdl.core.error import located
from jaxdl.core.function import Function, as_layer
from jaxdl.core.layer import Layer, Params, State
from jaxdl.core.tree import byte_count, parameter_count, shapes
from jaxdl.layers.wiring import Composite, Wiring


@dataclasses.dataclass(frozen=True)
class Row:
    """One part of a model.

    Args:
        path: its name, after those of the parts that it lies in: `body.conv_0`.
        kind: its class, or the name of a plain function.
        output: the shape of what it gives, batch first; a tree of shapes where it gives several
            arrays.
        parameters: how many numbers of its own training changes; none where it uses another part's.
        state: how many numbers its state holds, such as running statistics.
        flops: floating-point operations of its forward pass in evaluation, as XLA counts them
            (exponentials and other transcendental functions apart); None where the platform does
            not count.
        bytes: the memory that parameters and state take.
        parts: how many of the rows that follow lie in it.
    """

    path: str
    kind: str
    output: Any
    parameters: int
    state: int
    flops: int | None
    bytes: int
    parts: int = 0


@dataclasses.dataclass(frozen=True, repr=False)
class Summary:
    """The parts of a model and their totals, as in `Row`.

    Args:
        input: the shape of the batch that shapes and operations are for.
        rows: a row for each part; one that is made of others stands before them and holds their
            sum.
    """

    input: Any
    rows: tuple[Row, ...]
    parameters: int
    state: int
    flops: int | None
    bytes: int

    def __repr__(self) -> str:
        flops = (
            ""
            if self.flops is None
            else f", {_scaled(self.flops)}FLOPs for an input of {_shape(self.input)}"
        )
        layers = sum(not row.parts for row in self.rows)
        return (
            f"Summary({layers} layer{'s' * (layers != 1)}, {self.parameters:,} parameters, "
            f"{_scaled(self.bytes)}B{flops})"
        )

    def table(self) -> Any:
        """The summary as a `rich.table.Table`."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
        for heading, total in (("layer", "total"), ("kind", ""), ("output", "")):
            table.add_column(heading, total, overflow="fold")
        for heading, total in _figures(self, self).items():
            table.add_column(heading, total, justify="right", no_wrap=True)
        table.add_row("", "input", _shape(self.input))
        for row in self.rows:
            *within, name = row.path.split(".")
            table.add_row(
                "  " * len(within) + name,
                row.kind,
                _shape(row.output),
                *_figures(row, self).values(),
            )
        return table


def summary(model: Layer | Callable[[Any], Any], x: Any, *, show: bool = True) -> Summary:
    """Prints a table of a model's parts; everything comes from shapes, and no array is made.

    Args:
        model: a layer, or a plain function of one array.
        x: an input, batch first, or its `jax.ShapeDtypeStruct`. FLOPs are those of that whole
            batch.
        show: whether the table is printed.

    Returns:
        The rows and their totals.

    >>> import jax, jax.numpy as jnp, jaxdl as dl
    >>> model = dl.Sequential(dl.Dense(32), jax.nn.relu, dl.Dense(10))
    >>> summary(model, jax.ShapeDtypeStruct((64, 8), jnp.float32), show=False)
    Summary(3 layers, 618 parameters, 2.47 kB, 78.5 kFLOPs for an input of 64×8)
    """
    layer, given = as_layer(model), shapes(x)
    params, state = jax.eval_shape(lambda key: layer.init(key, given), threefry.of_seed(0))
    record = _Record("", params, state)
    if isinstance(layer, Composite):
        layer.wire(record, given)
    else:
        record.params, record.state = {"": params}, {"": state}
        record.run_part("", layer, given, None)
        record.rows[0] = dataclasses.replace(record.rows[0], path=_kind(layer).lower())
    whole = Summary(
        _shapes(given),
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
    """Runs parts on shapes and writes down a row for each; `flops` adds up, and is None once
    something is not counted.
    """

    prefix: str
    params: Params
    state: State
    rows: list[Row] = dataclasses.field(default_factory=list)
    flops: int | None = 0

    def run_part(self, name: str, layer: Layer, x: Any, shares: str | None) -> Any:
        owner = shares or name
        params, state = self.params.get(owner, {}), self.state.get(owner, {})
        inner = _Record(f"{self.prefix}{name}.", params, state)
        with located(name):
            if isinstance(layer, Composite):
                y = layer.wire(inner, x)
            else:
                y = inner.run(lambda p, s, v: layer.apply(p, s, v)[0], params, state, x)
        if shares is not None:
            params, state = {}, {}
            inner.rows = [
                dataclasses.replace(row, parameters=0, state=0, bytes=0) for row in inner.rows
            ]
        held = (
            parameter_count(params),
            parameter_count(state),
            inner.flops,
            byte_count((params, state)),
        )
        kind = f"Tied({shares!r})" if shares else _kind(layer)
        self.rows += [
            Row(f"{self.prefix}{name}", kind, _shapes(y), *held, len(inner.rows)),
            *inner.rows,
        ]
        self._add(inner.flops)
        return y

    def run_math(self, function: Callable[..., Any], *xs: Any) -> Any:
        return self.run(function, *xs)

    def run(self, function: Callable[..., Any], *xs: Any) -> Any:
        """The shapes of what a function gives; its FLOPs are counted."""
        program = jax.jit(function)
        self._add(_flops(program, xs))
        return jax.eval_shape(program, *xs)

    def _add(self, flops: int | None) -> None:
        self.flops = None if self.flops is None or flops is None else self.flops + flops


def _flops(program: Any, xs: tuple[Any, ...]) -> int | None:
    """What XLA counts in the program as JAX lowers it, before fusion; compiles nothing."""
    costs = program.lower(*xs).cost_analysis()
    return None if costs is None else int(costs.get("flops", 0.0))


def _kind(layer: Layer) -> str:
    return layer.name if isinstance(layer, Function) else type(layer).__name__


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)


def _shape(shape: Any) -> str:
    if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape):
        return "×".join(map(str, shape)) or "scalar"
    return str(jax.tree.map(_shape, shape, is_leaf=lambda node: isinstance(node, tuple)))


def _figures(of: Row | Summary, whole: Summary) -> dict[str, str]:
    """The cells of a row or of the totals by heading; state is left out of a model that has
    none.
    """
    cells = {
        "parameters": f"{of.parameters:,}" if of.parameters else "–",
        "state": f"{of.state:,}" if of.state else "–",
        "FLOPs": _scaled(of.flops) if of.flops else "–",
        "bytes": _scaled(of.bytes) if of.bytes else "–",
    }
    return {heading: cell for heading, cell in cells.items() if heading != "state" or whole.state}


def _scaled(value: int) -> str:
    """Three digits and a prefix of the SI, with a space for the unit: `2.47 k`."""
    if value < 1000:
        return f"{value:.0f} "
    power = min(int(math.log10(value * 1.0005) // 3), 4)
    return f"{value / 1000**power:#.3g}".rstrip(".") + f" {' kMGT'[power]}"
