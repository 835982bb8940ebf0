"""What the loaders say when the data on disk is not what it should be."""


class DataError(ValueError):
    """Data that is missing, short, altered or cannot be fetched; the message names the file and says what to do."""


class Damage(DataError):
    """What is wrong with a file, as the second half of a sentence whose subject is the file."""
