"""pytest for the whole repository: nbval reads our Markdown notebooks as well as .ipynb files.

nbval itself only looks at `*.ipynb`. A chapter or a solved lab is MyST Markdown with a jupytext header; read through
jupytext it is an ordinary notebook, and everything else in nbval stays as it is.

With `--keep-results` the site's build finds in its cache what the chapters showed, and need not run them again.
"""

import os
import sys
from pathlib import Path
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

    def setup(self):
        # A kernel that knows that it is tested does not hear what other programs and libraries write to the terminal.
        unaware = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        with mock.patch.dict(os.environ, unaware, clear=True):
            super().setup()
        self.heard = []
        if self.config.option.keep_results:
            # nbval asks the kernel to forget each cell. A reader's kernel counts them, and so does the cache.
            execute = self.kernel.kc.execute
            self.kernel.kc.execute = lambda code, **how: execute(code, **how | {"store_history": True})

    def get_kernel_message(self, timeout=None, stream="iopub"):
        message = super().get_kernel_message(timeout, stream)
        if self.config.option.keep_results:
            self.heard.append(message)
        return message

    def teardown(self):
        try:
            if self.config.option.keep_results and self.kernel is not None and self.kernel.is_alive():
                self.keep_results(Path(self.config.option.keep_results))
        finally:
            super().teardown()

    def keep_results(self, cache):
        """Let the site's build have what the cells showed."""
        sys.path.insert(0, str(Path(__file__).parent / "book"))
        from run_chapters import keep

        answer = self.kernel.kc.kernel_info(reply=True, timeout=60)
        keep(self.path, self.heard, answer["content"]["language_info"], cache)


def pytest_addoption(parser):
    parser.addoption("--keep-results", metavar="FOLDER", help="keep what Markdown notebooks show in this jupyter cache")


def pytest_collect_file(file_path, parent):
    """Collect `*.md` files that carry a jupytext header, when pytest runs with --nbval or --nbval-lax."""
    option = parent.config.option
    if file_path.suffix == ".md" and (option.nbval or option.nbval_lax):
        if file_path.stem.endswith("_starter"):
            return None  # its notebook in labs/ is the same, and is run
        if file_path.read_text("utf8").startswith("---\njupytext:"):
            return MystNotebook.from_parent(parent, path=file_path)
