"""The live page without the site around it: its program, an exported model, and the markup of book/live.md."""

import base64
import re
import shutil
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
PROGRAM = ROOT / "book" / "_static" / "live"
READY = "() => ['ready', 'failed'].includes(document.getElementById('live').dataset.state)"


def markup() -> str:
    """What book/live.md puts into the page."""
    return re.search(r"```\{raw\} html\n(.*?)```", (ROOT / "book" / "live.md").read_text("utf8"), re.DOTALL)[1]


def write_page(folder: Path, **sizes: int) -> dict:
    """Everything a browser needs, in one folder, with the page as index.html; returns the model's manifest."""
    import live_export
    import live_model

    manifest = live_export.export(folder, **sizes)
    for file in PROGRAM.iterdir():
        shutil.copy(file, folder)
    styles = "".join(f'<link rel="stylesheet" href="{name}">' for name in live_model.STYLES)
    scripts = "".join(f'<script defer src="{name}"></script>' for name in live_model.SCRIPTS)
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Live</title>'
        f'<meta name="viewport" content="width=device-width">{styles}{scripts}</head>'
        f"<body><main><h1>Live</h1>{markup()}</main>"
        "<script>document.documentElement.dataset.theme = localStorage.getItem('theme')</script></body></html>",
        encoding="utf-8",
    )
    return manifest


def press_start(page) -> None:
    """Ask for the model, and wait until it is there or has failed."""
    page.locator(".live-start").click()
    page.wait_for_function(READY)


#: Numbers travel as base64: as decimal text they would take ten times as long.
PACK = """(array) => {
    const bytes = new Uint8Array(Float32Array.from(array).buffer), parts = [];
    for (let i = 0; i < bytes.length; i += 8192) parts.push(String.fromCharCode(...bytes.subarray(i, i + 8192)));
    return btoa(parts.join(""));
}"""


def unpacked(text: str, *shape: int) -> np.ndarray:
    """The numbers that `PACK` packed."""
    return np.frombuffer(base64.b64decode(text), "<f4").reshape(shape)
