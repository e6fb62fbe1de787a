"""Exercises 2.4 and 2.5: mean and variance of more than fits in memory, and the dimension that is really used."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab02.stream import Stream

# --- 2.4 ------------------------------------------------------------


def draw_stream(generator) -> dict:
    """Batches of unequal size and unequal mean; one dimension sits far from zero, as outlier dimensions do."""
    d = whole(generator, 3, 7)
    sizes = [whole(generator, 2, 9) for _ in range(whole(generator, 4, 7))]
    batches = [normal(generator, n, d) + 3 * normal(generator, d) for n in sizes]
    offset = torch.zeros(d)
    offset[0] = 1000 + 50 * whole(generator, 0, 10)
    return {"batches": Stream([batch + offset for batch in batches])}


def running_statistics(batches) -> dict:
    n, mean, squares = 0, 0.0, 0.0
    for batch in batches:
        batch, m = batch.double(), len(batch)
        delta = batch.mean(0) - mean
        squares = squares + ((batch - batch.mean(0)) ** 2).sum(0) + delta**2 * (n * m / (n + m))
        mean = mean + delta * (m / (n + m))
        n += m
    return {
        "n": n,
        "mean": mean,
        "variance": squares / n,
    }  # in double precision, as the standard to hold answers against


def _all(batches) -> Tensor:
    """What the right answer never does: everything at once, in double precision."""
    return torch.cat(list(batches)).double()


def _moved(batches: Stream) -> Stream:
    """The same stream around zero: where cancellation does no harm."""
    pieces = batches.pieces
    centre = torch.cat(pieces).double().mean(0)
    return Stream([(piece.double() - centre).float() for piece in pieces])


def _cancels(answer, args, output) -> bool:
    """Right around zero, off far from it."""
    near = _moved(args["batches"])
    right = running_statistics(Stream(args["batches"].pieces))
    return (
        not agree(output["variance"], right["variance"])
        and agree(output["mean"], right["mean"])
        and agree(plain(answer(Stream(near.pieces)))["variance"], running_statistics(near)["variance"])
    )


def _sum_of_squares(batches):
    n, total, squares = 0, 0.0, 0.0
    for batch in batches:
        n, total, squares = n + len(batch), total + batch.sum(0), squares + (batch**2).sum(0)
    return {"n": n, "mean": total / n, "variance": squares / n - (total / n) ** 2}


def _hoards(answer, args, output) -> bool:
    answer(args["batches"])
    return args["batches"].most_alive > 3  # the one in hand, the one before, and one to spare


def _at_once(batches):
    rows = torch.cat(list(batches))
    return {"n": len(rows), "mean": rows.mean(0), "variance": rows.var(0, unbiased=False)}


def _wrong_merge(mean_weight, between, own="biased"):
    """A streaming mean and variance with other weights, in double precision so that only the weights differ.

    mean_weight(n, m) multiplies the step of the mean, between(n, m) the squared difference of the means.
    """

    def answer(batches):
        n, mean, squares = 0, 0.0, 0.0
        for batch in batches:
            batch = batch.double()
            m = len(batch)
            delta = batch.mean(0) - mean
            inside = ((batch - batch.mean(0)) ** 2).sum(0) * (m / (m - 1) if own == "unbiased" else 1)
            squares = squares + inside + delta**2 * between(n, m)
            mean = mean + delta * mean_weight(n, m)
            n += m
        return {"n": n, "mean": mean, "variance": squares / n}

    return answer


def _mean_of_means(batches):
    rows = [batch.double() for batch in batches]
    means = torch.stack([batch.mean(0) for batch in rows])
    return {
        "n": sum(map(len, rows)),
        "mean": means.mean(0),
        "variance": torch.stack([batch.var(0, unbiased=False) for batch in rows]).mean(0),
    }


def _exact_but(change):
    def answer(batches):
        rows = _all(batches)
        right = {"n": len(rows), "mean": rows.mean(0), "variance": rows.var(0, unbiased=False)}
        return right | change(rows)

    return answer


def _last_batch(batches):
    last = [batch.double() for batch in batches][-1]
    return {"n": len(last), "mean": last.mean(0), "variance": last.var(0, unbiased=False)}


def _right(n, m):
    return n * m / (n + m)


RUNNING = Exercise(
    number="2.4",
    name="running_statistics",
    returns='dict with "n" (int), "mean" and "variance" (Float[Tensor, "d"])',
    draw=draw_stream,
    reference=running_statistics,
    wrong=(
        Wrong(
            "mean of means",
            _mean_of_means,
            "You averaged the batches' means and variances. Batches differ in size, so a small one counts too "
            "much; and what the means differ by is variance as well, and was lost.",
        ),
        Wrong(
            "the variance between batches lost",
            _wrong_merge(lambda n, m: m / (n + m), lambda n, m: 0),
            "The mean is right. Your variance adds up what happens *inside* the batches only. If two batches "
            "have different means, that difference is spread too: add delta² · n·m / (n + m) at each merge.",
        ),
        Wrong(
            "delta squared times m",
            _wrong_merge(lambda n, m: m / (n + m), lambda n, m: m),
            "The mean is right. At a merge you weight delta² by the size of the new batch. The weight is "
            "n·m / (n + m), where n is the count *before* the batch: both sides move towards their new mean.",
        ),
        Wrong(
            "n counted too early",
            _wrong_merge(lambda n, m: m / (n + m), lambda n, m: (n + m) * m / (n + 2 * m)),
            "The mean is right. It looks as if `n` already held the new batch when you computed the weight of "
            "delta². Take n·m / (n + m) with the count from before, and add m last.",
        ),
        Wrong(
            "n counted too early, for the mean as well",
            _wrong_merge(lambda n, m: m / (n + 2 * m), lambda n, m: (n + m) * m / (n + 2 * m)),
            "It looks as if `n` already held the new batch when you computed the two weights. Both want the count "
            "from before: move `n += m` to the end of the loop.",
        ),
        Wrong(
            "the mean moved half way",
            _wrong_merge(lambda n, m: 0.5, _right),
            "Your mean goes half way to each new batch. It should go as far as the batch weighs: "
            "delta · m / (n + m).",
        ),
        Wrong(
            "unbiased inside the batches",
            _wrong_merge(lambda n, m: m / (n + m), _right, own="unbiased"),
            "The mean is right. Inside a batch you took `torch.var` as it comes, which divides by m − 1, and "
            "multiplied by m. Sum the squared distances themselves, or use `unbiased=False`.",
        ),
        Wrong(
            "divided by n - 1",
            _exact_but(lambda rows: {"variance": rows.var(0)}),
            "Your sums are right; at the end you divide by n − 1. The task asks for the variance of these tokens "
            "as they are: divide by n.",
        ),
        Wrong(
            "standard deviation",
            _exact_but(lambda rows: {"variance": rows.var(0, unbiased=False).sqrt()}),
            "That is the standard deviation. The variance is its square: leave the root out.",
        ),
        Wrong(
            "not divided",
            _exact_but(lambda rows: {"variance": rows.var(0, unbiased=False) * len(rows)}),
            "Your variance is the sum of the squared distances. Divide it by n at the very end.",
        ),
        Wrong(
            "the last batch",
            _last_batch,
            "You described the last batch. What came before has to be carried along: n, mean and sum of squares "
            "are changed by each batch, not replaced.",
        ),
        Wrong(
            "everything in memory",
            _at_once,
            "You kept all batches and computed at the end. The answer is right, and it needs as much memory as "
            "there are activations. Carry n, a mean and a sum of squares along, and let each batch go.",
            recognise=_hoards,
        ),
        Wrong(
            "sum of squares",
            _sum_of_squares,
            "You compute the mean of the squares minus the square of the mean. On paper that is the variance. In "
            "float32, in a dimension that sits far from zero, two huge numbers are subtracted that agree in all "
            "their digits, and rounding is all that is left. Add up squared distances *from the mean*.",
            recognise=_cancels,
        ),
    ),
    look_at="the first batch. Before it, n is 0 and there is no mean to compare with: is anything divided by n?",
    saw="one pass, three numbers carried along, and exact however many tokens went by (Chan et al. 1983).",
)

# --- 2.5 ------------------------------------------------------------


def draw_cloud(generator) -> dict:
    """A cloud of points, more spread along some directions, away from the origin and turned."""
    n, d = whole(generator, 40, 90), whole(generator, 4, 9)
    spread = torch.rand(d, generator=generator) ** 2 * 3 + 0.1
    turn = torch.linalg.qr(normal(generator, d, d)).Q
    return {"x": (normal(generator, n, d) * spread) @ turn + 2 * normal(generator, d)}


def _spectrum(x: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(torch.cov(x.T.double(), correction=0)).clamp(min=0)


def effective_dimension(x: Tensor) -> float:
    variances = _spectrum(x)
    return (variances.sum() ** 2 / (variances**2).sum()).item()


def _ratio(values: Tensor) -> Tensor:
    return values.sum() ** 2 / (values**2).sum()


def _shifted(answer, args, output) -> str | None:
    moved = plain(answer(args["x"] + 5.0))
    return None if abs(moved - output) < 1e-2 * output else f"Yours went from {output:.3g} to {moved:.3g}."


def _turned(answer, args, output) -> str | None:
    d = args["x"].shape[1]
    turn = torch.linalg.qr(normal(torch.Generator().manual_seed(1), d, d)).Q
    turned = plain(answer(args["x"] @ turn))
    return None if abs(turned - output) < 1e-2 * output else f"Yours went from {output:.3g} to {turned:.3g}."


def _on_a_line(answer, args, output) -> str | None:
    x = args["x"]
    line = plain(answer(x[:, :1] * torch.arange(1.0, x.shape[1] + 1)))
    return None if abs(line - 1) < 1e-2 else f"Yours is {line:.3g}."


DIMENSION = Exercise(
    number="2.5",
    name="effective_dimension",
    returns="float",
    draw=draw_cloud,
    reference=effective_dimension,
    wrong=(
        Wrong(
            "not centred",
            lambda x: _ratio(torch.linalg.eigvalsh(x.T.double() @ x.double())),
            "You did not subtract the mean. The cloud's distance from the origin then looks like one huge "
            "direction of variance, and the answer is far too small. Centre first: `x - x.mean(0)`.",
        ),
        Wrong(
            "singular values",
            lambda x: _ratio(torch.linalg.svdvals(x.double() - x.double().mean(0))),
            "You put singular values, which are standard deviations, where variances belong. Square them first, "
            "or take the eigenvalues of the covariance.",
        ),
        Wrong(
            "singular values, not centred",
            lambda x: _ratio(torch.linalg.svdvals(x.double())),
            "Two slips: the mean was not subtracted, and singular values stand where variances, their squares, "
            "belong.",
        ),
        Wrong(
            "variance of each coordinate",
            lambda x: _ratio(x.double().var(0)),
            "You took the variances along the coordinate axes. Which axes those are is an accident of the basis: "
            "two dimensions that always move together count as one. Use the eigenvalues of the covariance.",
        ),
        Wrong(
            "correlations",
            lambda x: _ratio(torch.linalg.eigvalsh(torch.corrcoef(x.T.double()))),
            "You took the correlation matrix, in which every dimension has been stretched to the same variance. "
            "The question is how unequal the variances are: use the covariance.",
        ),
        Wrong(
            "upside down",
            lambda x: 1 / _ratio(_spectrum(x)),
            "That is the fraction upside down. If all d variances are equal the answer is d.",
        ),
        Wrong(
            "sum not squared",
            lambda x: _spectrum(x).sum() / (_spectrum(x) ** 2).sum(),
            "The sum of the variances has to be squared. As it is, the answer changes when all activations are "
            "doubled, and a dimension does not.",
        ),
        Wrong(
            "counted",
            lambda x: float(torch.linalg.matrix_rank(x.double() - x.double().mean(0))),
            "You counted the directions in which anything varies at all. Nearly all do, a little. The "
            "participation ratio counts each by how much it takes part.",
        ),
        Wrong(
            "share of d",
            lambda x: _ratio(_spectrum(x)) / x.shape[1],
            "You divided by d. The effective dimension is a number of dimensions, from 1 to d.",
        ),
    ),
    properties=(
        Property("Points on one line have effective dimension 1.", _on_a_line),
        Property("Moving the whole cloud changes no variance.", _shifted),
        Property("Turning the whole cloud changes no variance.", _turned),
    ),
    look_at="the matrix: the covariance is [d, d]. `torch.cov` wants one *row* for each dimension, so `x.T`.",
    saw="one number for a whole spectrum: how many equally used dimensions would be spread like this.",
)

EXERCISES = (RUNNING, DIMENSION)
