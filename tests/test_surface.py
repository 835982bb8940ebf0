"""Every public name is used by a quick test, one that plain `pytest` runs: a newcomer's five minutes pass over all of jaxdl.

Read from the files, not run: a name counts as used where a quick test, a fixture or function that it reaches, or an example in a
docstring mentions it. What a slow test or a slow parameter mentions does not count.
"""

import ast
import doctest
import functools
import importlib
import operator
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jaxdl

ROOT = Path(__file__).parent.parent
Objects = dict[str, Any]


def surface() -> Objects:
    """What jaxdl and its packages hand on (`X as X`), and what the modules define that jaxdl hands on, by dotted paths."""
    found: Objects = {}
    folders = sorted((ROOT / "jaxdl").glob("*/__init__.py"))
    packages = [importlib.import_module(f"jaxdl.{path.parent.name}") for path in folders]
    for package in (jaxdl, *packages):
        for name in handed_on(Path(str(package.__file__))):
            found[f"{package.__name__}.{name}"] = getattr(package, name)
    for path, value in list(found.items()):
        if isinstance(value, types.ModuleType) and path.count(".") == 1:
            found |= {f"{path}.{name}": inner for name, inner in own(value).items()}
    return {path: v for path, v in found.items() if not isinstance(v, types.ModuleType)}


def handed_on(path: Path) -> list[str]:
    imports = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.asname]


def own(module: types.ModuleType) -> Objects:
    """The public names that a module defines itself."""
    names = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    return {n: v for n, v in names.items() if getattr(v, "__module__", None) == module.__name__}


def is_slow(node: ast.AST) -> bool:
    """Whether `mark.slow` stands in an expression."""
    return any(isinstance(n, ast.Attribute) and n.attr == "slow" for n in ast.walk(node))


def quick_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but for slow parameters and for all parameters of sampled tests."""
    if isinstance(node, ast.Call) and any(
        keyword.arg == "marks" and is_slow(keyword.value) for keyword in node.keywords
    ):
        return
    yield node
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef) and any(map(is_sampled, node.decorator_list)):
        children = [node.args, *node.body]
    for child in children:
        yield from quick_nodes(child)


def is_sampled(decorator: ast.expr) -> bool:
    return any(
        isinstance(n, ast.Attribute) and n.attr == "sampled" for n in ast.walk(decorator)
    )


class File:
    """A file of Python: what its names are bound to, and what each of its definitions mentions."""

    def __init__(self, tree: ast.Module):
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.values: Objects = {}
        self.helpers: dict[str, tuple[str, str]] = {}
        for node in tree.body:
            for name in defined(node):
                self.definitions.setdefault(name, []).append(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._bind(node)

    def _bind(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name
            if isinstance(node, ast.Import):
                if alias.name.split(".")[0] == "jaxdl":
                    module = importlib.import_module(alias.name)
                    self.values[name] = module if alias.asname else jaxdl
            elif str(node.module).split(".")[0] == "jaxdl":
                self.values[name] = handed(str(node.module), alias.name)
            elif str(node.module).split(".")[0] == "tests":
                self.helpers[name] = (str(node.module), alias.name)

    def tests(self) -> list[str]:
        """The names of its quick tests, and of fixtures that every test gets."""
        if any(is_slow(node) for node in self.definitions.get("pytestmark", [])):
            return []
        return [
            name for name, nodes in self.definitions.items() if any(map(is_quick_test, nodes))
        ]


def handed(module: str, name: str) -> Any:
    """What `from module import name` binds."""
    found = getattr(importlib.import_module(module), name, None)
    return importlib.import_module(f"{module}.{name}") if found is None else found


def defined(node: ast.stmt) -> list[str]:
    """The names that a statement at the top of a file defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]


def is_quick_test(node: ast.stmt) -> bool:
    if not isinstance(node, ast.FunctionDef):
        return False
    autouse = any("autouse" in ast.dump(decorator) for decorator in node.decorator_list)
    marked = any(is_slow(d) for d in node.decorator_list if not is_parametrize(d))
    return (node.name.startswith("test_") and not marked) or autouse


