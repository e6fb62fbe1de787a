"""pytest for the whole repository: nbval reads our Markdown notebooks as well as .ipynb files.

nbval itself only looks at `*.ipynb`. A chapter or a solved lab is MyST Markdown with a jupytext header; read through
jupytext it is an ordinary notebook, and everything else in nbval stays as it is.
"""

import os
from unittest import mock

import jupytext
from nbval.plugin import IPyNbFile

# nbval starts its kernels in the interpreter that runs pytest. Whatever asks for "python3" should get it, too.
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")


class MystNotebook(IPyNbFile):
    """A MyST Markdown notebook, collected cell by cell."""

    def collect(self):
        with mock.patch("nbval.plugin.nbformat.read", lambda path, as_version: jupytext.read(path)):
            yield from super().collect()


def pytest_collect_file(file_path, parent):
    """Collect `*.md` files that carry a jupytext header, when pytest runs with --nbval or --nbval-lax."""
    option = parent.config.option
    if file_path.suffix == ".md" and (option.nbval or option.nbval_lax):
        if file_path.read_text("utf8").startswith("---\njupytext:"):
            return MystNotebook.from_parent(parent, path=file_path)
