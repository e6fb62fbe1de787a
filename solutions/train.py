"""Training a sparse autoencoder from the shell, on one device or on many.

    python -m solutions.train --out runs/first
    python -m solutions.train --out runs/wide --architecture batchtopk --width 16 --k 32 --tokens 2000000
    python -m solutions.train --out runs/stored --store scratch/store --documents 5000
    accelerate launch --num_processes 8 -m solutions.train --out runs/gpt2 --target gpt2-small --tokens 300000000
    torchrun --nproc-per-node 2 -m solutions.train --out runs/two --store scratch/store --device cpu

A run that was stopped, by Ctrl-C or by a power cut, goes on when the same line is given again. In its folder
afterwards: `sae/` (opens in SAELens), `log.csv`, `checkpoints/`.

Several processes train one SAE together. Of a store that is there, each reads its rows of every batch; a store that is
not there yet each fills for itself, with its share of the texts; without a store each runs the model on its share.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from solutions.data import DTYPES, ActivationStore, open_texts
from solutions.errors import InputError, count_option
from solutions.models import harvest, load_model, pick_device
from solutions.sae import ARCHITECTURES, HarvestSource, Plan, Source, StoreSource, make_sae, train
from solutions.sae.training.checkpoint import last_step
from solutions.sae.training.folder import CARD
from solutions.sae.training.plan import PRECISIONS, STEPS
from solutions.sae.training.team import Team
from solutions.shell import guarded
from solutions.targets import Target, get_target

#: What the shell may change of a plan, and how it is read. The defaults are the plan's own.
PLAN = {
    "batch_size": (int, "tokens in a step, of all processes together"),
    "lr": (float, "learning rate"),
    "warmup": (float, "share of the run in which the learning rate climbs"),
    "decay": (float, "share of the run, at the end, in which it falls"),
    "l1_warmup": (float, "share of the run in which the sparsity coefficient climbs"),
    "clip": (float, "longest gradient"),
    "seed": (int, "draws first weights and the order of the data"),
    "dead_after": (int, "tokens without firing that make a latent dead"),
    "checkpoint_every": (int, "steps between checkpoints"),
    "log_every": (int, "steps between lines of the log"),
}

#: What is asked for when nobody says: enough to see something on a laptop in a minute or two.
TOKENS, WIDTH, K, L1 = 500_000, 8, 16, 1.0


#: What one types to get here; `monosemantic train` says so itself.
PROGRAM = "python -m solutions.train"


def main(arguments: list[str] | None = None, program: str = PROGRAM) -> int:
    """Do what the command line says.

    Args:
        arguments: what stands after the command's name; by default the shell's.
        program: the command's name, for its help.

    Returns:
        The exit code, 0 when done, 1 for an error (its reason is on the error stream), 130 for Ctrl-C.
    """
    options = parser(program).parse_args(arguments)
    return guarded(lambda: run_connected(options), lambda: left_behind(options))


def left_behind(options: argparse.Namespace) -> str:
    """What there is after Ctrl-C."""
    step = last_step(Path(options.out))
    if step is None:
        kept = " What is stored already stays." if options.store else ""
        return f"There is no checkpoint yet: the same line begins to train again.{kept}"
    again = "The same line" + " without --start-over" * options.start_over
    return f"{again} goes on from the last checkpoint, after step {step:,}."


def run_connected(options: argparse.Namespace) -> None:
    """Train, together with the processes that were started with this one."""
    with connected(options.device) as device:
        run(options, device)


@contextlib.contextmanager
def connected(wanted: str | None) -> Iterator[torch.device]:
    """This process's device; processes that `accelerate launch` or `torchrun` started together are connected."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield pick_device(wanted)
        return
    from accelerate import PartialState

    state = PartialState(cpu=pick_device(wanted).type == "cpu")
    try:
        yield state.device
    finally:
        state.destroy_process_group()


def run(options: argparse.Namespace, device: torch.device) -> None:
    """Put target, data, SAE and plan together, and train."""
    team, target = Team(), get_target(options.target)
    if options.resume and not (Path(options.out) / CARD).is_file():
        raise InputError(f"there is no run in {options.out} to go on with. Leave --resume out to begin one.")
    plan = plan_of(options)
    hyper = settings_of(options)
    many = options.latents or 10**6  # a mistake shows before the model is loaded; the width is not known yet
    make_sae(options.architecture, 1, many, **hyper)
    source = source_of(options, target, device, team)
    d_sae = options.latents or options.width * source.d_in
    d_out = source.d_out if source.has_target else None
    sae = make_sae(options.architecture, source.d_in, d_sae, d_out=d_out, seed=plan.seed, **hyper).to(device)
    trained = train(
        sae,
        source,
        plan,
        options.out,
        target=target,
        resume=not options.start_over,
        progress=not options.quiet,
    )
    if team.leads:
        print(trained)
        print(f"saved in {Path(options.out) / 'sae'}: load_sae_from_disk opens it, and so does SAELens")


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan that the command line describes."""
    given = {name: getattr(options, name) for name in PLAN if getattr(options, name) is not None}
    return Plan(n_tokens=options.tokens, precision=options.precision, step=options.step, **given)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the architecture is told: k or l1, whichever it knows, and what --set says."""
    known = ARCHITECTURES[options.architecture].settings
    hyper: dict[str, Any] = dict(options.set)
    for name, default in (("k", K), ("l1", L1)):
        given = getattr(options, name)
        if name in known:
            hyper[name] = default if given is None else given
        elif given is not None:
            raise InputError(f"--{name} means nothing to {options.architecture!r}. It knows {', '.join(known)}.")
    return hyper


