"""How well explanations predict their latents, with the luck that any explanation would have, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from solutions.analysis.means import Mean, bootstrap_mean
from solutions.autointerp.explaining import Explanation
from solutions.autointerp.judging import Answers, Judge, RuleJudge
from solutions.autointerp.passages import Item, scoring_items
from solutions.errors import InputError, check_count, unknown_name

if TYPE_CHECKING:
    from solutions.analysis.index import FeatureIndex

#: Fewer answers than this are no score.
LEAST = 8


class ExplanationScores(NamedTuple):
    """Scores of explanations in one task."""

    task: str                  #: "detection" or "fuzzing"
    table: pd.DataFrame        #: a row for each latent, see `score_explanations`
    by_interval: pd.DataFrame  #: latent, interval (0 is the strongest), n, hits (share of its yeses that were found)
    answers: list[list[tuple[Item, bool | None]]]  #: for each latent every question, with what the judge said

    def mean(self, column: str = "accuracy", seed: int = 0) -> Mean:
        """The mean of a column over latents, with an interval that comes from drawing other latents.

        Args:
            column: which one.
            seed: of the resampling.

        Raises:
            InputError: there is no such column.
        """
        if column not in self.table:
            raise unknown_name("column", column, self.table.columns)
        return bootstrap_mean(self.table[column].to_numpy(float), seed=seed)


def score_explanations(
    index: FeatureIndex,
    explanations: Sequence[Explanation],
    judge: Judge | None = None,
    *,
    task: str = "fuzzing",
    n: int = 40,
    negatives: str = "random",
    borrowed: bool = True,
    n_shuffles: int = 200,
    seed: int = 0,
    **passages: Any,
) -> ExplanationScores:
    """Test explanations on the test split: is the latent active here, if the explanation is right?

    Detection and fuzzing are those of Paulo et al. 2024; see `scoring_items`. Two controls go with them. In the first,
    the right answers are shuffled among the questions: that is luck. In the second, each latent is judged by the
    explanation of another one: that is what an explanation scores which has nothing to do with the latent, but with
    the same passages, the same judge and the same habits.

    Args:
        index: a feature index with a vocabulary and a test split.
        explanations: from `explain`; those without a text are left out of every score, and stay in the table.
        judge: who answers. By default the rules of the offline explainer are applied.
        task: "detection" or "fuzzing".
        n: questions for each latent, half of them with the answer yes.
        negatives: see `scoring_items`.
        borrowed: whether to judge by borrowed explanations, too. With a language model this doubles the cost.
        n_shuffles: how often the answers are shuffled.
        seed: of all that is drawn.
        **passages: `before`, `after`, `split`, `n_intervals`, as for `scoring_items`.

    Returns:
        The scores. The table has the columns latent, source, status, n (answered questions), unanswered, accuracy
        (share of right answers), low and high (of its 95 % interval, Wilson 1927), hits (share of the yeses that were
        found), false_alarms (share of the others that were taken for a yes), shuffled (mean accuracy when the right
        answers are shuffled), luck (what only one in forty shuffles exceeds) and borrowed. NaN with fewer than 8
        answers.

    Raises:
        InputError: something unknown, or a judge that cannot deal with an explanation.
        BudgetError: it would cost more than the judge's budget.

    Example:
        >>> scores = score_explanations(index, explain(index, [latent]))
        >>> bool(scores.table["accuracy"][0] > scores.table["luck"][0])
        True
    """
    judge = RuleJudge() if judge is None else judge
    if not explanations:
        raise InputError("explanations: expected at least one, got none.")
    items = [scoring_items(index, e.latent, task, n=n, negatives=negatives, seed=seed, **passages)
             for e in explanations]
    able = [i for i, e in enumerate(explanations) if e.text is not None]
    tests = [(explanations[i], items[i]) for i in able]
    swapped = [(explanations[j], items[i]) for i, j in zip(able, able[1:] + able[:1], strict=True)]
    swap = borrowed and len(able) > 1
    said = judge.answer(tests + (swapped if swap else []), task)
    own = dict(zip(able, said, strict=False))
    others = dict(zip(able, said[len(able):], strict=False)) if swap else {}
    rows, parts, answers = [], [], []
    for i, explanation in enumerate(explanations):
        mine = own.get(i, [None] * len(items[i]))
        rows.append({"latent": explanation.latent, "source": explanation.source, "status": explanation.status,
                     **_scores(items[i], mine, n_shuffles, seed),
                     "borrowed": _accuracy(items[i], others.get(i, [None] * len(items[i])))})
        parts += _by_interval(explanation.latent, items[i], mine)
        answers.append(list(zip(items[i], mine, strict=True)))
    columns = ["latent", "interval", "n", "hits"]
    return ExplanationScores(task, pd.DataFrame(rows), pd.DataFrame(parts, columns=columns), answers)


def _scores(items: list[Item], answers: Answers, n_shuffles: int, seed: int) -> dict[str, float]:
    truth, said = _answered(items, answers)
    n, right = len(truth), int((truth == said).sum())
    found: dict[str, float] = {"n": n, "unanswered": len(items) - n}
    names = ("accuracy", "low", "high", "hits", "false_alarms", "shuffled", "luck")
    if n < LEAST:
        return found | dict.fromkeys(names, np.nan)
    rows = np.tile(truth, (check_count(n_shuffles, "n_shuffles"), 1))
    shuffled = (np.random.default_rng(seed).permuted(rows, axis=1) == said).mean(axis=1)
    numbers = (right / n, *wilson(right, n), _share(said[truth]), _share(said[~truth]),
               np.mean(shuffled), np.quantile(shuffled, 0.975))
    return found | dict(zip(names, map(float, numbers), strict=True))


def wilson(hits: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): honest for few trials, and never beyond 0 and 1.

    Args:
        hits: how often it happened.
        n: of how many.
        z: how many standard errors it reaches; 1.96 is 95 %.

    Returns:
        Its two ends.
    """
    share, spread = hits / n, z * z / n
    half = z * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return float((share + spread / 2 - half) / (1 + spread)), float((share + spread / 2 + half) / (1 + spread))


