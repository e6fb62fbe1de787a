"""Activation stores from the shell.

    python -m solutions.data harvest --out scratch/store --documents 2000
    python -m solutions.data harvest --out scratch/mine --texts my_texts/ --hooks blocks.1.hook_mlp_out --dtype float16
    python -m solutions.data info scratch/store
    python -m solutions.data verify scratch/store

A harvest that was stopped, by Ctrl-C or by a power cut, goes on when the same line is given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from solutions.data import DTYPES, ActivationStore, open_texts
from solutions.data.store_files import MANIFEST
from solutions.errors import CourseError
from solutions.shell import guarded


def harvest_command(options: argparse.Namespace) -> None:
    """Run a target's model over texts and store what flows through it."""
    # Rooms import only what stands to their left, and models stand to the right of data. A shell command is no
    # part of the room: it is where a person puts the two together. Nobody imports this file.
    from solutions.models import SHARD_TOKENS, harvest, load_model
    from solutions.targets import get_target

    target = get_target(options.target)
    source = options.texts or target.text
    if source == "smallworld" and options.documents is None:
        raise CourseError("the embedded text never ends: say how much of it, e.g. --documents 2000.")
    texts = open_texts(source, options.documents, options.split, options.column)
    store = harvest(
        load_model(target, options.device),
        texts,
        options.hooks or [target.hook],
        options.out,
        context_size=options.context_size,
        batch_size=options.batch_size,
        dtype=options.dtype,
        shard_tokens=options.shard_tokens or SHARD_TOKENS,
        test_share=options.test_share,
        seed=options.seed,
        resume=not options.start_over,
        progress=not options.quiet,
        n_documents=options.documents,
    )
    print(store)


def info_command(options: argparse.Namespace) -> None:
    """Say what a store holds."""
    store = ActivationStore(options.store)
    manifest, documents = store.manifest, store.documents
    rows = {
        "state": "complete" if store.is_complete else "unfinished: the same harvest goes on",
        "target": manifest["target"],
        "model": manifest["model"],
        "processing": ", ".join(manifest["processing"] or ["none"]),
        "hook points": ", ".join(f"{hook} [{store.width(hook)}]" for hook in store.hooks),
        "dtype": manifest["dtype"],
        "context": f"{manifest['context_size']} tokens" + (", BOS first" if manifest["prepend_bos"] else ""),
        "documents": f"{store.n_documents:,}, {(documents['split'] == 'test').sum():,} of them for testing",
        "tokens": f"{store.n_tokens:,}, BOS left out {store.n_content:,}",
        "on disk": f"{store.n_bytes / 1e6:,.1f} MB in {len(manifest['shards'])} shards",
        "kinds of text": ", ".join(f"{kind} {n}" for kind, n in documents["kind"].value_counts().head(12).items()),
    }
    for name, value in rows.items():
        print(f"{name:14}{value}")


def verify_command(options: argparse.Namespace) -> None:
    """Compare every file of a store with its checksum."""
    store = ActivationStore(options.store)
    store.verify()
    print(f"{len(store.manifest['shards'])} shards, {store.n_bytes / 1e6:,.1f} MB: every checksum is right.")


def parser(program: str = "python -m solutions.data") -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog=program, description="Activation stores from the shell.")
    commands = top.add_subparsers(required=True, metavar="harvest | info | verify")

    text = "fill a store with a model's activations"
    more = f"""{text.capitalize()}: every text runs through the model once, and what flows through it is kept.

    {program} harvest --out scratch/store --documents 2000

A harvest that was stopped, by Ctrl-C or by a power cut, goes on when the same line is given again."""
    new = commands.add_parser("harvest", help=text, description=more,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    new.set_defaults(run=harvest_command)
    new.add_argument("--out", required=True, metavar="FOLDER", help="the store's folder")
    new.add_argument("--target", help="what is studied; by default what MONOSEMANTIC_TARGET says, else smallworld")
    new.add_argument("--hooks", nargs="+", metavar="HOOK", help="hook points; by default the target's")
    new.add_argument(
        "--texts", metavar="SOURCE", help="smallworld, a file or folder, or a dataset; by default the target's"
    )
    new.add_argument("--documents", type=int, metavar="N", help="how many texts; by default all")
    new.add_argument("--split", help="which part of the texts; by default train")
    new.add_argument("--column", default="text", help="where a dataset keeps its texts (default: text)")
    new.add_argument("--dtype", default="float32", choices=list(DTYPES), help="default: float32")
    new.add_argument("--context-size", type=int, metavar="TOKENS", help="longest text; by default the target's")
    new.add_argument("--batch-size", type=int, default=32, metavar="ROWS", help="default: 32")
    new.add_argument("--shard-tokens", type=int, metavar="TOKENS", help="tokens in a file, at most")
    new.add_argument("--test-share", type=float, default=0.1, metavar="SHARE", help="default: 0.1")
    new.add_argument("--seed", type=int, default=0, help="draws the documents for testing (default: 0)")
    new.add_argument("--device", help="cpu, cuda, mps; by default the GPU where there is one")
    new.add_argument("--start-over", action="store_true", help="throw away what is in the store")
    new.add_argument("--quiet", action="store_true", help="no progress bar")

    for name, run, text in (
        ("info", info_command, "say what a store holds"),
        ("verify", verify_command, "compare every file with its checksum"),
    ):
        command = commands.add_parser(name, help=text)
        command.set_defaults(run=run)
        command.add_argument("store", metavar="FOLDER")
    return top


def main(arguments: list[str] | None = None, program: str = "python -m solutions.data") -> int:
    """Do what the command line says. Returns the exit code: 0, 1 for an error, 130 for Ctrl-C."""
    options = parser(program).parse_args(arguments)
    return guarded(lambda: options.run(options), lambda: left_behind(options))


def left_behind(options: argparse.Namespace) -> str:
    """What there is after Ctrl-C."""
    if options.run is not harvest_command:
        return "Nothing was changed."
    if not (Path(options.out) / MANIFEST).is_file():
        return "Nothing was stored yet: the same line begins again."
    again = "The same line" + " without --start-over" * options.start_over
    return f"The files that are stored stay. {again} goes on behind them."


if __name__ == "__main__":
    sys.exit(main())
