"""nbval runs our Markdown notebooks, in this very Python, whatever kernels the user has installed at home."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "---\njupytext:\n  text_representation:\n    extension: .md\n    format_name: myst\n"
KERNEL = "kernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n\n"
CELLS = """
```{code-cell} ipython3
import sys
assert sys.prefix == PREFIX
```

```{code-cell} ipython3
assert 1 + 1 == 3
```
"""


def run_pytest(folder: Path, *options: str) -> str:
    shutil.copy(ROOT / "conftest.py", folder)
    home = folder / "home"
    broken = home / ".local" / "share" / "jupyter" / "kernels" / "python3"
    broken.mkdir(parents=True)
    (broken / "kernel.json").write_text(json.dumps({"argv": ["no-such-program"], "display_name": "broken"}))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder)]
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "PYTEST"))}
    surroundings["HOME"] = str(home)
    return subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True).stdout


def test_markdown_notebooks_are_run_cell_by_cell(tmp_path):
    (tmp_path / "chapter.md").write_text(HEADER + KERNEL + CELLS.replace("PREFIX", repr(sys.prefix)))
    (tmp_path / "page.md").write_text("# Only prose\n\nNothing to run.\n")
    report = run_pytest(tmp_path, "--nbval-lax", "--nbval-current-env")
    assert "1 failed, 1 passed" in report, report
    assert "assert 1 + 1 == 3" in report


def test_without_nbval_no_notebook_is_collected(tmp_path):
    (tmp_path / "chapter.md").write_text(HEADER + KERNEL + CELLS)
    assert "no tests ran" in run_pytest(tmp_path)


def test_every_notebook_of_the_course_is_a_notebook_to_nbval():
    import jupytext

    notebooks = [*(ROOT / "book").glob("*.md"), *(ROOT / "solutions").glob("*.md")]
    with_code = [p for p in notebooks if "{code-cell}" in p.read_text("utf8")]
    assert with_code
    for path in with_code:
        assert path.read_text("utf8").startswith("---\njupytext:"), f"{path.name} has code but no jupytext header"
        assert any(cell.cell_type == "code" for cell in jupytext.read(path).cells)
