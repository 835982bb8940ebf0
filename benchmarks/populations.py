"""Populations: 64 members of the 10-10-10-1 network as one program, beside the same runs one after
another, and PyTorch.

    python -m benchmarks.populations --rounds 5

One process has the processor as one device, as JAX has it by itself; another has a device for each
core (`JAX_NUM_CPU_DEVICES`), over which the members are spread; on an accelerator there is the
first alone. In each, turns are
taken: every run by `fit`, all by `fit_many`, and ten times one by `fit` and by `fit_many`. PyTorch
trains one of the runs, in eager mode, in turns of the same process that has one device.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.processes import Answer, Worker, serve

FEATURES, HIDDEN, BATCH = 10, 10, 32
SINGLE = {"fit", "fit_many of one"}
TURNS = 10
"""Of single runs in a round, which take 40 ms each: five would tell nothing of five in a hundred.
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.populations")
    parser.add_argument(
        "--members", type=int, default=64, help="runs in the population: %(default)s"
    )
    parser.add_argument(
        "--epochs", type=int, default=100, help="of 1000 examples in batches of 32: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=machine.results(), help="folder for the file: %(default)s"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve({"measure": measure})
        return
    given.out.mkdir(parents=True, exist_ok=True)
    asked = {"members": given.members, "epochs": given.epochs, "rounds": given.rounds}
    devices = {"one device": 1}
    if machine.device()[0] == "cpu":
        devices["a device for each core"] = machine.cores()
    result: dict[str, Any] = {
        "machine": machine.description(),
        **asked,
        "examples": 1000,
        "batch_size": BATCH,
    }
    result["runs"] = {
        name: measured(name, count, asked, given.out) for name, count in devices.items()
    }
    print(table(result))
    (given.out / "populations.json").write_text(json.dumps(result, indent=2) + "\n")


def measured(name: str, devices: int, asked: dict[str, int], out: Path) -> Answer:
    """The seconds of each turn, from a process that has so many devices."""
    environment = {"JAX_NUM_CPU_DEVICES": str(devices)} if machine.device()[0] == "cpu" else {}
    log = out / f"populations-{name.replace(' ', '-')}.log"
    with Worker(
        name, "benchmarks.populations", "--serve", log=log, environment=environment
    ) as worker:
        return worker.ask("measure", **asked, torch=devices == 1)


def measure(members: int, epochs: int, rounds: int, torch: bool) -> Answer:
    """Seconds of each way, a number a turn."""
    ways = jaxdl_ways(members, epochs)
    if torch and machine.installed_version("torch"):
        ways["PyTorch, one run"] = torch_run(epochs)
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds * TURNS):
        for name, way in ways.items():
            if name in SINGLE or turn % TURNS == 0:
                began = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - began)
    return seconds


def examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(1000, FEATURES)).astype(np.float32)
    return inputs, (inputs.sum(1, keepdims=True) > 0).astype(np.int32)


def jaxdl_ways(members: int, epochs: int) -> dict[str, Callable[[], Any]]:
    import optax

    import jaxdl as dl
    from jaxdl import losses

    model, data = dl.models.mlp(HIDDEN, HIDDEN, 1), examples()
    settings: dict[str, Any] = {
        "loss": losses.binary_cross_entropy,
        "optimizer": optax.adam(1e-3),
        "epochs": epochs,
        "batch_size": BATCH,
        "compile": "epoch",
        "progress": False,
    }
    return {
        "one after another": lambda: [
            dl.fit(model, data, seed=seed, **settings) for seed in range(members)
        ],
        "fit_many": lambda: dl.fit_many(model, data, seeds=members, **settings),
        "fit": lambda: dl.fit(model, data, seed=0, **settings),
        "fit_many of one": lambda: dl.fit_many(model, data, seeds=1, **settings),
    }


def torch_run(epochs: int) -> Callable[[], None]:
    """One run, with the data as tensors and fused Adam, which is the faster here."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inputs, labels = (torch.from_numpy(part).to(device) for part in examples())
    targets = labels.float()

    def run() -> None:
        torch.manual_seed(0)
        sizes = (FEATURES, HIDDEN, HIDDEN, 1)
        first, second, last = (torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        model = torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.ReLU(), last).to(
            device
        )
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs), device=device).split(BATCH):
                optimizer.zero_grad()
                torch.nn.functional.binary_cross_entropy_with_logits(
                    model(inputs[rows]), targets[rows]
                ).backward()
                optimizer.step()
        targets.new_zeros(
            1
        ).item()  # a device computes in order: what it gives last, it gives when all is done

    return run


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """What the figures say: medians over the turns, taken turn by turn."""
    members, runs = result["members"], result["runs"]

    def over(name: str, way: str, by: str, factor: float = 1.0) -> float:
        pairs = zip(runs[name][way], runs[name][by], strict=True)
        return median(factor * a / b for a, b in pairs)

    found = {}
    for name in runs:
        found[f"one after another / fit_many, {name}"] = over(
            name, "one after another", "fit_many"
        )
        found[f"fit_many of one / fit, {name}"] = over(name, "fit_many of one", "fit")
    first = next(iter(runs))
    if "PyTorch, one run" in runs[first]:
        found[f"PyTorch / fit_many, {first}"] = over(
            first, "PyTorch, one run", "fit_many", members
        )
        many = median(runs[list(runs)[-1]]["fit_many"])
        found[f"PyTorch / fit_many, {list(runs)[-1]}"] = (
            members * median(runs[first]["PyTorch, one run"]) / many
        )
    return found


def markdown(result: dict[str, Any]) -> str:
    """The table of docs/benchmarks.md, and the machine that it was measured on."""
    found, measured_on = ratios(result), result["machine"]
    alone = max(ratio for name, ratio in found.items() if name.startswith("fit_many of one"))
    cores = measured_on["cores"]
    on = f"{measured_on['accelerator']}; " if "accelerator" in measured_on else ""
    devices = (
        f" A device for each core is `JAX_NUM_CPU_DEVICES={cores}` in the environment."
        if len(result["runs"]) > 1
        else ""
    )
    return (
        f"{table(result)}\n\n`fit_many` of one member takes {alone:.2f} times as long as "
        f"`fit`.{devices} {on}"
        f"{measured_on['processor']}, {cores} cores, {measured_on['date'][:10]}; medians of "
        f"{result['rounds']} rounds in turn "
        "(`python -m benchmarks.populations`).\n"
    )


def table(result: dict[str, Any]) -> str:
    """The figures in Markdown."""
    members = result["members"]
    steps = result["epochs"] * -(-result["examples"] // result["batch_size"]) * members
    rows = [
        f"| {members} runs of 10-10-10-1 | seconds | µs a step and member | times as fast |",
        "| --- | ---: | ---: | ---: |",
    ]

    def row(name: str, seconds: float, base: float) -> str:
        return (
            f"| {name} | {seconds:.2f} | {seconds / steps * 1e6:.2f} | {base / seconds:.2f} |"
        )

    first, *others = result["runs"].items()
    base = median(first[1]["one after another"])
    if "PyTorch, one run" in first[1]:
        rows.append(
            row(
                "PyTorch, one after another (one run, times their number)",
                members * median(first[1]["PyTorch, one run"]),
                base,
            )
        )
    rows.append(row("`fit`, one after another", base, base))
    for name, seconds in (first, *others):
        rows.append(row(f"`fit_many`, {name}", median(seconds["fit_many"]), base))
    return "\n".join(rows)


if __name__ == "__main__":
    main()
