"""A folder of experiments: their ideas, their expected results, and which can be compared."""

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxdl.speed.compare import compare
from jaxdl.speed.report import SpeedReport


class Experiment(NamedTuple):
    """One file of the folder, read from its text.

    Args:
        name: the file's, without its suffix.
        idea: the first sentence of its docstring.
        expect: the result to expect.
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

    Args:
        folder: with files of Python.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: there is no such folder — run this in the folder above the experiments, or "
            f"name their folder with --folder."
        )
    experiments = []
    definitions = (ast.FunctionDef, ast.ClassDef)
    for path in sorted(folder.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.name for node in module.body if isinstance(node, definitions)}
        text = ast.get_docstring(module)
        if text and {"Config", "main"} <= names:
            comparable = "subject" in names
            experiments.append(Experiment(path.stem, _idea(text), _expected(text), comparable))
    return experiments


def compare_experiment(
    folder: Path,
    name: str,
    quick: bool = False,
    **settings: Any,
) -> SpeedReport:
    """Compares execution modes on what an experiment trains.

    Args:
        folder: of the experiment.
        name: of its file.
        quick: whether to train its quick form.
        settings: of `compare`.

    Returns:
        The report of `compare`.

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
            f"trains by a step of its own, or several models — these can be compared: {offered}."
        )
    module = _module(folder, name)
    subject = module.subject(module.Config(quick=quick))
    known = inspect.signature(compare).parameters
    arguments = {argument: value for argument, value in subject.items() if argument in known}
    arguments.update(settings, name=name)
    return compare(**arguments)


def _module(folder: Path, name: str) -> ModuleType:
    above = str(folder.resolve().parent)
    if above not in sys.path:
        sys.path.insert(0, above)
    return importlib.import_module(f"{folder.resolve().name}.{name}")


def _idea(text: str) -> str:
    return _first(text.partition("\n\n")[0])


def _expected(text: str) -> str:
    return _first(text.partition("\nExpect: ")[2].partition("\n\n")[0])


def _first(paragraph: str) -> str:
    """Its first sentence, or the part before the first semicolon."""
    return re.split(r"(?<=[.?!])\s|;", " ".join(paragraph.split()))[0]