def is_parametrize(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and "parametrize" in ast.dump(decorator.func)


@functools.cache
def read(module: str) -> File:
    path = ROOT / (module.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT / module.replace(".", "/") / "__init__.py"
    return File(ast.parse(path.read_text()) if path.exists() else ast.Module([], []))


def used(file: File, fixtures: list[File], starts: list[str]) -> Iterator[Any]:
    """The objects of jaxdl that definitions mention, and those that they reach, fixtures by their name."""
    queue = [(file, name) for name in starts]
    seen = set()
    while queue:
        at, name = queue.pop()
        if (id(at), name) in seen:
            continue
        seen.add((id(at), name))
        for node in (n for top in at.definitions.get(name, []) for n in quick_nodes(top)):
            yield from attributes(at, node)
            for other in mentioned(node):
                queue.append((at, other))
                queue += [(f, other) for f in fixtures if other in f.definitions]
                if other in at.helpers:
                    module, original = at.helpers[other]
                    queue.append((read(module), original))


def mentioned(node: ast.AST) -> list[str]:
    """Names, arguments (fixtures), and strings (fixtures that are asked for by name)."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if node.value.isidentifier() else []
    return []


def attributes(file: File, node: ast.AST) -> Iterator[Any]:
    """What `a` or `a.b.c` is where `a` comes from jaxdl, `b` on the way to `c` included."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in file.values:
        return
    value = file.values[node.id]
    yield value
    for name in reversed(names):
        value = getattr(value, name, None)
        yield value


def of_tests() -> Iterator[Any]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        folders = [".".join([*parts[:end], "conftest"]) for end in range(1, len(parts))]
        file = read(".".join(parts))
        yield from used(file, [read(folder) for folder in folders], file.tests())


def of_examples() -> Iterator[Any]:
    """What the examples in docstrings mention."""
    for path in sorted((ROOT / "jaxdl").rglob("*.py")):
        text = path.read_text()
        if ">>>" in text:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield from of_docstrings(text, vars(importlib.import_module(module)))


def of_docstrings(text: str, names: Objects) -> Iterator[Any]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            examples = doctest.DocTestParser().get_examples(ast.get_docstring(node) or "")
            tree = ast.parse("".join(example.source for example in examples))
            file = File(tree)
            file.values = {**names, **file.values}
            for inner in ast.walk(tree):
                yield from attributes(file, inner)


def with_types(objects: Iterable[Any]) -> dict[int, Any]:
    """By identity: objects, their base classes, and the types of arguments, fields and results, which are checked in use."""
    found = {}
    queue = list(objects)
    while queue:
        value = queue.pop()
        if id(value) in found:
            continue
        found[id(value)] = value
        queue += typing.get_args(value)
        if isinstance(value, type):
            queue += [*value.__mro__, *getattr(value, "__orig_bases__", ())]
        if isinstance(value, type | types.FunctionType):
            queue += getattr(value, "__annotations__", {}).values()
    return found


def untouched(objects: Iterable[Any], public: Objects) -> list[str]:
    touched = with_types(objects)
    return [name for name, value in public.items() if id(value) not in touched]


@pytest.mark.once
def test_quick_tests_touch_every_public_name() -> None:
    public = surface()
    assert len(public) > 150
    assert untouched((*of_tests(), *of_examples()), public) == []


MENTIONS = """
import pytest
import jaxdl as dl
from jaxdl.layers import Conv
RATES = [dl.optim.Cosine(1.0), pytest.param(dl.optim.Linear(1.0), marks=pytest.mark.slow)]
def built(): return dl.models.mlp
@pytest.fixture
def layer(): return dl.Dropout(0.5)
@pytest.mark.slow
def test_slow(): dl.save, dl.sweep
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_quick(layer, rate, size): built(), Conv, dl.save
@pytest.mark.sampled
@pytest.mark.parametrize("layer", [dl.LSTM, dl.GRU])
def test_sampled(layer): dl.predict
def unused(): dl.load
"""


@pytest.mark.parametrize(
    ("name", "is_touched"),
    [
        ("optim.Cosine", True),
        ("optim.Schedule", True),
        ("optim.Linear", False),
        ("models.mlp", True),
        ("Dropout", True),
        ("Conv", True),
        ("save", True),
        ("sweep", False),
        ("predict", True),
        ("GRU", False),
        ("load", False),
    ],
)
def test_only_what_quick_tests_reach_is_touched(name: str, is_touched: bool) -> None:
    public = {name: operator.attrgetter(name)(jaxdl)}
    file = File(ast.parse(MENTIONS))
    assert file.tests() == ["test_quick", "test_sampled"]
    assert (untouched(used(file, [file], file.tests()), public) == []) == is_touched


def test_nothing_of_a_slow_file_is_touched() -> None:
    assert File(ast.parse(MENTIONS + "pytestmark = [pytest.mark.slow]")).tests() == []


def test_examples_in_docstrings_touch() -> None:
    text = 'def dense():\n    """A layer.\n\n    >>> Dense(dl.tree)\n    """\n'
    names = {"Dense": jaxdl.Dense, "dl": jaxdl}
    assert (
        untouched(of_docstrings(text, names), {"Dense": jaxdl.Dense, "tree": jaxdl.tree}) == []
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("case", range(6))
def test_cases_at_even_distances_are_quick(case: int, request: pytest.FixtureRequest) -> None:
    asked_for_by_name = all("::" in name for name in request.config.args)
    is_quick = request.node.get_closest_marker("slow") is None
    assert is_quick == (case in (2, 5)) or asked_for_by_name


@pytest.mark.slow
def test_a_slow_test_runs_where_it_is_asked_for(request: pytest.FixtureRequest) -> None:
    assert request.config.option.markexpr != "not slow"
