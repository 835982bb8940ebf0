"""What the loaders say when the data on disk is not what it should be."""


class DataError(ValueError):
    """Data that is missing, short, altered or cannot be fetched; the message names the file and
    says what to do.
    """


class Damage(DataError):
    """What is wrong with a file, as the second half of a sentence whose subject is the file."""


def excerpt(said: object, most: int = 100) -> str:
    """What a file or a server says, made fit for a sentence: on one line, and with its end left out
    where it is long.
    """
    text = str(said)
    plain = "".join(letter if letter.isprintable() else "?" for letter in text[:most])
    return plain if len(text) <= most else plain + "…"
