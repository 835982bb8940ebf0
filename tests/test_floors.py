"""Data flows one way: a file imports only from the floors below its own, and `import jaxdl` brings nothing heavy."""

import ast
import graphlib
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxdl

ROOT = Path(__file__).parent.parent
FLOORS = {
    "compiling": 1,
    "optim": 1,
    "ops": 2,
    "core": 3,
    "layers": 4,
    "losses": 4,
    "data": 4,
    "checkpoint": 4,
    "metrics": 5,
    "models": 5,
    "debugging": 5,
    "generation": 5,
    "training": 6,
    "population": 7,
    "speed": 7,
}
TOP = 8
HEAVY = [
    "rich",
    "matplotlib",
    "sklearn",
    "flax",
    "orbax",
    "torch",
    "keras",
    "tensorflow",
    "tyro",
    "beartype",
    "pytest",
    "tokenizers",
    "safetensors",
]

Graph = dict[str, set[str]]
"""The modules of a package by their dotted path inside it, and which of the others each imports."""


def modules(package: Path) -> dict[str, Path]:
    paths = {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in package.rglob("*.py")
    }
    return {
        name.removesuffix(".__init__"): path
        for name, path in paths.items()
        if name != "__init__"
    }


def imports(package: Path) -> Graph:
    files = modules(package)
    return {name: set(imported(path, package.name, set(files))) for name, path in files.items()}


def imported(path: Path, package: str, known: set[str]) -> Iterator[str]:
    """The modules of the package that a file names in any import, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == package:
                yield next((part for part in prefixes(rest) if part in known), "")


def prefixes(name: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


def floor(module: str) -> int:
    return FLOORS.get(module.split(".")[0], TOP)


def rising(graph: Graph) -> list[str]:
    """The imports that do not lead to a lower floor, nor to the file's own package."""
    wrong = []
    for module, targets in graph.items():
        for target in sorted(targets):
            together = module.split(".")[0] == target.split(".")[0]
            if not (together or floor(target) < floor(module) or module == "__main__"):
                wrong.append(f"{module} -> {target or 'jaxdl'}")
    return wrong


def without_packages(graph: Graph) -> Graph:
    """Only files: an `__init__` imports its own files, which import their siblings."""
    return {
        name: {t for t in targets if not any(o.startswith(t + ".") for o in graph)}
        for name, targets in graph.items()
    }


def circle(graph: Graph) -> list[str]:
    try:
        graphlib.TopologicalSorter(without_packages(graph)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_arrow_runs_up() -> None:
    graph = imports(ROOT / "jaxdl")
    assert len(graph) > 30
    assert rising(graph) == []


def test_every_file_lies_in_a_package_that_has_a_floor() -> None:
    assert {path.name for path in (ROOT / "jaxdl").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
    }
    folders = {path.name for path in (ROOT / "jaxdl").iterdir() if path.is_dir()} - {
        "__pycache__"
    }
    assert folders == set(FLOORS)
    assert all((ROOT / "jaxdl" / folder / "__init__.py").exists() for folder in folders)


def test_no_public_name_hides_a_package() -> None:
    hidden = [name for name in FLOORS if not isinstance(getattr(jaxdl, name), types.ModuleType)]
    assert hidden == []


def test_no_circle() -> None:
    assert circle(imports(ROOT / "jaxdl")) == []


def written(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "jaxdl"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        (
            {"ops/conv.py": "from jaxdl.layers import dense", "layers/dense.py": ""},
            ["ops.conv -> layers.dense"],
        ),
        (
            {"ops/conv.py": "def f():\n    import jaxdl.layers.dense", "layers/dense.py": ""},
            ["ops.conv -> layers.dense"],
        ),
        (
            {"data/idx.py": "from jaxdl.layers.dense import Dense", "layers/dense.py": ""},
            ["data.idx -> layers.dense"],
        ),
        (
            {"optim/forms.py": "from jaxdl.core.tree import shapes", "core/tree.py": ""},
            ["optim.forms -> core.tree"],
        ),
        (
            {"data/idx.py": "from jaxdl.models import cnn", "models/cnn.py": ""},
            ["data.idx -> models.cnn"],
        ),
        (
            {
                "training/fit.py": "from jaxdl.speed.compare import table",
                "speed/compare.py": "",
            },
            ["training.fit -> speed.compare"],
        ),
        ({"layers/dense.py": "import jaxdl"}, ["layers.dense -> jaxdl"]),
        ({"layers/dense.py": "from jaxdl import Layer"}, ["layers.dense -> jaxdl"]),
        (
            {
                "layers/dense.py": "from jaxdl.layers.conv import Conv",
                "layers/conv.py": "from jaxdl.core.layer import Layer",
                "core/layer.py": "",
            },
            [],
        ),
        (
            {
                "training/fit.py": "from jaxdl.data.idx import read",
                "data/idx.py": "from jaxdl.core.tree import count",
                "core/tree.py": "",
            },
            [],
        ),
    ],
)
def test_arrows_that_run_up_are_found(
    tmp_path: Path, files: dict[str, str], wrong: list[str]
) -> None:
    assert rising(imports(written(tmp_path, files))) == wrong


def test_circles_are_found(tmp_path: Path) -> None:
    files = {
        "layers/a.py": "from jaxdl.layers.b import f",
        "layers/b.py": "from jaxdl.layers import a",
        "layers/__init__.py": "",
    }
    assert set(circle(imports(written(tmp_path, files)))) == {"layers.a", "layers.b"}


@pytest.mark.parametrize("module", HEAVY)
def test_importing_jaxdl_brings_nothing_heavy(module: str, brought: list[str]) -> None:
    assert module not in brought


@pytest.fixture(scope="module")
def brought() -> list[str]:
    program = "import sys, jaxdl; print(*{name.split('.')[0] for name in sys.modules})"
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.split()
