"""A folder of experiments: what they ask, what they expect, and which of them can be compared."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from jaxdl.speed.compare import compare
from jaxdl.speed.report import SpeedReport


class Experiment(NamedTuple):
    """One file of the folder, as its text says.

    Args:
        name: the file's, without its ending.
        idea: the first sentence of its docstring.
        expect: the figure to expect.
        comparable: whether it has a `subject`: a function from its config to the arguments of
            `fit`.
    """

    name: str
    idea: str
    expect: str
    comparable: bool


def found(folder: Path) -> list[Experiment]:
    """The experiments of a folder: files with a docstring, a `Config` and a `main`. None of them is
    imported.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: there is no such folder — run this where the experiments lie, or name "
            f"their folder with --folder."
        )
    experiments = []
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            node.name for node in module.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        }
        text = ast.get_docstring(module)
        if text and {"Config", "main"} <= names:
            experiments.append(
                Experiment(path.stem, _sentence(text), _expected(text), "subject" in names)
            )
    return experiments


def compare_experiment(
    folder: Path, name: str, quick: bool = False, **settings: Any
) -> SpeedReport:
    """Compares the ways on what an experiment trains.

    Args:
        folder: where it lies.
        name: of its file.
        quick: whether its config asks for the quick form.
        settings: of `compare`.

    Raises:
        ValueError: there is no such experiment, or it offers nothing to compare.
    """
    experiments = {each.name: each for each in found(folder)}
    offered = ", ".join(each.name for each in experiments.values() if each.comparable) or "none"
    if name not in experiments:
        raise ValueError(
            f"{name}: {folder} has no such experiment — these can be compared: {offered}."
        )
    if not experiments[name].comparable:
        raise ValueError(
            f"{name}: this experiment has no `subject(config)`, the arguments of `fit`, since it "
            f"trains by a step of its "
            f"own, or several models — these can be compared: {offered}."
        )
    module = _module(folder, name)
    subject = module.subject(module.Config(quick=quick))
    known = inspect.signature(compare).parameters
    recipe: dict[str, Any] = {
        argument: value for argument, value in subject.items() if argument in known
    }
    recipe.update(settings, name=name)
    return compare(**recipe)


def _module(folder: Path, name: str) -> Any:
    above = str(folder.resolve().parent)
    if above not in sys.path:
        sys.path.insert(0, above)
    return importlib.import_module(f"{folder.resolve().name}.{name}")


def _sentence(text: str) -> str:
    return _first(text.partition("\n\n")[0])


def _expected(text: str) -> str:
    return _first(text.partition("\nExpect: ")[2].partition("\n\n")[0])


def _first(paragraph: str) -> str:
    """Its first sentence, or what stands before the first semicolon."""
    return re.split(r"(?<=[.?!])\s|;", " ".join(paragraph.split()))[0]