def _answered(items: list[Item], answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """The right answers and the given ones, where there is one."""
    pairs = [(item.active, answer) for item, answer in zip(items, answers, strict=True) if answer is not None]
    truth, said = np.array(pairs, bool).reshape(-1, 2).T
    return truth, said


def _accuracy(items: list[Item], answers: Answers) -> float:
    truth, said = _answered(items, answers)
    return float((truth == said).mean()) if len(truth) >= LEAST else np.nan


def _share(yes: np.ndarray) -> float:
    return float(yes.mean()) if len(yes) else np.nan


def _by_interval(latent: int, items: list[Item], answers: Answers) -> list[tuple[int, int, int, float]]:
    found: dict[int, list[bool]] = {}
    for item, answer in zip(items, answers, strict=True):
        if item.interval is not None and answer is not None:
            found.setdefault(item.interval, []).append(answer)
    return [(latent, interval, len(said), sum(said) / len(said)) for interval, said in sorted(found.items())]


def agreement(first: ExplanationScores, second: ExplanationScores) -> pd.DataFrame:
    """How often two explanations of a latent give the same answer to the same question, right or wrong.

    With the truth as one of the two it says whether an explanation means the concept that it should mean, which is
    another question than whether it predicts the latent.

    Args:
        first: scores of explanations.
        second: scores of other explanations of the same latents, with the same questions.

    Returns:
        A table of latent, n (questions that both have answered), agree (share of the same answers) and kappa (what is
        left of that beyond chance, Cohen 1960; 0 is chance, 1 is always, NaN where both always say the same thing).

    Raises:
        InputError: the questions are not the same.
    """
    if len(first.answers) != len(second.answers):
        raise InputError(f"expected scores of the same latents, got {len(first.answers)} and {len(second.answers)}.")
    rows = []
    for (latent, one), (other_latent, other) in zip(_by_latent(first), _by_latent(second), strict=True):
        if latent != other_latent or [item for item, _ in one] != [item for item, _ in other]:
            raise InputError("the two scores are of other latents or other questions. Score both with the same "
                             "latents, task, n, negatives and seed.")
        pairs = [(a, b) for (_, a), (_, b) in zip(one, other, strict=True) if a is not None and b is not None]
        a, b = np.array(pairs, bool).reshape(-1, 2).T
        agree = float((a == b).mean()) if pairs else np.nan
        chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()) if pairs else np.nan
        rows.append((latent, len(pairs), agree, (agree - chance) / (1 - chance) if chance < 1 else np.nan))
    return pd.DataFrame(rows, columns=["latent", "n", "agree", "kappa"])


def _by_latent(scores: ExplanationScores) -> list[tuple[int, list[tuple[Item, bool | None]]]]:
    return list(zip(scores.table["latent"].tolist(), scores.answers, strict=True))
