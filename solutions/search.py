"""Searching a feature index from the shell.

    python -m solutions.search --index scratch/index 'token:" Paris" & ~concept:city'
    python -m solutions.search --index scratch/index --build 1500 'regex:"^ (un|in)" & density:<1%'
    python -m solutions.search --index scratch/index 'text:"The Eiffel Tower"' -k 5
    python -m solutions.search --index scratch/index --json 'promotes:" Paris"' | jq .results[0].evidence

Put the whole query into single quotes, so that the shell leaves its marks alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from solutions.analysis import (
    ConceptTable,
    FeatureIndex,
    build_index,
    concept_table,
    labelled_texts,
    place_labels,
)
from solutions.analysis.search import Results, load_concepts, parse_query, save_concepts, search, text_reader
from solutions.analysis.search.parse import explained
from solutions.analysis.search.saved import concepts_path
from solutions.errors import InputError, count_option
from solutions.shell import DONE, NOTHING, guarded
from solutions.targets import Target, get_target

EPILOG = """terms of a query:

{terms}

exit code:
  0 something was found, 3 nothing was (the reason is printed), 1 an error, 2 a wrong option, 130 Ctrl-C
"""
#: What one types to get here; `monosemantic search` says so itself.
PROGRAM = "python -m solutions.search"
#: Share of the texts that --build puts aside for measuring.
TEST_SHARE = 0.3


def main(arguments: list[str] | None = None, program: str = PROGRAM) -> int:
    """Do what the command line says.

    Args:
        arguments: what stands after the command's name; by default the shell's.
        program: the command's name, for its help.

    Returns:
        The exit code, 0 when something was found, 3 for nothing found, 1 for an error, 130 for Ctrl-C.
    """
    options = parser(program).parse_args(arguments)
    return guarded(lambda: say(options), lambda: left_behind(options))


def say(options: argparse.Namespace) -> int:
    """Search and print what was found. Returns the exit code."""
    results = answer(options)
    print(json.dumps(results.to_json(), ensure_ascii=False) if options.json else readable(results))
    return DONE if results else NOTHING


def left_behind(options: argparse.Namespace) -> str:
    """What there is after Ctrl-C."""
    if options.build and not Path(options.index).exists():
        return "No index was made: the same line begins again."
    return "The index is as it was."


def answer(options: argparse.Namespace) -> Results:
    """Open what the query needs, and no more, and search."""
    query = parse_query(" ".join(options.query))  # a mistake shows before anything is loaded
    target = get_target(options.target)
    parts = Parts(target, options.quiet, options.sae)
    path = Path(options.index)
    if options.build and not path.exists():
        parts.build(path, options.build)
    if not path.exists():
        raise InputError(f"there is no feature index at {path}. build_index makes one; so does this line with "
                         f"--build 1500, of the first 1,500 texts of {target.name!r}.")
    index = FeatureIndex(path, verify=options.verify)
    kinds = {term.kind for term in query.terms()}
    concepts = parts.concepts(index) if "concept" in kinds or concepts_path(path).is_file() else None
    read = parts.reader(index) if "text" in kinds else None
    return search(index, query, options.k, concepts=concepts, read=read)


def readable(results: Results) -> str:
    """The results as text for a terminal, which obeys no control character in it."""
    from solutions.visualization import printable

    return "\n".join(printable(line) for line in str(results).split("\n"))


class Parts:
    """The model and what comes with it, loaded when something needs it."""

    def __init__(self, target: Target, quiet: bool, sae_folder: str | None = None):
        self.target, self.quiet, self.sae_folder = target, quiet, sae_folder
        self._model, self._sae = None, None

    def say(self, text: str) -> None:
        """Tell the reader what takes so long."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @property
    def model(self) -> Any:
        if self._model is None:
            from solutions.models import load_model

            self.say(f"loading the model of {self.target.name} …")
            self._model = load_model(self.target, "cpu")
        return self._model

    @property
    def sae(self) -> Any:
        if self._sae is None:
            from solutions.sae import load_sae, load_sae_from_disk

            folder = self.sae_folder
            self._sae = load_sae(self.target, "cpu") if folder is None else load_sae_from_disk(folder, "cpu")
        return self._sae

    def reader(self, index: FeatureIndex) -> Any:
        """What reads a typed text; the index has to be of this target's SAE."""
        try:
            index.check_sae(self.sae)
        except InputError as error:
            raise InputError(f"a text is read by the model and SAE of {self.target.name!r}. {error} Or name the "
                             "index's own target with --target, or its SAE with --sae.") from error
        return text_reader(self.model, self.sae, dataclasses.replace(self.target, hook=index.hook))

    def concepts(self, index: FeatureIndex) -> ConceptTable:
        """The concept table, from the file beside the index, else made from the embedded world's labels."""
        if concepts_path(index.path).is_file():
            return load_concepts(index)
        if self.target.text != "smallworld":
            raise InputError(f"the text of {self.target.name!r} has no concept labels; only the embedded text has. Ask "
                             "by token or by regex, or save a table of your own with save_concepts(…).")
        self.say(f"labelling {index.n_documents:,} texts and scoring all latents, once …")
        table = concept_table(index, *labels_of(self.model, index))
        save_concepts(table, index)
        return table

    def build(self, path: Path, n_documents: int) -> None:
        """Make an index of the target's first texts."""
        import tempfile

        from solutions.data import load_texts
        from solutions.models import harvest

        texts, hook = load_texts(self.target, n_documents), hook_of(self.sae, self.target)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            store = harvest(self.model, texts, hook, Path(folder) / "store", test_share=TEST_SHARE,
                            progress=not self.quiet)
            index_store(store, self.model, self.sae, hook, path, progress=not self.quiet)


