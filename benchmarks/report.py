"""The result of `benchmarks.training` as tables: for the terminal, and in Markdown for the README."""

from collections.abc import Iterator
from typing import Any

from rich.table import Table

HEADINGS = ("peer", "ms a step", "min – max", "steps a second", "× jaxdl", "first step, s", "peak memory, MB")


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
    return f"{name}: {network['parameters']} parameters, batch {network['batch']}, {network['steps_a_call']} steps a call"


def cells(figures: dict[str, Any]) -> tuple[str, ...]:
    step = figures["milliseconds_a_step"]
    ratio = figures.get("ratio_to_jaxdl")
    return (
        f"{step['median']:.3g}",
        f"{step['min']:.3g} – {step['max']:.3g}",
        f"{figures['steps_a_second']:.4g}",
        f"{ratio['median']:.2f}" if ratio else "–",
        f"{figures['first_step_seconds']:.2f}",
        f"{figures['peak_bytes'] / 1e6:.0f}",
    )


def remarks(measured: dict[str, Any]) -> Iterator[str]:
    """What the table's columns have no place for."""
    by_hand = measured["peers"].get("jax by hand", {}).get("ratio_to_jaxdl")
    if by_hand:
        yield f"fit takes {1 / by_hand['median']:.3f} times as long as the loop by hand."
    if "matrix_product" in measured:
        product = measured["matrix_product"]
        yield f"The matrix product reaches {product['flops_per_second']['median'] / 1e9:.0f} GFLOP/s;"
        shares = (f"{peer} {share['performed']:.0%} ({share['counted']:.0%})" for peer, share in product["share"].items())
        yield f"of that: {', '.join(shares)} (in brackets by the rule 6 * batch * parameters)."
    if "compile_time" in measured:
        times = measured["compile_time"]
        yield (
            f"Compiling one step takes {times['step']['median']:.2f} s, the epoch {times['epoch']['median']:.2f} s: "
            f"{times['epoch_by_step']:.2f} times."
        )


def markdown(result: dict[str, Any]) -> str:
    """One table for all networks: milliseconds a step, and in brackets how many times jaxdl's."""
    networks = result["networks"]
    names = list(dict.fromkeys(peer for measured in networks.values() for peer in measured["peers"]))
    machine = result["machine"]
    lines = [
        f"| ms a step (× jaxdl) | {' | '.join(networks)} |",
        f"| --- |{' ---: |' * len(networks)}",
        *(f"| {name} | {' | '.join(brief(measured, name) for measured in networks.values())} |" for name in names),
        "",
        *(f"- *{title(name, measured)}*. {' '.join(remarks(measured))}" for name, measured in networks.items()),
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['date'][:10]}; "
        + ", ".join(f"{package} {number}" for package, number in machine["versions"].items() if number)
        + f"; medians of {result['settings']['rounds']} rounds taken in turn.",
        *(f"Not installed and so not measured: {name}." for name in result["skipped"]),
    ]
    return "\n".join(lines) + "\n"


def brief(measured: dict[str, Any], name: str) -> str:
    if name not in measured["peers"]:
        return "–"
    figures = measured["peers"][name]
    ratio = figures.get("ratio_to_jaxdl")
    return f"{figures['milliseconds_a_step']['median']:.3g}" + (f" ({ratio['median']:.2f})" if ratio else "")
