"""Measures everything that the README's speed table shows, one thing after another, and writes the table.

python -m benchmarks
"""

import subprocess
import sys

MEASURED = ("training", "pairs", "memory", "import_time", "readme")

if __name__ == "__main__":
    for name in MEASURED:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
