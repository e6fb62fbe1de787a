"""Run the chapters whose results are not in the cache, as many at a time as there are processor cores.

Sphinx would run them too, but one after the other. It finds them in the cache instead. A chapter that fails here is
left to Sphinx, which runs it once more and says on which line it stopped.

`make test` runs every chapter with nbval first. What a chapter shows there is kept in the cache as well (`keep`), so
that the same code does not run a second time for the site.

Usage: `python book/run_chapters.py`, from `book/build.py`.
"""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors import load_executor
from jupyter_cache.readers import get_reader
from myst_nb.core.read import is_myst_markdown_notebook
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "_build" / ".jupyter_cache"
READER = {"name": "myst_nb_md", "type": "plugin"}  # the one Sphinx uses: a chapter read otherwise is another notebook
CELL_TIMEOUT = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["execute"]["timeout"]  # seconds


def chapters() -> list[Path]:
    """The pages in the table of contents that hold code to be run. The labs are meant to be unfinished."""
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    pages = [ROOT / f"{page['file']}.md" for part in contents["parts"] for page in part["chapters"]]
    return [page for page in pages if page.exists() and is_myst_markdown_notebook(page.read_text("utf8"))]


def keep(page: Path, messages: Iterable[dict], language: dict, folder: Path) -> bool:
    """Put into the cache in `folder` what a page showed while somebody else ran it, as if it had been run here.

    `messages` is all that the kernel published, and `language` what it says of itself (`language_info`). nbclient makes
    outputs of the messages, as it does when it runs a notebook itself. A page is kept only when every cell of it ran,
    in order, and when nothing happened that needs an answer: an unexpected exception, or a widget.
    """
    notebook = get_reader(READER)(str(page))
    cells = {i: cell for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()}
    runs = one_list_for_each_cell(messages)
    if not cells or [source for source, _ in runs] != [cell.source for cell in cells.values()]:
        return False
    client = NotebookClient(notebook, record_timing=False)
    client.reset_execution_trackers()
    for (i, cell), (_, run) in zip(cells.items(), runs, strict=True):
        kinds = {message["msg_type"] for message in run}
        expected = "raises-exception" in cell.metadata.get("tags", [])
        if any(kind.startswith("comm") for kind in kinds) or ("error" in kinds and not expected):
            return False
        client.clear_before_next_output = False
        try:
            for message in run:
                client.process_message(message, cell, i)
        except CellExecutionComplete:
            continue
        return False  # the kernel never came to rest
    notebook.metadata["language_info"] = language
    cache = get_cache(folder)
    try:
        cache.match_cache_notebook(notebook)
    except KeyError:
        began, ended = (runs[i][1][i]["header"]["date"] for i in (0, -1))
        data = {"execution_seconds": (ended - began).total_seconds()}
        cache.cache_notebook_bundle(CacheBundleIn(notebook, str(page), data=data), check_validity=False)
    return True


def one_list_for_each_cell(messages: Iterable[dict]) -> list[tuple[str, list[dict]]]:
    """Every piece of code that was run, in order, and the messages that belong to it."""
    runs: dict[str, list[dict]] = {}
    sources: dict[str, str] = {}
    for message in messages:
        run = message["parent_header"].get("msg_id")
        runs.setdefault(run, []).append(message)
        if message["msg_type"] == "execute_input" and message["content"]["code"].strip():
            sources[run] = message["content"]["code"]
    return [(source, runs[run]) for run, source in sources.items()]


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
