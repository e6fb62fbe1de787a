"""The pages of latents as HTML files, and an overview that sorts, filters and leads to them.

    monosemantic dashboard --index scratch/index --out scratch/pages
    monosemantic dashboard --index scratch/index --out scratch/some --latents 3 17 100-120
    monosemantic dashboard --index scratch/index --out scratch/paris --query 'token:" Paris"'

Afterwards open index.html in the folder. The files ask no server for anything, so a folder can be sent to somebody as
it is. A page takes about 30 kB; pages that are there already are left as they are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from solutions.analysis import ConceptTable, FeatureIndex, latent_table
from solutions.analysis.index.layout import checksum_of
from solutions.analysis.search import load_concepts, parse_query, search
from solutions.analysis.search.saved import concepts_path
from solutions.data.store_files import write_whole
from solutions.errors import InputError, count_option
from solutions.search import Parts
from solutions.shell import guarded
from solutions.targets import Target, get_target, neuronpedia_url
from solutions.visualization import save_browser, save_page

FORMAT, CARD = "monosemantic dashboard", "dashboard.json"
PAGES, OVERVIEW = "latents", "index.html"


def main(arguments: list[str], program: str) -> int:
    """Do what the command line says. Returns the exit code: 0, 1 for an error, 130 for Ctrl-C."""
    options = parser(program).parse_args(arguments)
    again = "The same line" + " without --start-over" * options.start_over
    return guarded(lambda: write(options), f"The pages that are written stay. {again} goes on with the others.")


def write(options: argparse.Namespace) -> None:
    """Write the pages that are asked for, and the overview."""
    target, index = get_target(options.target), FeatureIndex(options.index)
    parts = Parts(target, options.quiet)
    concepts = concepts_of(index, parts)
    latents = wanted(options, index, concepts, parts)
    folder = Path(options.out)
    open_folder(folder, index, concepts, options.start_over)
    written = write_pages(folder, index, latents, concepts, target, options.quiet)
    there = pages_in(folder)
    write_overview(folder, index, there, concepts, options.quiet)
    print(f"Pages: {written:,} written, {len(there):,} in all. Open {folder / OVERVIEW}")


# ---- which latents


def wanted(options: argparse.Namespace, index: FeatureIndex, concepts: ConceptTable | None, parts: Parts) -> list[int]:
    """The latents asked for by number or by a query; all of them when nothing is said."""
    if options.query is not None:
        query = parse_query(options.query)
        needs_text = "text" in {term.kind for term in query.terms()}
        results = search(index, query, options.k, concepts=concepts, read=parts.reader(index) if needs_text else None)
        if not results:
            raise InputError(f"no latent to write a page of: {results.empty_reason}")
        return results.latents
    numbers = [number for piece in options.latents or [f"0-{index.n_latents - 1}"] for number in numbers_in(piece)]
    for number in numbers:
        if number >= index.n_latents:
            raise InputError(f"--latents: the index has the latents 0 to {index.n_latents - 1}, got {number}.")
    return list(dict.fromkeys(numbers))


def numbers_in(piece: str) -> Iterable[int]:
    """The numbers in "17" or "100-120"."""
    first, _, last = piece.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal() or piece.endswith("-"):
        raise InputError(f"--latents: expected numbers such as 17, or ranges such as 100-120, got {piece!r}.")
    if int(last or first) < int(first):
        raise InputError(f"--latents: {piece} ends before it begins.")
    return range(int(first), int(last or first) + 1)


def concepts_of(index: FeatureIndex, parts: Parts) -> ConceptTable | None:
    """The concept table, where the text has concept labels; without one, the pages name no concept."""
    if concepts_path(index.path).is_file():
        return load_concepts(index)
    if parts.target.text != "smallworld":
        return None
    try:
        return parts.concepts(index)
    except InputError:
        parts.say("the index is not of the embedded world's first texts: the pages name no concepts")
        return None


# ---- the folder


def open_folder(folder: Path, index: FeatureIndex, concepts: ConceptTable | None, start_over: bool) -> None:
    """Make the folder, or make sure that what is in it belongs to this index.

    Raises:
        InputError: it holds something else, or pages of another index.
    """
    card = {"format": FORMAT, "index": checksum_of(index.manifest), "concepts": concepts is not None}
    found = _card_in(folder)
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and holds no dashboard, so nothing is written into it. Give the "
                         "pages a folder of their own.")
    if found not in (None, card) and not start_over:
        raise InputError(f"{folder} holds pages of another index, or of this one before it had concept labels. Give a "
                         "folder of its own, or --start-over to replace them.")
    if start_over:
        for number in pages_in(folder):
            (folder / PAGES / f"{number}.html").unlink()
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / CARD, json.dumps(card, indent=1).encode())
    (folder / PAGES).mkdir(exist_ok=True)


def _card_in(folder: Path) -> dict[str, Any] | None:
    """What the folder's card says; None when it has none that is ours."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return card if isinstance(card, dict) and card.get("format") == FORMAT else None


