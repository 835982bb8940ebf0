"""Builds the wheel, installs it in a clean environment without extras, and trains a model there.

python tests/packaging/wheel.py
"""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = """
import importlib.metadata
import importlib.util
from pathlib import Path

import jax
import numpy as np
import optax

import jaxdl as dl
from jaxdl.layers import Dense
from jaxdl.metrics import accuracy

root = Path(r"{root}")
assert root not in Path(dl.__file__).parents, dl.__file__
assert dl.__version__ == importlib.metadata.version("jaxdl")
assert importlib.util.find_spec("sklearn") is None, "the environment has an extra's package"
x = np.random.default_rng(0).normal(size=(256, 4)).astype(np.float32)
y = (x[:, 0] > 0).astype(np.int32)
model = dl.Sequential(Dense(8), jax.nn.relu, Dense(2))
loss = dl.losses.softmax_cross_entropy
run = dl.fit(model, (x, y), loss=loss, optimizer=optax.adam(1e-2), epochs=10, progress=False)
figures = dl.evaluate(model, run.params, run.state, (x, y), metrics={{"accuracy": accuracy}})
assert figures["accuracy"] > 0.9, figures
logits = dl.predict(model, run.params, run.state, x)
assert logits.shape == (256, 2)
print("jaxdl", dl.__version__, "from a wheel:", figures)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = built(Path(folder))
        check_contents(wheel)
        python = installed(wheel, Path(folder) / "environment")
        call(python, "-c", EXAMPLE.format(root=ROOT), cwd=folder)


def built(folder: Path) -> Path:
    """The wheel, built from a clean copy of the sources."""
    call(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("jaxdl-*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    """The wheel holds every file of the package, the mark that it is typed, and nothing else."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxdl").rglob("*.py")}
    assert names == sources | {"jaxdl/py.typed"}, names ^ (sources | {"jaxdl/py.typed"})


def installed(wheel: Path, environment: Path) -> Path:
    """The Python of a new environment that has the wheel and its dependencies alone."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", "--no-compile", wheel)
    return python


def call(*command: object, cwd: str | None = None) -> None:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env=outside)


if __name__ == "__main__":
    main()
