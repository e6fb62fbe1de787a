"""`make pictures`: the README's pictures, taken from the built site with the Chromium on this machine.

Each picture is a figure of a page, the first of the section named here. Its example outputs: see `readme.py`.
"""

import sys

from browsing import ROOT, chromium_path, launch, scroll_through, serve, site_pages, visit

PICTURES = ROOT / "book" / "_static" / "pictures"
CHAPTER, DEMO = "book/01_setup_and_exploration.html", "book/demo.html"
#: Name of the picture -> the page it is taken from, and the section.
PLACES = {
    "tokens": (CHAPTER, "one-feature-investigated"),
    "mistake": (CHAPTER, "question-1-how-many-latents-per-token"),
    "latent": (CHAPTER, "the-page-of-a-feature"),
    "passage": (DEMO, "what-the-sae-sees"),
    "detectors": (DEMO, "which-of-them-make-the-model-speak-french"),
    "steering": (DEMO, "how-much-is-too-much"),
}
WINDOW = {"width": 900, "height": 1000}
TALLEST = 620  # pixels: the three stand side by side
PLAIN = f"""
    * {{ transition: none !important }}
    .bd-sidebar-primary, .bd-sidebar-secondary {{ display: none !important }}
    header, .bd-header-article, .skip-link, #pst-skip-link {{ display: none !important }}
    .plotly-figure {{ max-height: {TALLEST}px; overflow: hidden }}
"""


def take(page, name: str, section: str) -> None:
    """Take one picture from a page that is open."""
    target = PICTURES / f"{name}.png"
    page.locator(f"section#{section} .plotly-figure").first.screenshot(path=target)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")


def main() -> int:
    pages = dict.fromkeys(page for page, _ in PLACES.values())
    if not set(pages) <= set(site_pages()):
        print("The site has not been built. First: make book", file=sys.stderr)
        return 1
    if chromium_path() is None:
        print("No Chromium on the path (chromium, chromium-browser, google-chrome).", file=sys.stderr)
        return 1
    PICTURES.mkdir(parents=True, exist_ok=True)
    with serve() as base, launch() as browser:
        for path in pages:
            with visit(browser, base, path, viewport=WINDOW) as seen:
                scroll_through(seen.page)
                seen.page.add_style_tag(content=PLAIN)  # what floats over the page would float over the picture
                seen.page.wait_for_timeout(1000)  # the figures take up the room that became free
                for name, (page, section) in PLACES.items():
                    if page == path:
                        take(seen.page, name, section)
    return 0


if __name__ == "__main__":
    sys.exit(main())