def pages_in(folder: Path) -> list[int]:
    """The latents that have a page in the folder, in order."""
    names = (path.stem for path in (folder / PAGES).glob("*.html"))
    return sorted(int(name) for name in names if name.isdecimal())


# ---- the files


def write_pages(
    folder: Path, index: FeatureIndex, latents: list[int], concepts: ConceptTable | None, target: Target, quiet: bool
) -> int:
    """Write the pages that are not there yet; each appears whole or not at all. Returns how many were written."""
    from tqdm.auto import tqdm

    there = set(pages_in(folder))
    missing = [latent for latent in latents if latent not in there]
    note = f"{index.hook}, on {index.n_content:,} tokens"
    links = {latent: f"{latent}.html" for latent in there.union(latents)}
    on_neuronpedia = is_the_targets(index, target)
    for latent in tqdm(missing, desc="pages", unit="page", disable=quiet):
        save_page(
            index.page(latent, concepts),
            folder / PAGES / f"{latent}.html",
            target_note=note,
            neuronpedia=neuronpedia_url(target, latent) if on_neuronpedia else None,
            overview=f"../{OVERVIEW}",
            links=links,
        )
    return len(missing)


def is_the_targets(index: FeatureIndex, target: Target) -> bool:
    """Whether the index was made with the SAE that stands on Neuronpedia under the target's address."""
    if target.neuronpedia_id is None:
        return False
    from solutions.sae import load_sae

    try:
        index.check_sae(load_sae(target, "cpu"))
    except InputError:
        return False
    return True


def write_overview(
    folder: Path, index: FeatureIndex, latents: list[int], concepts: ConceptTable | None, quiet: bool
) -> None:
    """A table with a row for every page, which leads to it."""
    table = latent_table(index, concepts, progress=not quiet).filter(latent=latents)
    save_browser(
        table,
        folder / OVERVIEW,
        title=f"{len(latents):,} latents at {index.hook}",
        sort="density" if concepts is None else "f1",
        link=f"{PAGES}/{{latent}}.html",
    )


def parser(program: str) -> argparse.ArgumentParser:
    """All options."""
    top = argparse.ArgumentParser(prog=program, description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--index", required=True, metavar="FOLDER", help="a feature index, from index")
    top.add_argument("--out", required=True, metavar="FOLDER", help="where the files go")
    which = top.add_mutually_exclusive_group()
    which.add_argument("--latents", nargs="+", metavar="N", help="such as 3 17 100-120; by default all")
    which.add_argument("--query", metavar="QUERY", help="the latents that a search finds, see the command search")
    top.add_argument("-k", type=count_option, default=10, metavar="N", help="how many of a search (default: 10)")
    top.add_argument("--target", help="whose concept labels; by default MONOSEMANTIC_TARGET, else smallworld")
    top.add_argument("--start-over", action="store_true", help="write the pages anew that are there already")
    top.add_argument("--quiet", action="store_true", help="no progress bar")
    return top
