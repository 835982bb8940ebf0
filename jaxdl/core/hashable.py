"""Whether values can be hashed, as the static arguments of `jax.jit` have to be."""


def check_hashable(what: str, value: object) -> None:
    """Checks that a value can be a static argument of `jax.jit`.

    Args:
        what: the argument, such as `"step"`: the error begins with it.
        value: the argument.

    Raises:
        TypeError: it cannot be hashed, as it is or holds a list, a dict or an array.
    """
    try:
        hash(value)
    except TypeError as error:
        kind = type(value).__name__
        raise TypeError(
            f"{what}: {kind} cannot be hashed ({error}), and programs are compiled for values "
            "that can — use numbers, strings, tuples, functions and frozen dataclasses."
        ) from None
