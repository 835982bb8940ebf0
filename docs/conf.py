"""Sphinx builds the pages: `sphinx-build -W --keep-going docs docs/_build`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import jaxdl  # noqa: E402

project = "jaxdl"
author = "the jaxdl authors"
release = jaxdl.__version__
version = release

extensions = ["docstrings", "sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = ["_build"]

html_theme = "sphinx_book_theme"
html_title = "jaxdl"
html_theme_options = {"show_toc_level": 2}

default_role = "code"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
