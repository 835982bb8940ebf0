"""A Sphinx extension that renders the docstrings of jaxdl: plain text with code in backticks,
sections such as `Args:`, equations set off by their indentation, and doctests.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

SECTIONS = ("Args", "Returns", "Raises", "Yields", "Example", "Examples")
CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
EMPHASIS = re.compile(r"(?<![\w*])\*(?![\s*])([^*]+?)(?<![\s*])\*(?![\w*])")
SPECIAL = re.compile(r"[\\*|]|(?<=\w)_(?!\w)")
ITEM = re.compile(
    r"(?P<names>\*{0,2}\w[\w*]*(?:, *\*{0,2}\w[\w*]*)*): +(?P<text>.*)", re.DOTALL
)


def setup(app: Any) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Replaces a docstring's lines by reStructuredText."""
    del app, what, name, obj, options
    lines[:] = list(rendered("\n".join(lines)))


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out fields of named tuples and of dataclasses, which the class's docstring describes:
    autodoc would show a default that has a docstring of its own.
    """
    del app, what, skipped, options
    is_field = type(obj).__name__ == "_tuplegetter"
    is_default = isinstance(obj, type) and obj.__name__ != name
    return True if is_field or is_default else None


def rendered(docstring: str) -> Iterator[str]:
    """The lines of a docstring as reStructuredText."""
    section = None
    body: list[str] = []
    for line in [*docstring.splitlines(), *SECTIONS[:1]]:
        heading = line.rstrip(":")
        if line == SECTIONS[0] or (line.endswith(":") and heading in SECTIONS):
            yield from of_section(section, body)
            section = heading
            body = []
        elif section is not None and line and not line[0].isspace():
            yield from of_section(section, body)
            section = None
            body = [line]
        else:
            body.append(line)


def of_section(section: str | None, body: list[str]) -> Iterator[str]:
    """A section under its heading; None is the text outside of sections."""
    text = textwrap.dedent("\n".join(body)).strip("\n")
    if not text:
        return
    if section is not None:
        yield from (f"**{section}**", "")
    if section in ("Args", "Raises"):
        yield from bullets(items(text))
    else:
        yield from paragraphs(text)


def items(text: str) -> Iterator[str]:
    """Each `name: description` of a section as one line."""
    gathered: list[str] = []
    for line in text.splitlines():
        if ITEM.match(line) and gathered:
            yield described(" ".join(gathered))
            gathered = []
        if line.strip():
            gathered.append(line.strip())
    if gathered:
        yield described(" ".join(gathered))


def described(item: str) -> str:
    found = ITEM.fullmatch(item)
    if found is None:
        return inline(item)
    names = ", ".join(f"``{name}``" for name in re.split(r", *", found["names"]))
    return f"{names}: {inline(found['text'])}"


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs, lists, equations and doctests, which empty lines divide."""
    for block in re.split(r"\n\s*\n", text):
        if block.lstrip().startswith(">>>"):
            yield from (*textwrap.dedent(block).splitlines(), "")
        elif block.startswith("    "):
            yield from ("::", "", *block.splitlines(), "")
        elif block.startswith("- "):
            parts = re.split(r"^- ", block, flags=re.MULTILINE)[1:]
            yield from bullets(inline(joined(part)) for part in parts)
        else:
            yield from (inline(joined(block)), "")


def bullets(texts: Iterable[str]) -> Iterator[str]:
    yield from (f"- {text}" for text in texts)
    yield ""


def joined(text: str) -> str:
    return " ".join(text.split())


def inline(text: str) -> str:
    """Text with code as literals, titles emphasised, and everything else escaped."""
    return "".join(pieces(text))


def pieces(text: str) -> Iterator[str]:
    end = 0
    for found in CODE.finditer(text):
        yield emphasised(text[end : found.start()])
        code = found[2].strip().replace("\\", "\\\\")
        yield f"\\ :code:`{code}`\\ "
        end = found.end()
    yield emphasised(text[end:])


def emphasised(text: str) -> str:
    end = 0
    parts = []
    for found in EMPHASIS.finditer(text):
        parts.append(escaped(text[end : found.start()]))
        parts.append(f"\\ *{escaped(found[1])}*\\ ")
        end = found.end()
    parts.append(escaped(text[end:]))
    return "".join(parts)


def escaped(text: str) -> str:
    return SPECIAL.sub(lambda found: "\\" + found[0], text).replace("`", "\\`")
