"""Exercise 7.5: copy one position of the clean run into the corrupt one, on a toy model whose positions mix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Wrong, whole
from labs.checks.lab07.mixing import MixingModel


def draw_pair(generator) -> dict:
    """Two prompts of one length that differ in one token or two, after a BOS."""
    n_layers, d_model, d_vocab = whole(generator, 2, 3), whole(generator, 5, 8), whole(generator, 14, 20)
    n = whole(generator, 4, 8)
    clean = torch.randint(1, d_vocab, (1, n), generator=generator)
    clean[:, 0] = 0
    corrupt = clean.clone()
    for _ in range(whole(generator, 1, 2)):
        at = whole(generator, 1, n - 2)
        corrupt[0, at] = 1 + (corrupt[0, at] + whole(generator, 1, d_vocab - 3)) % (d_vocab - 1)
    model = MixingModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 10_000))
    gap = (model(clean) - model(corrupt))[0, -1]  # the tokens that the two prompts tell apart best
    return {
        "model": model,
        "hook": f"blocks.{whole(generator, 0, n_layers - 1)}.hook_resid_pre",
        "clean": clean,
        "corrupt": corrupt,
        "answer": int(gap.argmax()),
        "foil": int(gap.argmin()),
    }


def restored(model, hook: str, clean: Tensor, corrupt: Tensor, answer: int, foil: int) -> Tensor:
    return _restored(model, hook, clean, corrupt, answer, foil)


def _one(i: int, n: int) -> list[int]:
    return [i]


def _difference(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return logits[0, -1, answer] - logits[0, -1, foil]


def _share(patched: Tensor, start: Tensor, end: Tensor) -> Tensor:
    return (patched - start) / (end - start)


def _restored(
    model,
    hook,
    clean,
    corrupt,
    answer,
    foil,
    places=_one,
    measure=_difference,
    share=_share,
    give=True,
    take=True,
    beside=0,
) -> Tensor:
    """The right answer, with a part done differently.

    give, take: from and into which run (True: as asked). beside: from how many positions further on.
    """
    giver, receiver = (clean if give else corrupt), (corrupt if take else clean)
    kept = model.run_with_cache(giver, names_filter=hook)[1][hook]
    runs = [model.run_with_hooks(ids) for ids in (corrupt, clean)]
    n, shares = clean.shape[1], []
    for i in range(n):
        at = places(i, n)

        def patch(acts, hook, at=at):
            acts = acts.clone()
            acts[:, at] = kept.roll(-beside, 1)[:, at]
            return acts

        logits = model.run_with_hooks(receiver, fwd_hooks=[(hook, patch)])
        ends = [measure(run, answer, foil, i) for run in runs]
        shares.append(share(measure(logits, answer, foil, i), *ends))
    return torch.stack(shares)


def _with(**changes) -> Callable:
    return lambda *args: _restored(*args, **changes)


def _answer_alone(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return logits[0, -1, answer]


def _probability(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return logits[0, -1].softmax(-1)[answer]


def _probabilities(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    chances = logits[0, -1].softmax(-1)
    return chances[answer] - chances[foil]


def _log_probability(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return logits[0, -1].log_softmax(-1)[answer]


def _first(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return logits[0, 0, answer] - logits[0, 0, foil]


def _here(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return logits[0, i, answer] - logits[0, i, foil]


def _everywhere(logits: Tensor, answer: int, foil: int, i: int) -> Tensor:
    return (logits[0, :, answer] - logits[0, :, foil]).mean()


RESTORED = Exercise(
    number="7.5",
    name="restored",
    returns='Float[Tensor, "pos"]',
    draw=draw_pair,
    reference=restored,
    wrong=(
        Wrong(
            "from itself",
            _with(give=False),
            "All your shares are 0: nothing of the clean run gets into the corrupt one. Does your hook function "
            "*return* what it has changed? And does the activation come from the run on `clean`?",
        ),
        Wrong(
            "clean into clean",
            _with(take=False),
            "All your shares are 1. Either you patch the *clean* run with its own activations, or you copy "
            "in *all* positions at once, which makes the corrupt run the clean one. Run the model on "
            "`corrupt`, and copy in one: `acts[:, i] = kept[:, i]`.",
        ),
        Wrong(
            "destroyed",
            _with(give=False, take=False, share=lambda patched, start, end: (end - patched) / (end - start)),
            "You copy corrupt activations into the clean run, and say how much is *destroyed*. That asks "
            "what is necessary. Asked for is what is sufficient: clean activations into the corrupt run.",
        ),
        Wrong(
            "what is left",
            _with(give=False, take=False),
            "You copy corrupt activations into the clean run, and say what is *left* of the difference. (Or "
            "into the corrupt run all positions but one: it is the same.) Run `corrupt`, and put in *one* "
            "position of `clean`.",
        ),
        Wrong(
            "no share",
            _with(share=lambda patched, start, end: patched),
            "You return the logit difference itself. Nobody can tell from it whether much was restored. Say "
            "how far it went from the corrupt run's (0) to the clean run's (1).",
        ),
        Wrong(
            "only moved",
            _with(share=lambda patched, start, end: patched - start),
            "You say by how many logits the difference moved. Divide by how far it could go: `clean "
            "difference - corrupt difference`.",
        ),
        Wrong(
            "start not taken off",
            _with(share=lambda patched, start, end: patched / end),
            "You divide by the clean run's difference, and forget where the corrupt run *starts*: without "
            "any patch your share is not 0. Take the corrupt difference off, above and below the line.",
        ),
        Wrong(
            "what is missing",
            _with(share=lambda patched, start, end: (end - patched) / (end - start)),
            "Your shares are upside down: 1 where nothing came back. 0 is the corrupt run, 1 the clean one.",
        ),
        Wrong(
            "answer's logit alone",
            _with(measure=_answer_alone),
            "You watch the answer's logit alone. It rises, too, when all logits do, or all cities become "
            "likelier. Watch answer minus foil.",
        ),
        Wrong(
            "probability",
            _with(measure=_probability),
            "You watch the answer's probability. It hardly moves until the answer is nearly restored, and "
            "then jumps, so that partial patches seem to do nothing. Watch the difference of the two "
            "*logits*.",
        ),
        Wrong(
            "probabilities",
            _with(measure=_probabilities),
            "You watch a difference of *probabilities*. It hardly moves until the answer is nearly restored, and then "
            "jumps. Watch the difference of the two *logits*, without a softmax.",
        ),
        Wrong(
            "log-probability",
            _with(measure=_log_probability),
            "You watch the answer's log-probability. It moves as well when some third token becomes likelier. Watch "
            "answer minus foil.",
        ),
        Wrong(
            "the first position",
            _with(measure=_first),
            "You read the logits at position 0. It is BOS in both prompts, so that nothing differs there, and you "
            "divide by zero. The answer is given at the *last* position: `logits[0, -1]`.",
        ),
        Wrong(
            "one run twice",
            _with(share=lambda patched, start, end: (patched - end) / (end - end)),
            "Your 0 and your 1 are the same run, so that you divide by zero. The corrupt run's difference comes from "
            "running `corrupt` without a patch, and the clean run's from running `clean`.",
            recognise=lambda answer, args, output: not output.isfinite().any(),
        ),
        Wrong(
            "a position beside",
            _with(beside=-1),
            "You copy what stood one position *before*. Position i of the clean run goes to position i of the corrupt "
            "one: `acts[:, i] = kept[:, i]`.",
        ),
        Wrong(
            "the sign of the way",
            _with(share=lambda patched, start, end: (patched - start) / (start - end)),
            "Your shares have the wrong sign: what brings the answer back is negative. Divide by `clean difference - "
            "corrupt difference`, in this order.",
        ),
        Wrong(
            "read where patched",
            _with(measure=_here),
            "You read the logits at the position you patched. The answer is given at the *last* one: "
            "`logits[0, -1]`. How the change gets there is what the model does.",
        ),
        Wrong(
            "read everywhere",
            _with(measure=_everywhere),
            "You average the logits over all positions. What comes next is said at the *last* one: "
            "`logits[0, -1]`.",
        ),
        Wrong(
            "patches pile up",
            _with(places=lambda i, n: list(range(i + 1))),
            "Your patches pile up: at position i, all before it are clean, too. Does one tensor pass "
            "through your loop, and keep what was written into it? Patch each position in a fresh "
            "`acts.clone()`.",
        ),
        Wrong(
            "from here on",
            _with(places=lambda i, n: list(range(i, n))),
            "You patch position i and all *after* it. What the later ones hold was computed from it, so "
            "they bring the answer along. One position at a time: `acts[:, i] = ...`.",
        ),
    ),
    look_at="`model.run_with_cache(clean, names_filter=hook)` gives (logits, cache), and "
    "`model.run_with_hooks(corrupt, fwd_hooks=[(hook, patch)])` logits [1, pos, vocabulary].",
    saw="where on its way the answer can be found. What restores it is sufficient, given all the rest of "
    "the prompt.",
    cases=8,
)

EXERCISES = (RESTORED,)
