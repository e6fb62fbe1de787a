"""Exercise 7.15: a fair probe. What is chosen, is chosen in the training half."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labs.checks.compare import plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 7.15 -----------------------------------------------------------


def ridge(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """A linear probe by least squares, held back by a penalty. The scale of its inputs does not matter.

    Args:
        x: [n, units] what it may read.
        y: [n] bool, what it shall say.

    Returns:
        A function that gives [m, units] their scores, [m].
    """
    mean, scale = x.mean(0), x.std(0)
    scale = torch.where(scale > 1e-6, scale, torch.inf)
    z, share = (x - mean) / scale, y.float().mean()
    inner = z.T @ z + 0.1 * len(x) * torch.eye(x.shape[1])
    weight = torch.linalg.solve(inner, z.T @ (y.float() - share))
    return lambda new: (new - mean) / scale @ weight + share


def draw_halves(generator) -> dict:
    """Few examples, many latents: some know the concept, some are loud, some silent in the training half."""
    tokens, d_in, d_sae = whole(generator, 60, 80), whole(generator, 4, 6), whole(generator, 16, 24)
    y = torch.rand(tokens, generator=generator) < 0.45
    train = torch.rand(tokens, generator=generator) < 0.5
    y[:4], train[:4] = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    ids = torch.randint(0, 12, (tokens,), generator=generator)
    ids[(torch.rand(tokens, generator=generator) < 0.25) & y] = 12  # a word for the concept
    ids[:2] = 12
    ids[~train & (torch.rand(tokens, generator=generator) < 0.2)] = 13  # one that is not in the training half
    acts = normal(generator, tokens, d_in) + 0.5 * y[:, None] * normal(generator, d_in)
    latents = torch.relu(normal(generator, tokens, d_sae) - 0.4)
    for unit in range(3):
        latents[:, unit] = torch.relu(normal(generator, tokens) + (0.9 * y if unit else -0.9 * y))
    latents[:, 3:6] *= 20.0
    latents[train, 6] = 0.0
    order = torch.randperm(d_sae, generator=generator)
    return {
        "acts": acts,
        "latents": latents[:, order],
        "ids": ids,
        "y": y,
        "train": train,
        "k": whole(generator, 2, 4),
        "fit": ridge,
    }


def fair_probe(
    acts: Tensor, latents: Tensor, ids: Tensor, y: Tensor, train: Tensor, k: int, fit: Callable
) -> dict[str, float]:
    return _fair(acts, latents, ids, y, train, k, fit)


def _apart(x: Tensor, y: Tensor) -> Tensor:
    """[units] by how many of its own deviations a unit differs where the concept holds."""
    return (x[y].mean(0) - x[~y].mean(0)) / _guarded(x.std(0))


def _guarded(scale: Tensor) -> Tensor:
    return torch.where(scale > 1e-6, scale, torch.inf)


def auc(scores: Tensor, y: Tensor, tie: float = 0.5) -> Tensor:
    """How often a token with the concept has the higher score."""
    more = scores[y][:, None] - scores[~y][None, :]
    return ((more > 1e-6).float() + tie * (more.abs() <= 1e-6).float()).mean()


def _lookup(ids: Tensor, y: Tensor, unseen: float = 0.5) -> Callable[[Tensor], Tensor]:
    def share(word: int) -> float:
        return y[ids == word].float().mean().item() if bool((ids == word).any()) else unseen

    return lambda new: torch.tensor([share(word) for word in new.tolist()])


def _new_word_as_usual(ids: Tensor, y: Tensor, unseen: float) -> Callable[[Tensor], Tensor]:
    return _lookup(ids, y, y.float().mean().item())


def _rare_is_no(ids: Tensor, y: Tensor, unseen: float) -> Callable[[Tensor], Tensor]:
    return lambda new: torch.where(_lookup(ids, y)(new) > 0, _lookup(ids, y)(new), 0.5)


def _share_of_all(ids: Tensor, y: Tensor, unseen: float) -> Callable[[Tensor], Tensor]:
    return lambda new: ((ids == new[:, None]) & y).float().mean(1)


def _train(train: Tensor) -> Tensor:
    return train


def _everything(train: Tensor) -> Tensor:
    return torch.ones_like(train)


def _test(train: Tensor) -> Tensor:
    return ~train


def _fair(
    acts, latents, ids, y, train, k, fit,
    choose_on=_train, apart=lambda x, y: _apart(x, y).abs(), fit_on=_train, judge_on=_test, look_on=_train,
    measure=auc, unseen=0.5, choice=True, dense=None, lookup=None, dense_of=None,
) -> dict:  # fmt: skip
    """The right answer, with a part done differently."""
    on, seen, judged, known = (part(train) for part in (choose_on, fit_on, judge_on, look_on))
    chosen = apart(latents[on], y[on]).topk(k).indices if choice else torch.arange(latents.shape[1])
    units = acts if dense_of is None else latents
    read = torch.arange(units.shape[1]) if dense is None else dense(acts[seen], y[seen]).topk(k).indices

    def score(probe: Callable, x: Tensor) -> Tensor:
        return measure(probe(x[judged]), y[judged])

    return {
        "latents": score(fit(latents[seen][:, chosen], y[seen]), latents[:, chosen]),
        "dense": score(fit(units[seen][:, read], y[seen]), units[:, read]),
        "lookup": score((lookup or _lookup)(ids[known], y[known], unseen), ids),
    }


def _with(**changes) -> Callable:
    return lambda *args: _fair(*args, **changes)


def _nan(x: Tensor, y: Tensor) -> Tensor:
    return ((x[y].mean(0) - x[~y].mean(0)) / x.std(0)).abs()


def _accuracy(scores: Tensor, y: Tensor) -> Tensor:
    return ((scores > 0.5) == y).float().mean()


def _blind_to_the_test_half(answer, args, output) -> str | None:
    """What a probe says must not depend on the labels of test tokens."""
    turned = args | {"y": torch.where(args["train"], args["y"], ~args["y"])}
    found = plain(answer(*turned.values()))
    gap = max(abs(found[name] + output[name] - 1) for name in ("latents", "dense", "lookup"))
    if gap < 1e-4:
        return None
    return (
        "With every test label exchanged, each AUC has to become 1 minus itself: the probes are the same, "
        "only the "
        f"answers are turned round. One of yours is off by {gap:.2g}, so something of the test half came in."
    )


FAIR = Exercise(
    number="7.15",
    name="fair_probe",
    returns='dict with "latents", "dense" and "lookup" (float)',
    draw=draw_halves,
    reference=fair_probe,
    wrong=(
        Wrong(
            "chosen on everything",
            _with(choose_on=_everything),
            "You chose the latents on all tokens, test half included. Of many latents some fit the test "
            "labels by luck, and you picked those. Choose on `latents[train]` and `y[train]`, and nothing "
            "else.",
        ),
        Wrong(
            "chosen on the test half",
            _with(choose_on=_test),
            "You chose the latents on the test half, the half that is to judge them. Choose where you train.",
        ),
        Wrong(
            "fitted on everything",
            _with(choose_on=_everything, fit_on=_everything, look_on=_everything),
            "You chose and fitted on all tokens, and then judged on some of them. That is memory, not "
            "knowledge.",
        ),
        Wrong(
            "probes fitted on everything",
            _with(fit_on=_everything),
            "You chose the latents in the training half and then fitted the probes on all tokens. The test "
            "labels came in by that door: `fit(x[train], y[train])`.",
        ),
        Wrong(
            "judged where trained",
            _with(judge_on=_train),
            "You judged on the training half. With few examples and many units anything looks good there. "
            "Judge on `~train`.",
        ),
        Wrong(
            "judged on everything",
            _with(judge_on=_everything),
            "You judged on all tokens. Those that the probes were fitted on flatter them: judge on "
            "`~train` only.",
        ),
        Wrong(
            "nan chosen",
            _with(apart=_nan),
            "A latent that is silent in the training half has a deviation of 0, so its difference is 0 / "
            "0, which is nan. And `topk` takes nan for the largest of all. Give such a latent a 0.",
        ),
        Wrong(
            "the loudest",
            _with(apart=lambda x, y: (x[y].mean(0) - x[~y].mean(0)).abs()),
            "You chose by the raw difference of the means. A loud latent differs by a lot even by luck. "
            "Divide by each latent's own standard deviation.",
        ),
        Wrong(
            "only those that rise",
            _with(apart=_apart),
            "You left out the absolute value. A latent that falls silent where the concept holds tells as "
            "much as one that rises.",
        ),
        Wrong(
            "the least apart",
            _with(apart=lambda x, y: -_apart(x, y).abs()),
            "You chose the k latents that differ *least*. `topk` gives the largest, unless it is told otherwise.",
        ),
        Wrong(
            "sums compared",
            _with(apart=lambda x, y: (x[y].sum(0) - x[~y].sum(0)).abs() / _guarded(x.std(0))),
            "You compared sums. The side with more tokens has the larger one. Compare the means.",
        ),
        Wrong(
            "nothing chosen",
            _with(choice=False),
            "Your probe reads all latents. The question was how far a few get, the k that differ most.",
        ),
        Wrong(
            "dense latents",
            _with(dense_of="latents"),
            "Your dense probe reads all latents. The rival is the activation itself, `acts`: what one has without an "
            "SAE.",
        ),
        Wrong(
            "a tied rival",
            _with(dense=lambda x, y: _apart(x, y).abs()),
            "Your dense probe may read k dimensions only. That ties the rival's hands: a dimension is "
            "nothing by itself, a direction is. It reads all of `acts`.",
        ),
        Wrong(
            "lookup that knows",
            _with(look_on=_everything),
            "Your lookup counted words on all tokens, so it has seen the answers. It may read the training "
            "half only, as the probes do.",
        ),
        Wrong(
            "unseen is no",
            _with(unseen=0.0),
            "Your lookup says no to a word that it has never seen. It knows nothing of it: 0.5.",
        ),
        Wrong(
            "nan for a new word",
            _with(unseen=float("nan")),
            "A word that the training half has not seen gets 0 / 0 in your lookup, which is nan, and nan is above "
            "nothing. Give it 0.5: `torch.where(seen > 0, with_it / seen.clamp(min=1), 0.5)`.",
        ),
        Wrong(
            "a new word as usual",
            _with(lookup=_new_word_as_usual),
            "Your lookup gives a new word the share that all training tokens have. That is a fair guess. Here, so that "
            "everybody's numbers agree, a word that was not seen scores 0.5.",
        ),
        Wrong(
            "never with it",
            _with(lookup=_rare_is_no),
            "Your lookup gives 0.5 to words that were seen, but never with the concept. It knows them: their share is "
            "0. Only a word that was *not seen* scores 0.5.",
        ),
        Wrong(
            "a share of all tokens",
            _with(lookup=_share_of_all),
            "Your lookup divides by the number of all training tokens. A common word then scores high because it is "
            "common. Divide by how often *this word* was seen.",
        ),
        Wrong(
            "upside down",
            _with(measure=lambda scores, y: auc(scores, ~y)),
            "Your AUC is upside down: it counts how often a token *without* the concept scores above one with it. "
            "`scores[y][:, None] - scores[~y]`, in this order.",
        ),
        Wrong(
            "ties lost",
            _with(measure=lambda scores, y: auc(scores, y, 0.0)),
            "Your AUC counts equal scores as lost. The lookup gives many tokens the same score, and would "
            "fall below one half without being wrong. A tie is half a win.",
        ),
        Wrong(
            "ties won",
            _with(measure=lambda scores, y: auc(scores, y, 1.0)),
            "Your AUC counts equal scores as won. A rival that says the same of everything would be "
            "perfect. A tie is half a win.",
        ),
        Wrong(
            "accuracy",
            _with(measure=_accuracy),
            "Yours is a share of right answers at a threshold of 0.5. It depends on the threshold, and on "
            "how common the concept is. AUC asks for the order only: how often a token with it scores "
            "above one without.",
        ),
    ),
    properties=(Property("Nothing of the test half may reach the probes.", _blind_to_the_test_half),),
    look_at="`fit(x, y)` gives a function; called with new rows it gives their scores: "
    "`fit(x[train], y[train])(x[~train])`.",
    saw="three rivals with the same examples and the same judge. The line that matters is the one that "
    "chooses.",
    cases=8,
)

EXERCISES = (FAIR,)
