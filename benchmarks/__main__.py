"""Measures everything that the README's speed tables show, one thing after another, and writes
tables and plots.

    python -m benchmarks --rounds 5 --seconds 0.5

What is said here goes to `benchmarks.training`.
"""

import subprocess
import sys

MEASURED = ("training", "first_step", "populations", "memory", "import_time", "plots", "readme")

if __name__ == "__main__":
    for name in MEASURED:
        arguments = sys.argv[1:] if name == "training" else []
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
