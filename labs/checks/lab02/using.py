"""Exercises 2.9 and 2.10: fold a normalisation into an SAE's weights, and compare kinds of text with a control."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.exercise import Exercise, Property, Wrong, normal, whole

# --- 2.9 ------------------------------------------------------------


def draw_weights(generator) -> dict:
    """An SAE whose biases matter, and a mean and a scale that are not close to 0 and 1."""
    d_in, d_sae = whole(generator, 3, 7), whole(generator, 8, 20)
    return {
        "W_enc": normal(generator, d_in, d_sae),
        "b_enc": normal(generator, d_sae) - 0.3,
        "W_dec": normal(generator, d_sae, d_in),
        "b_dec": normal(generator, d_in),
        "mean": 3 * normal(generator, d_in),
        "scale": (0.25, 2.5, 7.0, 40.0)[whole(generator, 0, 3)],
    }


def fold(W_enc, b_enc, W_dec, b_dec, mean, scale: float) -> dict[str, Tensor]:
    return {"W_enc": W_enc / scale, "b_enc": b_enc, "W_dec": W_dec * scale, "b_dec": b_dec * scale + mean}


def _encode(x, W_enc, b_enc, W_dec, b_dec) -> Tensor:
    return ((x - b_dec) @ W_enc + b_enc).relu()


def _both(args: dict, folded: dict) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features and reconstruction, as the normalised SAE gives them and as the folded one does."""
    weights = {name: args[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    x = args["mean"] + args["scale"] * normal(torch.Generator().manual_seed(3), 50, len(args["mean"]))
    right = _encode((x - args["mean"]) / args["scale"], **weights)
    found = _encode(x, **folded)
    back = (right @ weights["W_dec"] + weights["b_dec"]) * args["scale"] + args["mean"]
    return right, found, back, found @ folded["W_dec"] + folded["b_dec"]


def _same(found: Tensor, right: Tensor) -> bool:
    return torch.allclose(found, right, rtol=1e-3, atol=1e-3 * float(right.abs().max()))


def _same_features(answer, args, output) -> str | None:
    right, found, _, _ = _both(args, output)
    off = float((found - right).abs().max())
    return None if _same(found, right) else f"Yours are off by up to {off:.3g} on 50 activations."


def _same_reconstruction(answer, args, output) -> str | None:
    _, _, right, found = _both(args, output)
    off = float((found - right).abs().max())
    return None if _same(found, right) else f"Yours is off by up to {off:.3g} on 50 activations."


def _fold_with(**changes):
    """The right weights but for some, given as functions of the arguments."""

    def answer(W_enc, b_enc, W_dec, b_dec, mean, scale):
        args = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, "mean": mean, "scale": scale}
        return fold(**args) | {name: change(**args) for name, change in changes.items()}

    return answer


FOLD = Exercise(
    number="2.9",
    name="fold",
    returns='dict with "W_enc", "b_enc", "W_dec", "b_dec"',
    draw=draw_weights,
    reference=fold,
    wrong=(
        Wrong(
            "turned round",
            _fold_with(
                W_enc=lambda W_enc, scale, **_: W_enc * scale, W_dec=lambda W_dec, scale, **_: W_dec / scale
            ),
            "The scale is the wrong way round. The encoder now gets numbers that are `scale` times as large, so "
            "its weights must be *divided*; the decoder must give back larger ones.",
        ),
        Wrong(
            "folded backwards",
            lambda W_enc, b_enc, W_dec, b_dec, mean, scale: fold(
                W_enc, b_enc, W_dec, b_dec, -mean / scale, 1 / scale
            ),
            "You went the other way: yours makes an SAE for normalised activations out of one that reads them as "
            "they are. Here x is what is given, and z is what the old weights want.",
        ),
        Wrong(
            "encoder left as it was",
            _fold_with(W_enc=lambda W_enc, **_: W_enc),
            "`W_enc` is unchanged, so the features come out as many times too large as the activations are. "
            "Divide it by `scale`.",
        ),
        Wrong(
            "decoder left as it was",
            _fold_with(W_dec=lambda W_dec, **_: W_dec),
            "`W_dec` is unchanged: the features are right, and the reconstruction is still in normalised units. "
            "Multiply it by `scale`.",
        ),
        Wrong(
            "mean forgotten",
            _fold_with(b_dec=lambda b_dec, scale, **_: b_dec * scale),
            "The scale is folded and the mean is not. The encoder subtracts `b_dec` and the decoder adds it, so "
            "that is where the mean goes.",
        ),
        Wrong(
            "b_dec not scaled",
            _fold_with(b_dec=lambda b_dec, mean, **_: b_dec + mean),
            "You added the mean to `b_dec` as it was. `b_dec` is an activation in normalised units: it has to be "
            "multiplied by `scale` first.",
        ),
        Wrong(
            "mean scaled too",
            _fold_with(b_dec=lambda b_dec, mean, scale, **_: (b_dec + mean) * scale),
            "You multiplied the mean by the scale as well. Undo the steps in their order: first times `scale`, "
            "then plus `mean`, which is in the activation's own units already.",
        ),
        Wrong(
            "mean subtracted",
            _fold_with(b_dec=lambda b_dec, mean, scale, **_: b_dec * scale - mean),
            "You subtracted the mean from `b_dec`. Normalising subtracts it; going back adds it.",
        ),
        Wrong(
            "b_enc scaled",
            _fold_with(b_enc=lambda b_enc, scale, **_: b_enc / scale),
            "You divided `b_enc`. It is added to what `W_enc` gives, and with the other weights right that is the "
            "same number as before: `b_enc` stays.",
        ),
        Wrong(
            "mean in b_enc only",
            _fold_with(
                b_dec=lambda b_dec, scale, **_: b_dec * scale,
                b_enc=lambda b_enc, W_enc, mean, scale, **_: b_enc - mean / scale @ W_enc,
            ),
            "You put the mean into `b_enc`. The features are right, and the reconstruction lacks the mean: the "
            "decoder adds `b_dec`. Put the mean there, and the encoder, which subtracts `b_dec`, has it too.",
        ),
        Wrong(
            "mean taken away twice",
            _fold_with(b_enc=lambda b_enc, W_enc, mean, scale, **_: b_enc - mean / scale @ W_enc),
            "The mean is taken away twice: by `b_dec`, which the encoder subtracts, and by your `b_enc`. "
            "Leave `b_enc` as it was.",
        ),
        Wrong(
            "features in other units",
            _fold_with(
                W_enc=lambda W_enc, **_: W_enc,
                b_enc=lambda b_enc, scale, **_: b_enc * scale,
                W_dec=lambda W_dec, **_: W_dec,
            ),
            "The reconstruction is right, and every feature is `scale` times as large as it was: you moved the "
            "scale into the features. Some do so on purpose. Here the features must be the same numbers.",
        ),
    ),
    properties=(
        Property("The folded SAE must give the same features, from activations as they are.", _same_features),
        Property("The folded SAE must reconstruct the activations as they are.", _same_reconstruction),
    ),
    look_at="the two formulas: put z = (x − mean) / scale into the encoder and collect what multiplies x.",
    saw="the same SAE without a normalisation step: nobody who loads it can forget to normalise.",
)

# --- 2.10 -----------------------------------------------------------


def draw_kinds(generator) -> dict:
    """Documents of a few kinds, of unequal number, each kind around a point of its own; a test split; an order.

    Kinds are numbered with gaps: a place in the list of means is not yet a kind.
    """
    d, n_kinds = whole(generator, 3, 7), whole(generator, 3, 4)
    counts = [whole(generator, 12, 22) for _ in range(n_kinds)]
    kind = torch.arange(n_kinds).repeat_interleave(torch.tensor(counts))
    kind = kind[torch.randperm(len(kind), generator=generator)]
    x = 1.3 * normal(generator, n_kinds, d)[kind] + normal(generator, len(kind), d) + 2
    test = torch.zeros(len(kind), dtype=torch.bool)
    test[torch.randperm(len(kind), generator=generator)[: len(kind) // 3]] = True
    order = torch.randperm(int((~test).sum()), generator=generator)
    kind = torch.tensor([2, 3, 6, 7])[kind]
    return {"x": x, "kind": kind, "test": test, "order": order}


def compare_kinds(x: Tensor, kind: Tensor, test: Tensor, order: Tensor) -> dict[str, float]:
    train = kind[~test]
    return {
        "accuracy": _accuracy(x[~test], train, x[test], kind[test]),
        "control": _accuracy(x[~test], train[order], x[test], kind[test]),
    }


def _means(x: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
    kinds = kind.unique()
    return kinds, torch.stack([x[kind == k].mean(0) for k in kinds])


def _accuracy(x_train: Tensor, kind_train: Tensor, x_test: Tensor, kind_test: Tensor) -> float:
    kinds, means = _means(x_train, kind_train)
    nearest = torch.cdist(x_test, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    return (kinds[nearest] == kind_test).float().mean().item()


def _by(score):
    """Both numbers with another way to tell which mean is nearest: `score(x, means)`, the larger the nearer."""

    def accuracy(x_train, kind_train, x_test, kind_test):
        kinds, means = _means(x_train, kind_train)
        return (kinds[score(x_test, means).argmax(1)] == kind_test).float().mean().item()

    def answer(x, kind, test, order):
        train = kind[~test]
        return {
            "accuracy": accuracy(x[~test], train, x[test], kind[test]),
            "control": accuracy(x[~test], train[order], x[test], kind[test]),
        }

    return answer


def _places_for_kinds(x, kind, test, order):
    def accuracy(labels):
        _, means = _means(x[~test], labels)
        return (torch.cdist(x[test], means).argmin(1) == kind[test]).float().mean().item()

    return {"accuracy": accuracy(kind[~test]), "control": accuracy(kind[~test][order])}


def _with_control(control):
    return lambda x, kind, test, order: (
        compare_kinds(x, kind, test, order) | {"control": control(x, kind, test, order)}
    )


def _on_training(x, kind, test, order):
    train = kind[~test]
    return {
        "accuracy": _accuracy(x[~test], train, x[~test], train),
        "control": _accuracy(x[~test], train[order], x[~test], train[order]),
    }


def _means_of_all(x, kind, test, order):
    shuffled = kind.clone()
    shuffled[~test] = kind[~test][order]
    return {
        "accuracy": _accuracy(x, kind, x[test], kind[test]),
        "control": _accuracy(x, shuffled, x[test], kind[test]),
    }


def _most_frequent(x, kind, test, order):
    return (kind[test] == kind[~test].mode().values).float().mean().item()


def _per_cent(x, kind, test, order):
    return {name: 100 * value for name, value in compare_kinds(x, kind, test, order).items()}


def _swapped_split(x, kind, test, order):
    return {
        "accuracy": _accuracy(x[test], kind[test], x[~test], kind[~test]),
        "control": compare_kinds(x, kind, test, order)["control"],
    }


COMPARE = Exercise(
    number="2.10",
    name="compare_kinds",
    returns='dict with "accuracy" and "control" (floats from 0 to 1)',
    draw=draw_kinds,
    reference=compare_kinds,
    cases=8,
    wrong=(
        Wrong(
            "scored on the training documents",
            _on_training,
            "You scored the classifier on the documents it was made from, and its control too. With shuffled "
            "labels even noise then looks like knowledge. Score on `x[test]`, against `kind[test]`.",
        ),
        Wrong(
            "means of all documents",
            _means_of_all,
            "Your means were taken over all documents, those of the test among them. Each test document has then "
            "pulled its own mean towards itself: a leak. Make the means from `x[~test]` only.",
        ),
        Wrong(
            "train and test swapped",
            _swapped_split,
            "Your accuracy was learned on the test documents and scored on the rest. `~test` picks what you "
            "may learn from.",
        ),
        Wrong(
            "control not shuffled",
            _with_control(lambda x, kind, test, order: compare_kinds(x, kind, test, order)["accuracy"]),
            "Your control is your accuracy. If documents and labels are put in the new order together, each "
            "keeps its own label: nothing was shuffled. Shuffle the labels, and leave the documents in place.",
        ),
        Wrong(
            "control by the most frequent kind",
            _with_control(_most_frequent),
            "Your accuracy is right. Your control always names the most frequent kind, which is a fair baseline, "
            "and not this one: here the same classifier learns from labels in the order `order`.",
        ),
        Wrong(
            "control by counting",
            _with_control(lambda x, kind, test, order: 1 / len(kind.unique())),
            "Your accuracy is right. Your control is one over the number of kinds: chance on paper. Measure it, "
            "with the same code on shuffled labels: then it also shows what the code does wrong.",
        ),
        Wrong(
            "control scored on the training documents",
            _with_control(
                lambda x, kind, test, order: _accuracy(
                    x[~test], kind[~test][order], x[~test], kind[~test][order]
                )
            ),
            "Your accuracy is right. Your control was scored on the documents it learned from. Learn from the "
            "shuffled labels, and score on the test documents with their true kinds.",
        ),
        Wrong(
            "by dot product",
            _by(lambda x, means: x @ means.T),
            "You took the mean with the largest dot product. That favours long means, whatever their direction. "
            "The nearest is the one at the smallest distance: `torch.cdist(x, means).argmin(1)`.",
        ),
        Wrong(
            "places for kinds",
            _places_for_kinds,
            "`argmin` gives a *place* in your list of means, 0, 1, 2, …, and you compared it with the numbers of the "
            "kinds. Look the kind up that stands at that place: `kinds[nearest]`.",
        ),
        Wrong(
            "the farthest",
            _by(lambda x, means: torch.cdist(x, means)),
            "You chose the mean at the *largest* distance. The nearest has the smallest: `argmin`.",
        ),
        Wrong(
            "in per cent",
            _per_cent,
            "Both numbers are in per cent. The task asks for shares, from 0 to 1.",
        ),
    ),
    look_at="the shapes: means are [n_kinds, d], distances [n_test, n_kinds]. `kind.unique()` is sorted.",
    saw="an accuracy beside what the same code finds in shuffled labels. Only the gap between them is a finding.",
)

EXERCISES = (FOLD, COMPARE)
