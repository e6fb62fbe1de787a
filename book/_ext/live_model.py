"""Sphinx extension: gives the live page its model, and loads its scripts on that page only.

What the page loads is exported once (`live_export`) and kept in `_build/live`, in a folder named after everything
that it depends on: when an artefact or a module changes, it is made again. It is never part of the repository.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "_build" / "live"
MARK = 'id="live"'  # in the page's HTML
SCRIPTS = ("live.js", "manifest.js", "tokenizer.js", "engine.js", "loading.js", "view.js", "page.js")
STYLES = ("shades.css", "live.css")
MADE_FROM = ("solutions/**/*.py", "solutions/smallworld/artifacts/MANIFEST.json", "book/_ext/live_*.py")
logger = logging.getLogger(__name__)


def fingerprint(root: Path = ROOT) -> str:
    """A name for everything an export depends on: the artefacts, by their checksums, and the code."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in MADE_FROM for path in root.glob(pattern)}):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def exported(kept: Path = KEPT) -> Path:
    """The folder with the page's model, made now if there is none for the artefacts and the code as they are."""
    folder = kept / fingerprint()
    if not (folder / "manifest.js").is_file():
        from live_export import export

        logger.info("exporting the live page's model ...")
        draft = kept / "draft"
        shutil.rmtree(kept, ignore_errors=True)  # what was made from something else is of no use to anybody
        draft.mkdir(parents=True)
        export(draft)
        draft.rename(folder)
    return folder


def copy_model(app):
    """Before the pages are written: Sphinx names each script after what is in it, so it has to be there."""
    if app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "live")
    source = exported()
    target.mkdir(parents=True, exist_ok=True)
    names = {file.name for file in source.iterdir()}
    for stale in target.glob("part-*.js"):
        if stale.name not in names:
            stale.unlink()
    for file in source.iterdir():
        if file.name == "manifest.js" or not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)


def add_scripts(app, pagename, templatename, context, doctree):
    if MARK in context.get("body", ""):
        for number, name in enumerate(SCRIPTS):
            app.add_js_file(f"live/{name}", loading_method="defer", priority=800 + number)
        for name in STYLES:
            app.add_css_file(f"live/{name}")


def setup(app):
    app.connect("builder-inited", copy_model)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
