"""The folder of data sets."""

import os
from pathlib import Path


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder in which data sets are looked for and into which they are downloaded.

    Args:
        folder: the folder itself; else that of the environment variable `JAXDL_DATA`; else the
            platform's cache folder for jaxdl (`~/.cache/jaxdl` on Linux).
    """
    chosen = folder or os.environ.get("JAXDL_DATA")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("jaxdl", appauthor=False)
