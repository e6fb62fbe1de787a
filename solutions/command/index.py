"""A feature index: where every latent of an SAE is active in a store, and how strongly.

    monosemantic index --store scratch/store --out scratch/index
    monosemantic index --store scratch/store --out scratch/mine --sae scratch/run/sae

Before it is made, model, SAE and store are compared, and L0 and explained variance are measured on tokens of the store.
An index appears whole or not at all. One that is there already, of the same store and SAE, is left as it is.
"""

from __future__ import annotations

import argparse
from typing import Any

from solutions.data import ActivationStore
from solutions.errors import InputError
from solutions.models import load_model, model_identity
from solutions.sae import load_sae, load_sae_from_disk, preflight
from solutions.sae.preflight import CODES
from solutions.search import hook_of, index_store
from solutions.shell import guarded
from solutions.targets import Target, get_target

#: Tokens of the store on which the SAE is measured before the index is made.
MEASURED = 4096


def main(arguments: list[str], program: str) -> int:
    """Do what the command line says. Returns the exit code: 0, 1 for an error, 130 for Ctrl-C."""
    options = parser(program).parse_args(arguments)
    return guarded(lambda: make(options), "No index was made, and one that was there is as it was.")


def make(options: argparse.Namespace) -> None:
    """Compare model, SAE and store, and make the index."""
    target, store = get_target(options.target), ActivationStore(options.store)
    if not store.is_complete:
        raise InputError(f"the store {options.store} is unfinished. Finish the harvest that was filling it first.")
    sae = load_sae(target, options.device) if options.sae is None else load_sae_from_disk(options.sae, options.device)
    hook = options.hook or hook_of(sae, target)
    model = load_model(target, options.device)
    check_store(store, model, target)
    acts = first_rows(store, hook).to(next(sae.parameters()).device)
    report = preflight(model, sae, target, hook, acts=acts, allow=options.allow)
    print(f"{options.sae or target.name} at {hook}: L0 {report.l0:.1f}, explained variance "
          f"{report.explained_variance:.3f} on {report.n_tokens:,} tokens of the store")
    index = index_store(store, model, sae, hook, options.out, overwrite=options.overwrite, progress=not options.quiet)
    print(index)


def check_store(store: ActivationStore, model: Any, target: Target) -> None:
    """Refuse a store that another model has filled: its vectors would be read with the wrong eyes."""
    found, wanted = store.manifest, model_identity(model)
    other = [part for part in ("weights", "tokenizer", "processing", "prepend_bos") if found[part] != wanted[part]]
    if not other:
        return
    if found["model"] != wanted["model"]:
        raise InputError(f"the store {store.path} holds what flows through {found['model']!r}, and {target.name!r} is "
                         f"about {wanted['model']!r}. Say --target {found['target'] or '…'}, or take another store.")
    raise InputError(f"the store {store.path} was filled by a model of the same name, but with other "
                     f"{' and '.join(other)}. Harvest it again.")


def first_rows(store: ActivationStore, hook: str) -> Any:
    """[n, d] activations of the store's first tokens, BOS left out."""
    if hook not in store.hooks:
        raise InputError(f"the store {store.path} holds {', '.join(store.hooks)}; the SAE reads {hook}. Harvest it "
                         f"with --hooks {hook}.")
    return next(iter(store.batches(hook, MEASURED))).acts


def parser(program: str) -> argparse.ArgumentParser:
    """All options."""
    top = argparse.ArgumentParser(prog=program, description=__doc__,
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--store", required=True, metavar="FOLDER", help="an activation store, from harvest")
    top.add_argument("--out", required=True, metavar="FOLDER", help="the index's folder")
    top.add_argument("--target", help="what is studied; by default what MONOSEMANTIC_TARGET says, else smallworld")
    top.add_argument("--sae", metavar="FOLDER", help="an SAE that you have trained; by default the target's")
    top.add_argument("--hook", help="hook point to read; by default the one the SAE was trained on")
    top.add_argument("--allow", nargs="+", default=[], choices=CODES[2:], metavar="MISMATCH",
                     help=f"what may differ on purpose: {', '.join(CODES[2:])}")
    top.add_argument("--overwrite", action="store_true", help="replace an index of something else")
    top.add_argument("--device", help="cpu, cuda, mps; by default the GPU where there is one")
    top.add_argument("--quiet", action="store_true", help="no progress bar")
    return top
