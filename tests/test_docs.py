"""What README.md and the pages print runs as printed, their tables are those of the JSON beside the benchmarks, and every public name is in the reference."""

import ast
import functools
import importlib.util
import inspect
import re
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

import jaxdl as dl
from benchmarks import tables

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PEERS = ("torch", "keras", "flax", "equinox")
PACKAGES = (
    "jaxdl",
    "jaxdl.losses",
    "jaxdl.metrics",
    "jaxdl.models",
    "jaxdl.data",
    "jaxdl.ops",
    "jaxdl.optim",
)
MODULES = ("jaxdl.data.augment", "jaxdl.initializers", "jaxdl.tree")


def blocks(path: Path, language: str = "python") -> Iterator[tuple[int, str]]:
    """The blocks of a page in one language: the line that each starts at, and its text."""
    text = path.read_text()
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text[: found.start(1)].count("\n") + 1, found[1]


QUICK = ("README", "tour", "contract")
BY_TIER = [
    pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.slow, id=path.stem)
    for path in PAGES
]


@pytest.mark.parametrize("path", BY_TIER)
def test_code_runs_as_printed(path, tmp_path, monkeypatch, unchecked):
    page = types.ModuleType(f"page_{path.stem}")
    monkeypatch.setitem(sys.modules, page.__name__, page)
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for line, code in blocks(path):
            run(path, line, code, page.__dict__)


def run(path: Path, line: int, code: str, namespace: dict[str, object]) -> None:
    """Runs a block, with its lines numbered as on the page; one of a peer that is missing is not run."""
    peers = [
        name
        for name in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
        if name in PEERS
    ]
    if not all(importlib.util.find_spec(name) for name in peers):
        return
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "training stopped", RuntimeWarning
        )  # one page shows it
        if peers:
            warnings.simplefilter("ignore")
        exec(compile("\n" * (line - 1) + code, path, "exec"), namespace)


def test_the_readme_has_code_that_runs():
    assert len(list(blocks(README))) >= 2


def test_no_page_marks_python_in_a_way_that_is_not_run():
    for path in PAGES:
        fences = set(re.findall(r"^```(.+)$", path.read_text(), re.MULTILINE))
        assert fences <= {
            "python",
            "sh",
            "text",
            "bash",
            "{toctree}",
            "{include} ../benchmarks/README.md",
        }, path


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= 14_000


def test_the_two_commands_are_one_line_each():
    commands = [line for _, block in blocks(README, "sh") for line in block.splitlines()]
    assert commands == [
        'pip install -e ".[experiments]" && python -m experiments.digits_cnn',
        'pip install -e ".[test]" && pytest',
    ]


@pytest.mark.parametrize("path", [tables.README, tables.BENCHMARKS, tables.NOTES], ids=str)
def test_tables_come_from_the_measurements(path):
    assert tables.filled(path) == path.read_text()


def test_every_file_on_the_map_exists():
    rows = re.findall(r"^\| (`[^|]+) \|", README.read_text(), re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([\w/.]+)`", row)]
    files = [name for name in names if "/" in name or name.endswith(".py")]
    assert len(files) >= 8
    for name in files:
        assert (ROOT / name).exists(), name


def test_links_lead_to_files():
    for path in [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def public_names() -> set[str]:
    """The names that packages hand on (`X as X`), and what the public modules define."""
    names = set()
    for package in PACKAGES:
        source = Path(importlib.import_module(package).__file__).read_text()
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
        names |= {f"{package}.{alias.asname}" for node in imports for alias in node.names}
    for path in MODULES:
        names |= {f"{path}.{name}" for name in defined(value(path))}
    return names


def defined(module: types.ModuleType) -> list[str]:
    """The public functions and classes of a module."""
    return [
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def test_the_reference_has_every_public_name():
    public = {name for name in public_names() if not isinstance(value(name), types.ModuleType)}
    assert len(public) > 150
    assert public - set(described()) == set()
    assert {name for name in public_names() if name.startswith("jaxdl.ops.")} - set(
        described()
    ) <= {"jaxdl.ops.activations"}


def described() -> list[str]:
    """The names in the reference."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "api").glob("*.md"))
    return re.findall(r"^\.\. auto\w+:: (\S+)$", pages, re.MULTILINE)


def value(name: str) -> object:
    return functools.reduce(getattr, name.split(".")[1:], dl)


def test_each_name_of_the_reference_exists():
    for name in described():
        value(name)
