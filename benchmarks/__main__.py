"""Runs every benchmark of the speed tables in docs/benchmarks.md, one after another, and writes
tables and plots.

    python -m benchmarks --rounds 5 --seconds 0.5

The arguments are those of `benchmarks.training`.
"""

import subprocess
import sys

MEASURED = ("training", "first_step", "populations", "memory", "import_time", "plots", "tables")

if __name__ == "__main__":
    for name in MEASURED:
        arguments = sys.argv[1:] if name == "training" else []
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
