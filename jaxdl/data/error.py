"""Errors of data on disk that are missing, altered or broken."""


class DataError(ValueError):
    """Data are missing, short or altered, or cannot be downloaded.

    The message names the file and says what to do.
    """


class CorruptionError(DataError):
    """A file is not as it should be; the message is a predicate whose subject is the file."""


def excerpt(said: object, most: int = 100) -> str:
    """The beginning of a text from a file or a server, on one line, for an error."""
    text = str(said)
    letters = [letter if letter.isprintable() else "?" for letter in text[:most]]
    if len(text) > most:
        letters.append("…")
    return "".join(letters)