# ---- data


def source_of(options: argparse.Namespace, target: Target, device: torch.device, team: Team) -> Source:
    """Activations from a store, or from the model as it reads."""
    hook = options.hook or target.hook
    if options.store and (Path(options.store) / "manifest.json").is_file():
        store = ActivationStore(options.store)
        if not store.is_complete:
            raise InputError(f"the store {options.store} is unfinished. Finish the harvest that was filling it first.")
        return StoreSource(store, hook, target_hook=options.target_hook)
    texts = partial(open_texts, options.texts or target.text, options.documents, options.split, options.column)
    if not options.store:
        model = load_model(target, device)
        return HarvestSource(model, texts, hook, target_hook=options.target_hook)
    if (options.texts or target.text) == "smallworld" and options.documents is None:
        raise InputError("the embedded text never ends: say how much of it to store, e.g. --documents 2000.")
    store = filled_store(options, target, device, team, texts)
    return StoreSource(store, hook, target_hook=options.target_hook, own=team.size > 1)


def filled_store(options: argparse.Namespace, target: Target, device: Any, team: Team, texts: Any) -> ActivationStore:
    """Harvest this process's share of the texts into its own part of the store."""
    path, documents = Path(options.store), options.documents
    if team.size > 1:
        path = path / f"part-{team.rank:04d}-of-{team.size:04d}"
        documents = None if documents is None else len(range(team.rank, documents, team.size))
    return harvest(
        load_model(target, device),
        islice(texts(), team.rank, None, team.size),
        [hook for hook in (options.hook or target.hook, options.target_hook) if hook],
        path,
        dtype=options.dtype,
        progress=not options.quiet and team.leads,
        n_documents=documents,
    )


# ---- the command line


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """All options."""
    top = argparse.ArgumentParser(
        prog=program,
        description=__doc__.replace(PROGRAM, program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--out", required=True, metavar="FOLDER", help="the run's folder")
    top.add_argument("--target", help="what is studied; by default what MONOSEMANTIC_TARGET says, else smallworld")
    top.add_argument("--hook", help="hook point to read; by default the target's")
    top.add_argument("--target-hook", metavar="HOOK", help="hook point to predict: trains a transcoder")
    going = top.add_mutually_exclusive_group()
    going.add_argument("--resume", action="store_true", help="insist that there is a run in the folder to go on with")
    going.add_argument("--start-over", action="store_true", help="throw away what is in the run's folder")
    top.add_argument("--device", help="cpu, cuda, mps; by default the GPU where there is one")
    top.add_argument("--quiet", action="store_true", help="no progress bars")

    sae = top.add_argument_group("the SAE")
    sae.add_argument("--architecture", default="topk", choices=list(ARCHITECTURES), help="default: topk")
    size = sae.add_mutually_exclusive_group()
    size.add_argument("--width", type=count_option, default=WIDTH, metavar="X", help=f"latents per dimension ({WIDTH})")
    size.add_argument("--latents", type=count_option, metavar="N", help="number of latents, instead of --width")
    sae.add_argument("--k", type=_number, help=f"active latents per token, for the TopK family (default: {K})")
    sae.add_argument("--l1", type=float, help=f"sparsity coefficient, for ReLU and Gated (default: {L1:g})")
    sae.add_argument("--set", nargs="+", type=_setting, default=[], metavar="NAME=VALUE", help="any other setting")

    data = top.add_argument_group("the data")
    data.add_argument("--store", metavar="FOLDER", help="read this activation store; fill it first if it is not there")
    data.add_argument("--texts", metavar="SOURCE", help="a file, a folder or a dataset; by default the target's")
    data.add_argument("--documents", type=count_option, metavar="N", help="how many texts; by default all")
    data.add_argument("--split", help="which part of the texts; by default train")
    data.add_argument("--column", default="text", help="where a dataset keeps its texts (default: text)")
    data.add_argument("--dtype", default="float16", choices=list(DTYPES), help="of a store to fill (default: float16)")

    plan = top.add_argument_group("the plan")
    plan.add_argument("--tokens", type=count_option, default=TOKENS, metavar="N",
                      help=f"tokens seen (default: {TOKENS:,})")
    for name, (kind, text) in PLAN.items():
        option = f"--{name.replace('_', '-')}"
        plan.add_argument(option, type=kind, metavar="N", help=f"{text} (default: {getattr(Plan, name):,})")
    plan.add_argument("--precision", default="float32", choices=PRECISIONS, help="bfloat16 suits a GPU")
    plan.add_argument("--step", default="auto", choices=STEPS, help="how gradients are computed (default: auto)")
    return top


def _number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _setting(text: str) -> tuple[str, Any]:
    """A setting such as aux_weight=0 or tied=true; the value is read as JSON, else taken as a word."""
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"must look like NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
