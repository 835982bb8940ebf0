"""Where data are looked for."""

from pathlib import Path

import platformdirs
import pytest

from jaxdl.data.folder import data_folder


def test_the_folder_is_the_argument_or_the_variable_or_the_cache(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("JAXDL_DATA", "/from/variable")
    assert data_folder("/from/argument") == Path("/from/argument")
    assert data_folder(Path("~/data")) == Path.home() / "data"
    assert data_folder() == Path("/from/variable")
    monkeypatch.setenv("JAXDL_DATA", "")
    assert data_folder() == Path(platformdirs.user_cache_dir("jaxdl", appauthor=False))
    monkeypatch.delenv("JAXDL_DATA")
    assert data_folder().name == "jaxdl"
