"""Exercise 2.7: choose test documents, not test tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab02.random_state import moves_global_state, source_of


def draw_documents(generator) -> dict:
    """Documents of very unequal length, one after the other; their numbers need not begin at 0."""
    n, share = whole(generator, 20, 40), (0.1, 0.2, 0.3)[whole(generator, 0, 2)]
    n += round(10 * share * n) % 10 == 5  # no argument about how a half is rounded
    lengths = torch.randint(2, 30, (n,), generator=generator)
    first = whole(generator, 0, 500)
    document = torch.arange(first, first + n).repeat_interleave(lengths)
    return {"document": document, "test_share": share, "seed": whole(generator, 0, 1000)}


def choose_test(document: Tensor, test_share: float, seed: int) -> Tensor:
    documents = document.unique()
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    return torch.isin(document, documents[order[: round(test_share * len(documents))]])


def _documents_in(document: Tensor, where: Tensor) -> set[int]:
    return set(document[where].tolist())


def _leaks(answer, args, output) -> set[int]:
    document = args["document"]
    return _documents_in(document, output) & _documents_in(document, ~output)


def _leak(answer, args, output) -> str | None:
    torn = _leaks(answer, args, output)
    return f"In yours {len(torn)} documents have tokens on both sides." if torn else None


def _n_test(args, output) -> int:
    return len(_documents_in(args["document"], output))


def _n_wanted(args) -> int:
    return round(args["test_share"] * len(args["document"].unique()))


def _share(answer, args, output) -> str | None:
    found, wanted = _n_test(args, output), _n_wanted(args)
    n = len(args["document"].unique())
    return None if found == wanted else f"Of {n} documents yours took {found}; it should be {wanted}."


def _with_seed(answer, args, seed: int) -> Tensor:
    return answer(args["document"], args["test_share"], seed)


def _unseeded(answer, args, output) -> bool:
    return not torch.equal(_with_seed(answer, args, args["seed"]), _with_seed(answer, args, args["seed"]))


def _deaf(answer, args, output) -> bool:
    return all(torch.equal(_with_seed(answer, args, s), output) for s in range(2000, 2005))


def _seeded(answer, args, output) -> str | None:
    if _unseeded(answer, args, output):
        return "Yours gave two different splits for one seed."
    return "Yours gave one split for six different seeds." if _deaf(answer, args, output) else None


def _quiet(answer, args, output) -> str | None:
    moved = moves_global_state(lambda: _with_seed(answer, args, args["seed"]))
    return "Yours moved it. Draw from a `torch.Generator()` of your own." if moved else None


def _by_token(document, test_share, seed):
    return torch.rand(len(document), generator=source_of(seed)) < test_share


def _by_token_exactly(document, test_share, seed):
    order = torch.randperm(len(document), generator=source_of(seed))
    return torch.isin(torch.arange(len(document)), order[: round(test_share * len(document))])


def _cut(document, test_share, seed):
    return torch.arange(len(document)) >= len(document) - round(test_share * len(document))


def _coins(document, test_share, seed):
    documents = document.unique()
    heads = torch.rand(len(documents), generator=source_of(seed)) < test_share
    return torch.isin(document, documents[heads])


def _from_zero(document, test_share, seed):
    n = int(document.max()) + 1
    chosen = torch.randperm(n, generator=source_of(seed))[: round(test_share * n)]
    return torch.isin(document, chosen)


def _right_from_zero(answer, args) -> bool:
    """Whether the number of documents is right once they are numbered from 0."""
    moved = args | {"document": args["document"] - args["document"].min()}
    return _n_test(moved, _with_seed(answer, moved, args["seed"])) == _n_wanted(args)


def _last_documents(document, test_share, seed):
    documents = document.unique()
    return torch.isin(document, documents[len(documents) - round(test_share * len(documents)) :])


def _global(document, test_share, seed):
    torch.manual_seed(seed)
    documents = document.unique()
    return torch.isin(
        document, documents[torch.randperm(len(documents))[: round(test_share * len(documents))]]
    )


def _no_seed(document, test_share, seed):
    source = torch.Generator()
    source.seed()
    return choose_test(document, test_share, int(torch.randint(0, 2**40, (), generator=source)))


def _is_cut(answer, args, output) -> bool:
    steps = int((output[1:] != output[:-1]).sum())
    return steps == 1 and bool(_leaks(answer, args, output)) and _deaf(answer, args, output)


SPLIT = Exercise(
    number="2.7",
    name="choose_test",
    returns='Bool[Tensor, "n_tokens"]',
    draw=draw_documents,
    reference=choose_test,
    unique=False,
    cases=8,
    wrong=(
        Wrong(
            "cut by position",
            _cut,
            "You cut the row of tokens at one place. The document that stands there is torn in two, one part on "
            "each side; and what was written last may be of another kind. Choose whole documents, at random.",
            recognise=_is_cut,
        ),
        Wrong(
            "turned round",
            lambda document, test_share, seed: ~choose_test(document, test_share, seed),
            "The documents are whole, and the mask is the wrong way round: True means *test*, the smaller part.",
            recognise=lambda answer, args, output: (
                not _leaks(answer, args, output) and _n_test(args, ~output) == _n_wanted(args)
            ),
        ),
        Wrong(
            "by token",
            _by_token,
            "You chose tokens, not documents. A token's activation depends on all that stands before it, so the "
            "test tokens' neighbours in training have nearly told the answer. That is a leak: choose documents.",
            recognise=lambda answer, args, output: len(_leaks(answer, args, output)) > 2,
        ),
        Wrong(
            "no seed",
            _no_seed,
            "The split is different each time, for the same seed. A test set that changes overnight ends up in "
            "training. Seed a generator: `torch.Generator().manual_seed(seed)`.",
            recognise=_unseeded,
        ),
        Wrong(
            "the last documents",
            _last_documents,
            "The split is the same whatever the seed: no chance is in it. Texts often come sorted by kind or "
            "date, so the last ones are not like the rest. Put the documents in random order first.",
            recognise=_deaf,
        ),
        Wrong(
            "numbered from 0",
            _from_zero,
            "You drew from the numbers 0 to the largest, and some of them are no document here: this is a part of "
            "a larger store. Draw among those that there are: `document.unique()`.",
            recognise=lambda answer, args, output: (
                _n_test(args, output) != _n_wanted(args) and _right_from_zero(answer, args)
            ),
        ),
        Wrong(
            "a coin for each document",
            _coins,
            "The documents are whole, and their number is left to chance: a coin was thrown for each. The task "
            "asks for exactly round(test_share × number of documents): shuffle, then take that many.",
            recognise=lambda answer, args, output: (
                not _leaks(answer, args, output)
                and len({_n_test(args, _with_seed(answer, args, s)) for s in range(6)}) > 1
            ),
        ),
        Wrong(
            "global seed",
            _global,
            "The split is right. `torch.manual_seed` sets the random state of the whole notebook, so every later "
            "draw is affected. Use a `torch.Generator()` of your own.",
            recognise=lambda answer, args, output: moves_global_state(
                lambda: _with_seed(answer, args, args["seed"])
            ),
        ),
    ),
    properties=(
        Property("No document may have tokens on both sides.", _leak),
        Property("Exactly round(test_share × number of documents) documents are test.", _share),
        Property("One seed gives one split, and another seed another.", _seeded),
        Property("PyTorch's global random state is not yours to change.", _quiet),
    ),
    look_at="the two levels: choose among `document.unique()`, then mark the tokens of those chosen.",
    saw="whole documents, at random, the same tomorrow: a test set that has seen nothing of training.",
)

EXERCISES = (SPLIT,)
