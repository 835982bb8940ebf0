"""The result of `benchmarks.training` as tables: for the terminal, and in Markdown."""

from collections.abc import Callable, Iterator
from typing import Any

from rich.table import Table

HEADINGS = (
    "peer",
    "ms a step",
    "min – max",
    "× jaxdl",
    "inference, ms a batch",
    "× jaxdl",
    "peak memory, MB",
)

LEAST_SHARE = 0.05
"""Of the matrix product: where all peers have less of it, a network is bound by other things, and
its shares say nothing.
"""


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """A table for each network."""
    for name, measured in result["networks"].items():
        table = Table(*HEADINGS, title=title(name, measured))
        for column in table.columns[1:]:
            column.justify = "right"
        for peer, figures in measured["peers"].items():
            table.add_row(peer, *cells(figures))
        table.caption = " ".join(remarks(measured))
        yield table


def title(name: str, measured: dict[str, Any]) -> str:
    network = measured["network"]
    return (
        f"{name}: {network['parameters']} parameters, batch {network['batch']}, "
        f"{network['steps_a_call']} steps a call"
    )


def cells(figures: dict[str, Any]) -> tuple[str, ...]:
    return (
        *milliseconds(figures),
        *milliseconds(figures.get("inference", {}))[::2],
        f"{memory(figures) / 1e6:.0f}",
    )


def milliseconds(figures: dict[str, Any]) -> tuple[str, str, str]:
    """The median, the range, and how many times jaxdl's."""
    if "milliseconds_a_step" not in figures:
        return "–", "–", "–"
    step, ratio = figures["milliseconds_a_step"], figures.get("ratio_to_jaxdl")
    return (
        f"{step['median']:.3g}",
        f"{step['min']:.3g} – {step['max']:.3g}",
        f"{ratio['median']:.2f}" if ratio else "–",
    )


def memory(figures: dict[str, Any]) -> float:
    """Bytes on the accelerator, where there is one."""
    return figures.get("device_peak_bytes", figures["peak_bytes"])


def remarks(measured: dict[str, Any]) -> Iterator[str]:
    """What the table's columns have no place for."""
    by_hand = measured["peers"].get("jax by hand", {}).get("ratio_to_jaxdl")
    if by_hand:
        yield f"fit takes {1 / by_hand['median']:.3f} times as long as the loop by hand."
    product = measured.get("matrix_product")
    if (
        product
        and max(share["performed"] for share in product["share"].values()) >= LEAST_SHARE
    ):
        yield (
            f"The matrix product reaches {product['flops_per_second']['median'] / 1e9:.0f} GFLOP/s;"
        )
        yield f"of that: {shares(product, 'performed')}."
        if product.get("peak"):
            yield f"Of the data sheet's {product['peak'] / 1e12:.0f} TFLOP/s (MFU):"
            yield f"{shares(product, 'of_peak')}."
    if "compile_time" in measured:
        times = measured["compile_time"]
        yield (
            f"Compiling one step takes {times['step']['median']:.2f} s, the epoch "
            f"{times['epoch']['median']:.2f} s: "
            f"{times['epoch_by_step']:.2f} times."
        )


def shares(product: dict[str, Any], way: str) -> str:
    return ", ".join(f"{peer} {share[way]:.0%}" for peer, share in product["share"].items())


def markdown(result: dict[str, Any], first: dict[str, Any] | None = None) -> str:
    """A table for each kind of figure, a column for each network, a row for each peer.

    Args:
        result: what `benchmarks.training` wrote.
        first: what `benchmarks.first_step` wrote, where it was measured.
    """
    networks, machine = result["networks"], result["machine"]
    inference = any(
        "inference" in figures
        for measured in networks.values()
        for figures in measured["peers"].values()
    )
    device = f"{machine['accelerator']}; " if "accelerator" in machine else ""
    lines = [
        *table("ms a step (× jaxdl)", networks, brief),
        *(
            table(
                "inference, ms a batch (× jaxdl)",
                networks,
                lambda of: brief(of.get("inference", {})),
            )
            if inference
            else ()
        ),
        *(first_steps(first) if first else ()),
        *table("peak memory, MB", networks, lambda of: f"{memory(of) / 1e6:.0f}"),
        *(
            " ".join((f"- *{title(name, measured)}*.", *remarks(measured)))
            for name, measured in networks.items()
        ),
        "",
        f"{device}{machine['processor']}, {machine['cores']} cores, {machine['date'][:10]}; "
        + ", ".join(
            f"{package} {number}" for package, number in machine["versions"].items() if number
        )
        + f"; medians of {result['settings']['rounds']} rounds taken in turn.",
        *(f"Not installed and so not measured: {name}." for name in result["skipped"]),
    ]
    return "\n".join(lines) + "\n"


def first_steps(result: dict[str, Any]) -> Iterator[str]:
    """The result of `benchmarks.first_step` as a table in Markdown."""

    def cell(figures: dict[str, Any]) -> str:
        ratio = figures.get("ratio_to_jaxdl")
        return f"{figures['seconds']['median']:.2f}" + (
            f" ({ratio['median']:.2f})" if ratio else ""
        )

    return table("first step, s (× jaxdl)", result["networks"], cell)


def table(
    heading: str, networks: dict[str, Any], cell: Callable[[dict[str, Any]], str]
) -> Iterator[str]:
    """Lines of Markdown; a peer that does not take part has a dash."""
    names = list(
        dict.fromkeys(peer for measured in networks.values() for peer in measured["peers"])
    )
    yield f"| {heading} | {' | '.join(networks)} |"
    yield f"| --- |{' ---: |' * len(networks)}"
    for name in names:
        row = (
            cell(measured["peers"][name]) if name in measured["peers"] else "–"
            for measured in networks.values()
        )
        yield f"| {name} | {' | '.join(row)} |"
    yield ""


def brief(figures: dict[str, Any]) -> str:
    median, _, ratio = milliseconds(figures)
    return median if ratio == "–" else f"{median} ({ratio})"
