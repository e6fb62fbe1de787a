"""Exercise 4.14: what is wrong with a run, told from its curves alone. The runs are real, and stored."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Wrong, whole
from solutions.sae.training.failures import FAULTS, HEALTHY, SEEDS, failed_run

LR, L1, NORM = "learning rate too high", "L1 too high", "no decoder norm"
DEAD, BOS, ORDER, THRESHOLD = "dead flood", "BOS left in", "unshuffled data", "collapsed threshold"
NAMES = tuple(FAULTS)


def draw_run(generator) -> dict:
    """One of the stored runs as a dict of columns, some of its rows left out: logs differ in length."""
    case = generator.initial_seed() % (len(NAMES) * len(SEEDS))
    table = failed_run(NAMES[case % len(NAMES)], SEEDS[case // len(NAMES)])
    columns = {name: torch.tensor(table[name].to_numpy(), dtype=torch.float32) for name in table}
    n = len(table)
    early = 5  # rows at the start that stay: a penalty at its height shows in one or two of them
    dropped = torch.randperm(n - early - 1, generator=generator)[: whole(generator, 0, 4)] + early
    kept = [row for row in range(n) if row not in dropped.tolist()]
    return {"run": {name: column[kept] for name, column in columns.items()}}


def truth_of(case: int) -> str:
    """What was done in the run that `draw_run` gives for this seed."""
    return NAMES[case % len(NAMES)]


def diagnose(run: dict[str, Tensor]) -> str:
    last = {name: float(column[-1]) for name, column in run.items()}
    second_half = len(run["step"]) // 2
    if last["l0_test"] > 2 * last["l0"]:
        return THRESHOLD
    if last["decoder_norm"] > 1.2:
        return NORM
    if last["l0"] < 5:
        most = int(run["sparsity"].argmax())
        return L1 if run["sparsity"][most] > run["reconstruction"][most] else LR
    if last["dead"] > 0.4:
        return DEAD
    if run["ev"][second_half:].std() > 0.04:
        return ORDER
    gap = (run["ev"] - run["ev_test"])[second_half:]
    return BOS if gap.mean() > 0.03 else HEALTHY


def _taken_for(truth: str, found: str, message: str) -> Wrong:
    """Somebody takes one fault for another one."""

    def mistaken(run: dict[str, Tensor]) -> str:
        right = diagnose(run)
        return found if right == truth else right

    return Wrong(
        f"{truth} taken for {found}",
        mistaken,
        message,
        recognise=lambda answer, args, output: output == found and diagnose(args["run"]) == truth,
    )


DIAGNOSE = Exercise(
    number="4.14",
    name="diagnose",
    returns="str",
    draw=draw_run,
    reference=diagnose,
    cases=len(NAMES) * len(SEEDS),
    wrong=(
        Wrong(
            "not a name",
            lambda run: "something is wrong",
            "That is none of the names. Return one of these, as they are written: "
            + ", ".join(map(repr, NAMES))
            + ".",
            recognise=lambda answer, args, output: output not in NAMES,
        ),
        _taken_for(
            THRESHOLD,
            HEALTHY,
            "You called a run healthy whose threshold has collapsed. Its *training* columns are fine: "
            "there the batch decides who is on. Afterwards the threshold does. Compare `l0` with "
            "`l0_test`.",
        ),
        _taken_for(
            THRESHOLD,
            BOS,
            "You took a collapsed threshold for BOS. In both, training and testing disagree. But BOS "
            "moves the explained variance, and a threshold near zero moves L0: it is many times larger in "
            "`l0_test`.",
        ),
        _taken_for(
            NORM,
            HEALTHY,
            "You called a run healthy whose decoder rows have grown. Its explained variance is even "
            "better than it should be: it cheats the penalty. Look at `decoder_norm`, and at the L0 it "
            "pays with.",
        ),
        _taken_for(
            LR,
            L1,
            "You took a learning rate that is too high for too much L1. Few latents are left in both. But "
            "too much L1 shows: at its height `sparsity` is larger than `reconstruction`. Here the "
            "penalty is small, and the error *rises* in the first steps.",
        ),
        _taken_for(
            L1,
            LR,
            "You took too much L1 for a learning rate that is too high. Few latents are left in both. "
            "Here somebody asked for it: at its height `sparsity` is far above `reconstruction`.",
        ),
        _taken_for(
            LR,
            DEAD,
            "You took a learning rate that is too high for a dead flood. Latents die in both. Here the "
            "rest of the run is ruined as well: next to no latent is on, and the error is above where it "
            "began.",
        ),
        _taken_for(
            DEAD,
            LR,
            "You took a dead flood for a learning rate that is too high. Most latents are dead, but those "
            "that live go on learning: the loss falls to the end, and L0 is what it should be.",
        ),
        _taken_for(
            DEAD,
            HEALTHY,
            "You called a run healthy in which most latents are dead. The loss does not tell: a few "
            "latents can do a lot. Look at `dead`.",
        ),
        _taken_for(
            BOS,
            HEALTHY,
            "You called a run healthy that was trained on BOS. Its batches look better than they should. "
            "BOS is long and always the same, so it is easy variance to explain: compare `ev` with "
            "`ev_test`, where no BOS is.",
        ),
        _taken_for(
            BOS,
            ORDER,
            "You took BOS for unshuffled data. In both `ev` and `ev_test` can differ. With BOS the gap is "
            "steady, since every batch has its share of BOS; unshuffled batches jump up and down.",
        ),
        _taken_for(
            ORDER,
            BOS,
            "You took unshuffled data for BOS. A gap between `ev` and `ev_test` is not enough: look at "
            "how much `ev` jumps from row to row. Each batch is another kind of text.",
        ),
        _taken_for(
            ORDER,
            HEALTHY,
            "You called a run healthy whose data were not shuffled. Look at how much `ev` and the loss "
            "jump between rows, also late in the run: each batch is another kind of text, and what was "
            "learned is forgotten.",
        ),
        _taken_for(
            ORDER,
            LR,
            "You took unshuffled data for a learning rate that is too high. The loss jumps in both. Here "
            "L0 and `ev` recover after every jump; a learning rate like that ruins the SAE for good.",
        ),
        Wrong(
            "a healthy run called ill",
            lambda run: BOS if diagnose(run) == HEALTHY else diagnose(run),
            "You found something wrong with a run that is healthy. Your rule is too strict somewhere. "
            "Beside every threshold of yours, write what a healthy run has there.",
            recognise=lambda answer, args, output: (
                output in NAMES and output != HEALTHY and diagnose(args["run"]) == HEALTHY
            ),
        ),
    ),
    look_at="the columns: `run['ev'][-1]` is the last row's, `run['ev'][len(run['ev']) // 2 :]` the "
    "second half.",
    saw="a run read like a patient's chart. None of the seven shows in the loss alone: that is why one "
    "logs the rest.",
)

EXERCISES = (DIAGNOSE,)
