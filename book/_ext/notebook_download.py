"""Sphinx extension: every page with code offers itself as a notebook, to be run and changed elsewhere.

The notebook is made when the site is built: from the page's own source, without results. What only Sphinx understands
becomes plain text: numbers that the site puts into the text, citations, terms, links to other pages. Cells that the
site hides are folded.

It runs where the course is installed, without the tools that make the site: the one name that a page takes from them,
`glue`, is defined in the notebook itself. And it is there to be changed: where the text says what is no longer so, the
site's build must stop, but a reader is told and goes on.
"""

import ast
import html
import json
import re
from pathlib import Path

import jupytext
import nbformat
from myst_nb.core.read import is_myst_markdown_notebook
from pybtex.database import parse_file
from sphinx.util import logging

logger = logging.getLogger(__name__)
ROLE = re.compile(r"\{(glue:text|term|doc|cite:t|cite:p|cite|py:\w+)\}`([^`]+)`")
EXPLICIT = re.compile(r"^(.*?)\s*<([^<>]+)>$", re.S)  # "shown text <target>"
GLUE_IMPORT = "from myst_nb import glue"
GLUE = '''def glue(name, value, display=False):
    """On the site, this puts a value into the text. Here the text has it already."""'''
FOLDED = {"remove-cell", "remove-input", "hide-cell", "hide-input"}
CLAIM = re.compile(r'raise AssertionError\(f".* says what is no longer so.*: \{sentence\}"\)')
TOLD = 'print(f"The text says, and here it is not so: {sentence}")'
GREETING = """\
*From {project}, the page "{title}". It runs where the course is installed: in its folder after `make lab`, or anywhere
after `pip install` of that folder. Numbers in the text are the site's; yours may differ in the last digits.*"""


def glued(path: Path) -> dict[str, str]:
    """The values that a page's cells put into its text, from the file that myst-nb leaves beside the executed page."""
    if not path.exists():
        return {}
    values = {}
    for name, output in json.loads(path.read_text("utf8")).items():
        shown = output["data"].get("text/plain", "")
        try:
            value = ast.literal_eval(shown)  # a string is stored with its quotation marks
        except (ValueError, SyntaxError):
            value = shown
        values[name] = str(value)
    return values


def short_citations(bibliography: Path) -> dict[str, tuple[str, str]]:
    """For every key (authors, year), e.g. ("Bricken et al.", "2023")."""
    found = {}
    for key, entry in parse_file(str(bibliography)).entries.items():
        people = [" ".join(person.last_names).strip("{}") for person in entry.persons.get("author", [])]
        if len(people) > 2:
            names = f"{people[0]} et al."
        else:
            names = " and ".join(people) or entry.fields.get("title", key)
        found[key] = names, entry.fields.get("year", "")
    return found


def plain(text: str, values: dict[str, str], citations: dict[str, tuple[str, str]], titles: dict[str, str]) -> str:
    """Markdown without Sphinx's roles.

    Args:
        text: a text cell.
        values: what `{glue:text}` stands for, by name.
        citations: (authors, year) by key.
        titles: the titles of the site's pages, by the last part of their names.

    Raises:
        KeyError: for a name that is not known; it is the message.
    """

    def cite(role: str, keys: str) -> str:
        known = [citations[key.strip()] for key in keys.split(",")]
        if role == "cite:t":
            return ", ".join(f"{names} ({year})" for names, year in known)
        return "(" + "; ".join(f"{names}, {year}" for names, year in known) + ")"

    def written(match: re.Match) -> str:
        role, content = match.groups()
        if role == "glue:text":
            return values[content.split(":")[0]]
        if role.startswith("cite"):
            return cite(role, content)
        if explicit := EXPLICIT.match(content):
            return explicit[1]
        if role.startswith("py:"):
            return f"`{content.removeprefix('~')}`"
        return content if role == "term" else titles[content.rsplit("/", 1)[-1]]

    return ROLE.sub(written, text)


def as_notebook(source: str, title: str, project: str, convert) -> nbformat.NotebookNode:
    """The notebook to be downloaded, made from a page's source. `convert` turns a text cell into plain Markdown."""
    page = jupytext.reads(source, fmt="md:myst")
    cells = [nbformat.v4.new_markdown_cell(GREETING.format(project=project, title=title))]
    if any(GLUE_IMPORT in cell.source for cell in page.cells):
        cells.append(nbformat.v4.new_code_cell(GLUE, metadata={"jupyter": {"source_hidden": True}}))
    for cell in page.cells:
        if cell.cell_type != "code":
            cells.append(nbformat.v4.new_markdown_cell(convert(cell.source)))
            continue
        tags = cell.metadata.get("tags", [])
        folded = {"jupyter": {"source_hidden": True}} if FOLDED & set(tags) else {}
        code = "\n".join(line for line in cell.source.splitlines() if line.strip() != GLUE_IMPORT)
        code = CLAIM.sub(lambda _: TOLD, code)
        if code.strip():
            cells.append(nbformat.v4.new_code_cell(code, metadata={"tags": tags, **folded} if tags else folded))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # nbformat's own are random: the same source gives the same file
    made = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": page.metadata["kernelspec"]})
    nbformat.validate(made)
    return made


def is_notebook(app, pagename: str) -> bool:
    """Whether a page is written as a Markdown notebook."""
    path = Path(app.env.doc2path(pagename)) if pagename in app.env.found_docs else Path()
    return path.suffix == ".md" and is_myst_markdown_notebook(path.read_text("utf8"))


def address(pagename: str) -> str:
    """Where the notebook of a page lies in the site; the theme's own download button looks there, too."""
    return f"_sources/{pagename}.ipynb"


def write_notebooks(app, exception):
    if exception or app.builder.name != "html":
        return
    citations = {}
    for bibliography in app.config.bibtex_bibfiles:
        citations |= short_citations(Path(app.srcdir, bibliography))
    titles = {name.rsplit("/", 1)[-1]: title.astext() for name, title in app.env.titles.items()}
    for name in sorted(filter(lambda name: is_notebook(app, name), app.env.found_docs)):
        values = glued(Path(app.outdir).parent / "jupyter_execute" / f"{name}.glue.json")
        source = Path(app.env.doc2path(name)).read_text("utf8")
        try:
            made = as_notebook(source, titles[name.rsplit("/", 1)[-1]], app.config.html_title,
                               lambda text, values=values: plain(text, values, citations, titles))
        except KeyError as error:
            logger.warning("no notebook to download: nothing is known by the name %s", error, location=name)
            continue
        target = Path(app.outdir, address(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(nbformat.writes(made, indent=1) + "\n", "utf8")


def offer(app, pagename, templatename, context, doctree):
    """A link below the page's title, and an entry in the theme's download menu."""
    if "body" not in context or not is_notebook(app, pagename):
        return
    context["ipynb_source"] = f"{pagename}.ipynb"
    url = html.escape(context["pathto"](address(pagename), 1))
    link = (f'<p class="notebook-download"><a download href="{url}">Download this page as a notebook</a> '
            "to run and change it yourself.</p>")
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def setup(app):
    app.connect("html-page-context", offer, priority=100)  # before the theme makes its buttons
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
