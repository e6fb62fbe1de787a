"""The README's example outputs, taken from the demo as the site's build has run it.

In the README an example stands between two comments, `<!-- demo: readme-NAME -->` and `<!-- end of demo -->`. The cell
of `book/demo.md` with the tag `readme-NAME` is what is shown there: its code, then what it printed.

    python tests/readme.py            write what the last build printed
    python tests/readme.py --check    only say whether it is what stands there; the exit code is 1 when it is not
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nbformat
from jupyter_cache import get_cache
from myst_nb.core.read import myst_nb_reader_plugin

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DEMO = ROOT / "book" / "demo.md"
CACHE = ROOT / "_build" / ".jupyter_cache"  # of executed notebooks: what the site shows comes from there
BEGINNING, END = "<!-- demo:", "<!-- end of demo -->"
EXAMPLE = re.compile(rf"({BEGINNING} (readme-[\w-]+) -->\n)((?:(?!{BEGINNING}).)*?)({END})", re.DOTALL)


class Example(NamedTuple):
    """A cell of the demo that the README shows."""

    code: str
    """Its source."""
    output: str
    """What it printed, then its value, as plain text. Empty when it has not been run."""

    def markdown(self) -> str:
        """Code and output as they stand in the README."""
        return f"```python\n{self.code}\n```\n\n```text\n{self.output}\n```\n"


def executed() -> nbformat.NotebookNode | None:
    """The demo as the last build ran it; None when no build has run this very text."""
    if not CACHE.is_dir():
        return None
    try:
        return get_cache(CACHE).merge_match_into_notebook(myst_nb_reader_plugin(str(DEMO)))[1]
    except KeyError:
        return None


def examples(notebook: nbformat.NotebookNode) -> dict[str, Example]:
    """Tag to example, for every cell of a notebook with a tag that begins with `readme-`."""
    found = {}
    for cell in notebook.cells:
        for tag in cell.metadata.get("tags", ()):
            if tag.startswith("readme-"):
                printed = [text for output in cell.get("outputs", ()) if (text := plain(output))]
                lines = "\n".join(printed).splitlines()
                found[tag] = Example(cell.source.strip(), "\n".join(line.rstrip() for line in lines))
    return found


def plain(output: Mapping) -> str:
    """What a cell's output says without pictures; nothing for what went to stderr."""
    if output["output_type"] == "stream":
        return output["text"].rstrip() if output["name"] == "stdout" else ""
    return str(output.get("data", {}).get("text/plain", "")).rstrip()


def filled(readme: str, shown: Mapping[str, Example]) -> str:
    """The README with every example as it is now.

    Raises:
        ValueError: an example is not in the demo, has no output, or is not closed.
    """

    def now(match: re.Match) -> str:
        begin, name, _, end = match.groups()
        if name not in shown:
            raise ValueError(f"the README shows {name!r}, and no cell of book/demo.md has this tag.")
        if not shown[name].output:
            raise ValueError(f"the cell {name!r} of book/demo.md has printed nothing.")
        return begin + shown[name].markdown() + end

    text, n = EXAMPLE.subn(now, readme)
    if n != readme.count(BEGINNING):
        raise ValueError(f"an example of the README is not closed by {END}.")
    return text


def main(arguments: list[str]) -> int:
    demo = executed()
    if demo is None:
        print("The site has not been built. First: make book", file=sys.stderr)
        return 1
    before = README.read_text("utf8")
    after = filled(before, examples(demo))
    if before == after:
        print("README.md shows what the demo prints.")
        return 0
    if arguments == ["--check"]:
        print("README.md does not show what the demo prints now. Run: make pictures", file=sys.stderr)
        return 1
    README.write_text(after, "utf8")
    print("README.md: the examples are those of the last build.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
