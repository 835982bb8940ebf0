"""Runs every experiment in full and collects their figures for README.md and docs/benchmarks.md.

    python -m benchmarks.experiments

Each experiment is a process of its own, one after another; its `result.json` goes into
`benchmarks/results/experiments.json` with the seconds it took, and the tables are written
anew. `--only` runs some and keeps the others' figures.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
NAMES = (
    "linear_regression",
    "logistic_regression",
    "mlp_classifier",
    "digits_cnn",
    "mnist_cnn",
    "cifar10_cnn",
    "cifar10_resnet",
    "activations",
    "simple_rnn",
    "imdb_sentiment",
    "spoken_digits_lstm",
    "shakespeare_gpt",
    "autoencoder",
    "vae",
    "gan",
    "backprop_by_hand",
    "dqn_cartpole",
    "spoken_digits_ctc",
    "contrastive",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--only", default=",".join(NAMES), help="which, with commas between: %(default)s"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where experiments write: %(default)s"
    )
    given = parser.parse_args(arguments)
    path = RESULTS / "experiments.json"
    collected = json.loads(path.read_text()) if path.exists() else {}
    for name in given.only.split(","):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", f"experiments.{name}", "--out", str(given.runs / name)],
            check=True,
        )
        result = json.loads((given.runs / name / "result.json").read_text())
        collected[name] = result | {"seconds": round(time.perf_counter() - began, 1)}
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(dict(sorted(collected.items())), indent=1) + "\n")
    subprocess.run([sys.executable, "-m", "benchmarks.tables"], check=True)


if __name__ == "__main__":
    main()
