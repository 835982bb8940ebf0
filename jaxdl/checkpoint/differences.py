"""In what two descriptions differ, in lines for a reader."""

from collections.abc import Iterator

from jaxdl.checkpoint.describe import Description

MAX_LENGTH = 200
"""How many characters of a description an error shows."""


def differences(old: Description, new: Description, name: str = "") -> list[str]:
    """What differs between two descriptions: a line for each part, by its path.

    Args:
        old: what was.
        new: what is.
        name: what the lines call the whole.

    >>> import optax
    >>> from jaxdl.checkpoint.describe import describe
    >>> differences(describe(optax.sgd(0.1)), describe(optax.sgd(0.2)), "optimizer")
    ['optimizer: learning rate 0.1 → 0.2']
    """
    lines = [
        _line(path, before, after) for path, before, after in _differing(old, new, (name,))
    ]
    return list(dict.fromkeys(lines))


def as_call(description: Description) -> str:
    """A description in the form of a call.

    >>> import optax
    >>> from jaxdl.checkpoint.describe import describe
    >>> as_call(describe(optax.clip(1.0)))
    'clip(max_delta=1.0)'
    """
    if isinstance(description, str):
        return description
    parts = (f"{name}={as_call(part)}" for name, part in description["parts"].items())
    return f"{description['is']}({', '.join(parts)})"


def _differing(
    old: Description, new: Description, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The path of each part that differs, and what it was and is."""
    if old == new:
        return
    if isinstance(old, str) or isinstance(new, str) or old["is"] != new["is"]:
        yield path, as_call(old), as_call(new)
        return
    before = old["parts"]
    after = new["parts"]
    for name in dict.fromkeys((*before, *after)):
        yield from _differing(before.get(name, "none"), after.get(name, "none"), (*path, name))


def _line(path: tuple[str, ...], old: str, new: str) -> str:
    """One difference, for a reader: a scale behind a direction is a learning rate."""
    first, *rest = path
    if rest[-2:] == ["scale", "step_size"] or rest == ["step_size"]:
        return f"{first}: learning rate {old.removeprefix('-')} → {new.removeprefix('-')}"
    if rest and rest[-1] == "code":
        return f"{'.'.join(filter(None, path[:-1]))}: other code, or other values that it reads"
    return f"{'.'.join(filter(None, path))}: {_cut(old)} → {_cut(new)}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 1]}…"
