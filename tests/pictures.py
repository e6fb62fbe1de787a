"""`make pictures`: the README's three pictures, taken from the built site with the Chromium on this machine.

Each picture is a figure of chapter 1, named by the section in which it stands.
"""

import sys

from browsing import ROOT, chromium_path, launch, scroll_through, serve, site_pages, visit

PICTURES = ROOT / "book" / "_static" / "pictures"
CHAPTER = "book/01_setup_and_exploration.html"
SECTIONS = {
    "tokens": "one-feature-investigated",
    "mistake": "question-1-how-many-latents-per-token",
    "latent": "the-page-of-a-feature",
}
WINDOW = {"width": 900, "height": 1000}
TALLEST = 620  # pixels: the three stand side by side
PLAIN = f"""
    * {{ transition: none !important }}
    .bd-sidebar-primary, .bd-sidebar-secondary {{ display: none !important }}
    header, .bd-header-article, .skip-link, #pst-skip-link {{ display: none !important }}
    .plotly-figure {{ max-height: {TALLEST}px; overflow: hidden }}
"""


def main() -> int:
    if CHAPTER not in site_pages():
        print("The site has not been built. First: make book", file=sys.stderr)
        return 1
    if chromium_path() is None:
        print("No Chromium on the path (chromium, chromium-browser, google-chrome).", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    with serve() as base, launch() as browser, visit(browser, base, CHAPTER, viewport=WINDOW) as seen:
        scroll_through(seen.page)
        seen.page.add_style_tag(content=PLAIN)  # what floats over the page would float over the picture
        seen.page.wait_for_timeout(1000)  # the figures take up the room that became free
        for name, section in SECTIONS.items():
            target = PICTURES / f"{name}.png"
            seen.page.locator(f"section#{section} .plotly-figure").first.screenshot(path=target)
            print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
