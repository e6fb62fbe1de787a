"""Run the chapters whose results are not in the cache, as many at a time as there are processor cores.

Sphinx would run them too, but one after the other. It finds them in the cache instead. A chapter that fails here is
left to Sphinx, which runs it once more and says on which line it stopped.

Usage: `python book/run_chapters.py`, from `book/build.py`.
"""

import logging
import os
from pathlib import Path

import yaml
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from myst_nb.core.read import is_myst_markdown_notebook

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"
READER = {"name": "myst_nb_md", "type": "plugin"}  # the one Sphinx uses: a chapter read otherwise is another notebook
CELL_TIMEOUT = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["execute"]["timeout"]  # seconds


def chapters() -> list[Path]:
    """The pages in the table of contents that hold code to be run. The labs are meant to be unfinished."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    pages = [ROOT / f"{page['file']}.md" for part in contents["parts"] for page in part["chapters"]]
    return [page for page in pages if page.exists() and is_myst_markdown_notebook(page.read_text("utf8"))]


def main() -> None:
    """Fill the cache. Each kernel gets one thread: together they use what there is."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cache = get_cache(CACHE)
    pages = [str(page) for page in chapters()]
    for page in pages:
        cache.add_nb_to_project(page, read_data=READER)
    logger = logging.getLogger("chapters")
    logger.setLevel(logging.INFO)  # the executor then says, on stderr, which chapter begins and which is done
    executor = load_executor("local-parallel", cache, logger)
    left = executor.get_records(filter_uris=pages)
    if len(left) < 2:  # Sphinx does one as fast
        return
    print(f"Running {len(left)} chapters, up to {os.cpu_count()} at a time", flush=True)
    done = executor.run_and_cache(filter_uris=pages, timeout=CELL_TIMEOUT)
    for uri in done.succeeded:
        record = cache.get_cached_project_nb(uri)
        print(f"{Path(uri).relative_to(ROOT)}: {record.data['execution_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
