"""Where functions and classes come from, and the code of those that no library holds."""

import dataclasses
import dis
import functools
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import CellType, CodeType, FunctionType

LIBRARIES = frozenset({"jax", "jaxlib", "jaxdl", "numpy", "optax", "builtins"})


def is_of_library(value: object) -> bool:
    """Whether a function or a class is of Python or an installed package, whose code is known by
    its name.
    """
    module = getattr(value, "__module__", None)
    if isinstance(value, FunctionType):
        module = value.__globals__.get("__name__")
    if not isinstance(module, str) or module.partition(".")[0] in LIBRARIES:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if isinstance(value, FunctionType):
        file = value.__code__.co_filename
    return module != "__main__" and file is not None and _is_installed(file)


@functools.lru_cache(maxsize=1024)
def _is_installed(file: str) -> bool:
    path = Path(file)
    if "site-packages" in path.parts or "dist-packages" in path.parts:
        return True
    return path.is_relative_to(Path(sysconfig.get_path("stdlib")))


def name_of(value: object) -> str:
    """The name of a function or a class, with that of its package if it is of a library.

    The modules between may move from one version of the package to the next.
    """
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if name is None:
        name = type(value).__name__
    package = str(getattr(value, "__module__", "")).partition(".")[0]
    if package in ("", "builtins", "__main__") or not is_of_library(value):
        return name
    return f"{package}.{name}"


def closed_over(function: FunctionType) -> dict[str, object]:
    """The values of a function's free variables, by name; those that are not bound yet are left
    out.
    """
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _is_bound(cell)}


def _is_bound(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def values_of(function: object) -> dict[str, object]:
    """What a function has closed over, its defaults, and its attributes, by name."""
    if not isinstance(function, FunctionType):
        return {"function": function}
    code = function.__code__
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    given = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    given |= function.__kwdefaults__ or {}
    attributes = {name: part for name, part in vars(function).items() if name != "__wrapped__"}
    return {
        **closed_over(function),
        **{name: part for name, part in given.items() if part is not None},
        **attributes,
    }


def methods_of(value: type) -> dict[str, FunctionType]:
    """The methods of a class, and of the classes it is derived from, without those of libraries and
    those that `dataclasses` generates.
    """
    methods = {}
    for base in value.__mro__:
        if is_of_library(base):
            continue
        for name, attribute in vars(base).items():
            method = _method(attribute)
            if method is not None and not _is_generated(name, method):
                methods[f"{base.__qualname__}.{name}"] = method
    return methods


def _method(attribute: object) -> FunctionType | None:
    """The function of a method, a property, or a cached property."""
    for name in ("__func__", "fget", "func"):
        function = getattr(attribute, name, None)
        if function:
            attribute = function
            break
    return attribute if isinstance(attribute, FunctionType) else None


def _is_generated(name: str, method: FunctionType) -> bool:
    return method.__code__.co_filename == "<string>" and name.startswith("__")


@dataclasses.dataclass(frozen=True, eq=False)
class Code:
    """The bytecode of a function, and the variables of its module.

    Args:
        code: compiled.
        variables: of the module, by name.
        doc: the function's docstring, which is not part of its code.
    """

    code: CodeType
    variables: Mapping[str, object]
    doc: str | None = None

    @classmethod
    def of(cls, function: FunctionType) -> "Code":
        """The code of a function."""
        return cls(function.__code__, function.__globals__, function.__doc__)

    def instructions(self) -> list[object]:
        """What it does, without line numbers, file names, names of local variables and the
        docstring.
        """
        return self._instructions(self.code)

    def globals_read(self) -> dict[str, object]:
        """The variables of its module that it reads, by name."""
        return self._globals_read(self.code)

    def _instructions(self, code: CodeType) -> list[object]:
        constants = [
            None if constant is self.doc else self._constant(constant)
            for constant in code.co_consts
        ]
        return [
            code.co_code.hex(),
            code.co_names,
            constants,
            code.co_argcount,
            code.co_kwonlyargcount,
            code.co_flags,
        ]

    def _constant(self, constant: object) -> object:
        if isinstance(constant, CodeType):
            return self._instructions(constant)
        if isinstance(constant, frozenset):
            return repr(sorted(constant, key=repr))
        return repr(constant)

    def _globals_read(self, code: CodeType) -> dict[str, object]:
        found: dict[str, object] = {}
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                found |= self._globals_read(constant)
        instructions = dis.get_instructions(code)
        read = {each.argval for each in instructions if each.opname == "LOAD_GLOBAL"}
        for name in sorted(read & self.variables.keys()):
            found[name] = self.variables[name]
        return found