def hook_of(sae: Any, target: Target) -> str:
    """The hook point that an SAE says it was trained on; the target's when it says nothing."""
    return sae.cfg.metadata.to_dict().get("hook_name") or target.hook


def index_store(store: Any, model: Any, sae: Any, hook: str, path: Any, **options: Any) -> FeatureIndex:
    """`build_index` with all that the model can add: its tokens as text, and what each latent promotes among them."""
    import torch

    from solutions.data import str_tokens
    from solutions.models import unembedding

    vocabulary, unembed = str_tokens(model, torch.arange(model.cfg.d_vocab)), unembedding(model)
    fits = unembed.shape[0] == sae.cfg.d_in
    return build_index(store, sae, hook, path, vocabulary=vocabulary, unembed=unembed if fits else None, **options)


def labels_of(model: Any, index: FeatureIndex) -> tuple[Any, tuple[str, ...]]:
    """The labels of an index of the embedded text, whichever of its splits it was made from, and their names."""
    for split in ("test", "train", "probe"):
        first = labelled_texts(model, 1, split).tokens
        ids = first.ids[first.mask].cpu()
        if ids.tolist() == index.ids[:len(ids)].tolist():
            world = labelled_texts(model, index.n_documents, split)
            return place_labels(index, world), world.concepts
    raise InputError(f"the index {index.path} was not made from the first texts of the embedded world, so their labels "
                     "do not fit. Ask by token or by regex, or save a table of your own with save_concepts(…).")


# ---- the command line


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """All options."""
    top = argparse.ArgumentParser(
        prog=program,
        description=__doc__.replace(PROGRAM, program),
        epilog=EPILOG.format(terms=explained()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("query", nargs="+", metavar="QUERY", help="what to look for, see below")
    top.add_argument("--index", required=True, metavar="FOLDER", help="a feature index, from build_index or --build")
    top.add_argument("-k", type=count_option, default=10, metavar="N", help="latents shown (default: 10)")
    top.add_argument("--json", action="store_true", help="one JSON object instead of text")
    top.add_argument("--target", help="whose model reads texts; by default MONOSEMANTIC_TARGET, else smallworld")
    top.add_argument("--sae", metavar="FOLDER", help="an SAE that you have trained; by default the target's")
    top.add_argument("--build", type=count_option, metavar="N",
                     help="if there is no index yet, make one of N of its texts")
    top.add_argument("--verify", action="store_true", help="compare all checksums of the index first")
    top.add_argument("--quiet", action="store_true", help="nothing but the answer")
    return top


if __name__ == "__main__":
    sys.exit(main())
