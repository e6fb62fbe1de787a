"""Probes side by side: what is planted is found, no kind is favoured, and nothing is learned from what is judged."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from test_bases import dice, planted

from solutions import analysis
from solutions.analysis.bases import LabelledTokens
from solutions.analysis.probing import compare
from solutions.analysis.probing.logistic import fit_logistic
from solutions.errors import InputError


def noisy(text, n_units, at, strength=2.0, seed=5):
    """Units of noise, of which those at `at` also know the concepts a, b, … in turn."""
    x = torch.randn(len(text.ids), n_units, generator=dice(seed))
    for concept, unit in enumerate(at):
        x[:, unit] += strength * text.labels[:, concept]
    return x


def sparse_noise(text, n_units, seed=6):
    return torch.relu(torch.randn(len(text.ids), n_units, generator=dice(seed)) - 1.0)


@pytest.fixture(scope="module")
def text():
    return planted(n=4000)


@pytest.fixture(scope="module")
def tasks(text):
    return analysis.probe_tasks(text, ["a", "b"])


# ---- logistic regression


@pytest.mark.parametrize(("n", "d"), [(30, 100), (200, 12)])
def test_it_is_scikit_learns_logistic_regression(n, d):
    x = torch.randn(n, d, generator=dice(1)).double()
    y = x[:, 0] + torch.randn(n, generator=dice(2)) > 0.3
    counted = torch.stack([torch.arange(n) % 3 != part for part in range(3)])
    penalties = (0.03, 3.0, 0.3)  # in no order: each result stands where its penalty does
    weight, bias = fit_logistic(torch.stack([x.flip(1), x]), torch.stack([y, y]), penalties, torch.stack([counted] * 2))
    assert weight.shape == (3, 2, 3, d) and bias.shape == (3, 2, 3)
    assert torch.allclose(weight[:, 0].flip(2), weight[:, 1], atol=3e-3)      # each set is a problem of its own
    weight, bias = weight[:, 1], bias[:, 1]
    for i, penalty in enumerate(penalties):
        for f, kept in enumerate(counted):
            wanted = LogisticRegression(C=1 / (penalty * int(kept.sum())), tol=1e-10, max_iter=10_000)
            wanted.fit(x[kept].numpy(), y[kept].numpy())
            assert np.abs(weight[i, f].numpy() - wanted.coef_[0]).max() < 3e-3
            assert float(bias[i, f]) == pytest.approx(wanted.intercept_[0], abs=3e-3)


def test_separable_and_enormous_inputs_end_in_numbers():
    x = torch.cat([torch.full((8, 1), -1e3), torch.full((8, 1), 1e3)])
    everything = torch.ones(1, 1, 16, dtype=torch.bool)
    weight, bias = fit_logistic(x[None], (x[:, 0] > 0)[None], (0.003, 30.0), everything)
    assert weight.isfinite().all() and bias.isfinite().all() and (weight > 0).all()


# ---- examples


def test_examples_have_the_shares_asked_for_and_come_from_the_train_side(text, tasks):
    places, y = analysis.draw_examples(tasks[1], 200, positives=0.1, seed=3)
    assert len(places.unique()) == 200 == len(y) and not text.test[places].any()
    assert torch.equal(y, text.labels[places, 1]) and int(y.sum()) == 20
    assert not torch.equal(places, analysis.draw_examples(tasks[1], 200, positives=0.1, seed=4)[0])
    assert torch.equal(places, analysis.draw_examples(tasks[1], 200, positives=0.1, seed=3)[0])
    noisy_places, wrong = analysis.draw_examples(tasks[1], 200, positives=0.1, noise=0.25, seed=3)
    assert torch.equal(places, noisy_places)  # the same examples, so that only the noise differs
    assert int((wrong != y).sum()) == 50


@pytest.mark.parametrize(("options", "message"), [
    ({"n": 5000}, "expected 2500 train tokens with it"),
    ({"n": 2, "positives": 0.0}, "positives between 0 and 1"),
    ({"n": 20, "noise": 0.5}, "noise from 0 to below 0.5"),
    ({"n": 1}, "n must be"),
])
def test_examples_that_cannot_be_drawn(tasks, options, message):
    with pytest.raises(InputError, match=message):
        analysis.draw_examples(tasks[0], **options)


def test_tasks_are_those_that_are_common_enough(text):
    n = int((text.labels[:, 2] & text.test).sum())
    assert [task.name for task in analysis.probe_tasks(text, least=n + 30)] == ["a", "b"]
    with pytest.raises(InputError, match="'c' has .* tokens with it"):
        analysis.probe_tasks(text, ["c"], least=n + 30)
    with pytest.raises(InputError, match="unknown concept 'd'"):
        analysis.probe_tasks(text, ["d"])
    with pytest.raises(InputError, match="no concept has 9999"):
        analysis.probe_tasks(text, least=9999)


def test_tasks_are_chosen_by_a_rule(text):
    every = analysis.probe_tasks(text)
    groups = {"a": "one", "b": "one", "c": "two"}
    assert [task.name for task in analysis.choose_tasks(every, groups)] == ["b", "c"]  # the rarest of each
    assert [task.name for task in analysis.choose_tasks(every, groups, 2)] == ["a", "b", "c"]
    with pytest.raises(InputError, match="none for b, c"):
        analysis.choose_tasks(every, {"a": "one"})


# ---- shift


def test_groups_are_dealt_so_that_both_halves_have_the_concept():
    y = torch.tensor([True] * 4 + [True] * 3 + [True] * 2 + [False] * 9)
    group = torch.tensor([1] * 4 + [2] * 3 + [3] * 2 + [7] * 5 + [8] * 4)
    first = analysis.half_of_groups(y, group)
    assert first.tolist() == [True] * 4 + [False] * 5 + [True] * 5 + [False] * 4


def test_across_the_gap_no_word_is_on_both_sides(text, tasks):
    seen = {task.name: analysis.half_of_groups(task.y, text.ids) for task in tasks}
    for task in analysis.shifted_tasks(tasks, seen):
        assert not set(text.ids[task.train].tolist()) & set(text.ids[task.test].tolist())
        assert not (task.train & text.test).any() and not (task.test & ~text.test).any()
    assert len(analysis.shifted_tasks(tasks, text.ids < 3)) == 2
    with pytest.raises(InputError, match="both sides of the gap"):
        analysis.shifted_tasks(tasks, text.ids >= 0)
    with pytest.raises(InputError, match="one row per token"):
        analysis.shifted_tasks(tasks, text.ids[:9] > 0)


def test_a_lookup_knows_nothing_of_words_it_has_not_seen(text, tasks):
    ids = torch.randint(0, 40, (len(text.ids),), generator=dice(7))
    told = LabelledTokens(ids, text.document, (ids < 20)[:, None], ("told",), text.test)   # the words tell everything
    task = analysis.probe_tasks(told)
    x = {"the answer": told.labels.float() + 0.1 * torch.randn(len(told.ids), 1, generator=dice(1))}
    near = analysis.compare_probes(x, told.ids, task, n=256, seeds=1).set_index("probe")["auc"]
    assert near["token lookup"] > 0.99 and near["the answer"] > 0.99
    gap = analysis.shifted_tasks(task, analysis.half_of_groups(task[0].y, told.ids))
    far = analysis.compare_probes(x, told.ids, gap, n=256, seeds=1).set_index("probe")["auc"]
    assert far["token lookup"] == 0.5 and far["the answer"] > 0.99


# ---- cross-validation


def test_units_are_chosen_anew_for_every_part():
    """Of many units of noise the best on all examples look good on every part. Chosen without the part, they do not."""
    x, y = torch.randn(40, 3000, generator=dice(1)), torch.arange(40) % 2 == 0
    honest = analysis.fit_cross_validated(x, y, sizes=(8,))
    assert honest.loss > 0.6                                          # guessing costs 0.69
    leaked = (x[y].mean(0) - x[~y].mean(0)).abs().topk(8).indices
    assert analysis.fit_cross_validated(x[:, leaked], y).loss < 0.5   # the mistake this guards against
    assert honest.penalty >= 1.0


def test_the_chosen_probe_is_the_one_with_the_smallest_loss_left_out(text):
    x, y = noisy(text, 20, [3])[:120], text.labels[:120, 0]
    grid = {(k, p): analysis.fit_cross_validated(x, y, sizes=(k,), penalties=(p,)) for k in (1, 4) for p in (0.01, 1.0)}
    best = min(grid, key=lambda key: grid[key].loss)
    probe = analysis.fit_cross_validated(x, y, sizes=(1, 4), penalties=(0.01, 1.0))
    assert (len(probe.units), probe.penalty) == best and probe.loss == pytest.approx(grid[best].loss, abs=1e-4)
    assert probe.units[0] == 3 and probe.weight[0] > 0
    by_hand = (x[:, probe.units] - x[:, probe.units].mean(0)) / x[:, probe.units].std(0, unbiased=False)
    assert torch.allclose(probe.score(x), by_hand @ probe.weight + probe.bias, atol=1e-4)


def test_a_unit_that_was_silent_when_scales_were_taken_is_not_read():
    x = torch.zeros(40, 3)
    x[:, 0] = torch.randn(40, generator=dice(1))
    y = torch.arange(40) % 2 == 0
    x[y, 2] = 5.0                                                     # tells all, but nobody has seen it before
    probe = analysis.fit_cross_validated(x, y, mean=torch.zeros(3), scale=torch.tensor([1.0, 0.0, 0.0]))
    assert probe.score(x).isfinite().all() and probe.loss > 0.5


def test_every_part_needs_examples_of_either_kind():
    with pytest.raises(InputError, match="at least 3 examples with and without"):
        analysis.fit_cross_validated(torch.randn(20, 3), torch.arange(20) < 2)
    with pytest.raises(InputError, match="at most 3"):
        analysis.fit_cross_validated(torch.randn(20, 3), torch.arange(20) < 10, sizes=(4,))


# ---- the comparison


def test_a_few_clean_units_beat_a_rotation_of_them_when_examples_are_few(text, tasks):
    """What an SAE would have to be to help: the concept in one unit of many. Then the sparse probe is ahead."""
    clean = sparse_noise(text, 300)
    clean[:, :3] += text.labels
    turned = clean @ torch.linalg.qr(torch.randn(300, 300, generator=dice(8))).Q
    found = analysis.compare_probes({"units": clean, "rotated": turned}, text.ids, tasks, n=48, seeds=3,
                                    sparse=["units"], sizes=(1, 4))
    apart = analysis.probe_differences(found, "units", "rotated")
    assert apart["low"][0] > 0.02 and apart["wins"][0] == 1.0
    # Without a limit on the units both are the same numbers in other coordinates, and dense probes cannot tell.
    y, as_it_is = tasks[0].y[:100], {"mean": torch.zeros(300), "scale": torch.ones(300)}
    both = [analysis.fit_cross_validated(x[:100], y, **as_it_is) for x in (clean, turned)]
    assert both[0].loss == pytest.approx(both[1].loss, abs=1e-4)


def test_noise_knows_nothing_and_more_examples_help(text, tasks):
    x = {"noise": sparse_noise(text, 40), "weak": noisy(text, 40, [1, 2], strength=1.0)}
    few, many = (analysis.compare_probes(x, text.ids, tasks, n=n, seeds=3, sparse=["noise"], sizes=(4,))
                 for n in (16, 400))
    mean = [part.groupby("probe")["auc"].mean() for part in (few, many)]
    assert abs(mean[1]["noise"] - 0.5) < 0.05 and abs(mean[1]["token lookup"] - 0.5) < 0.05
    assert mean[1]["weak"] > mean[0]["weak"] + 0.1 and mean[1]["weak"] > 0.7
    assert set(many["k"][many["probe"] == "weak"]) == {40} and set(many["k"][many["probe"] == "noise"]) == {4}
    assert list(few.columns) == ["probe", "task", "seed", "auc", "average_precision", "loss", "k", "penalty"]
    assert len(few) == 3 * 2 * 3


def test_what_is_only_true_of_the_train_side_is_of_no_use(text, tasks):
    memory = (text.labels[:, [0]] & ~text.test[:, None]).float()
    found = analysis.compare_probes({"memory": memory}, text.ids, tasks[:1], n=64, seeds=1).set_index("probe")
    assert found.loc["memory", "loss"] < 0.3 and found.loc["memory", "auc"] == 0.5


def test_all_kinds_get_the_same_examples_and_labels(text, tasks, monkeypatch):
    given = []
    whole = compare._fit_all
    monkeypatch.setattr(compare, "_fit_all", lambda xs, ys, *rest: given.append((xs, ys)) or whole(xs, ys, *rest))
    numbered = torch.arange(len(text.ids)).float()[:, None]
    analysis.compare_probes({"x": numbered, "y": numbered.clone()}, text.ids, tasks[:1], n=32, noise=0.2, seeds=2)
    (xs, ys), (others, other_ys) = given
    for seed in (0, 1):
        assert torch.equal(xs[seed], others[seed]) and torch.equal(ys[seed], other_ys[seed])
    assert not torch.equal(xs[0], xs[1])


def test_several_draws_at_once_are_what_they_are_one_by_one(text, tasks):
    x = sparse_noise(text, 60)
    x[:, :3] += text.labels
    drawn = [analysis.draw_examples(tasks[0], 48, seed=seed) for seed in range(3)]
    standard = (x.mean(0), x.std(0))
    for sizes in (None, (2, 8)):
        together = compare._fit_all([x[p] for p, _ in drawn], [y for _, y in drawn], standard, sizes, (0.1, 1.0), 3)
        for (places, y), probe in zip(drawn, together, strict=True):
            alone = analysis.fit_cross_validated(x[places], y, mean=standard[0], scale=standard[1], sizes=sizes,
                                                 penalties=(0.1, 1.0))
            assert torch.equal(alone.units, probe.units) and alone.penalty == probe.penalty
            assert torch.allclose(alone.weight, probe.weight, atol=3e-3)
            assert alone.loss == pytest.approx(probe.loss, abs=1e-3)


@pytest.mark.parametrize(("change", "message"), [
    ({"features": {}}, "at least one kind of features"),
    ({"features": {"token lookup": torch.zeros(4000, 2)}}, "name of the baseline"),
    ({"features": {"x": torch.zeros(9, 2)}}, "one row per token"),
    ({"sparse": ["y"]}, "expected names in features"),
    ({"seeds": 0}, "seeds must be"),
])
def test_input_that_cannot_be_compared_is_named(text, tasks, change, message):
    given = {"features": {"x": noisy(text, 3, [0])}, "ids": text.ids, "tasks": tasks, **change}
    with pytest.raises(InputError, match=message):
        analysis.compare_probes(**given)


# ---- summaries


def results():
    rows = [("SAE", "a", 0, 0.9, 0.2), ("SAE", "a", 1, 0.7, 0.9), ("SAE", "b", 0, 0.6, 0.3), ("SAE", "b", 1, 0.6, 0.3),
            ("dense", "a", 0, 0.6, 0.4), ("dense", "a", 1, 0.8, 0.1), ("dense", "b", 0, 0.7, 0.2),
            ("dense", "b", 1, 0.9, 0.4)]
    return pd.DataFrame(rows, columns=["probe", "task", "seed", "auc", "loss"])


def test_means_are_over_tasks_and_intervals_too():
    means = analysis.probe_means(results()).set_index("probe")
    assert means.loc["SAE", "mean"] == pytest.approx(0.7) and means.loc["dense", "mean"] == pytest.approx(0.75)
    # Two tasks, with means 0.8 and 0.6: a bootstrap over tasks gives 0.6, 0.7 or 0.8, and over rows it would give less.
    assert means.loc["SAE", ["low", "high"]].tolist() == pytest.approx([0.6, 0.8]) and means.loc["SAE", "tasks"] == 2


def test_differences_are_taken_pair_by_pair():
    apart = analysis.probe_differences(results(), "SAE", "dense")
    assert apart["mean"][0] == pytest.approx(-0.05) and apart["wins"][0] == 0.5
    assert apart[["low", "high"]].iloc[0].tolist() == pytest.approx([-0.2, 0.1])
    twice = pd.concat([results().assign(n=16), results().assign(n=64, auc=results()["auc"] / 2)])
    by_n = analysis.probe_differences(twice, "SAE", "dense", by=["n"])
    assert by_n["n"].tolist() == [16, 64]
    assert by_n["mean"].tolist() == pytest.approx([-0.05, -0.025])
    with pytest.raises(InputError, match="unknown probe 'SAEs'"):
        analysis.probe_differences(results(), "SAEs", "dense")
    with pytest.raises(InputError, match="expected the columns auc"):
        analysis.probe_means(results().drop(columns="auc"))


def test_the_best_is_chosen_by_its_loss_and_not_by_its_score():
    best = analysis.best_probes(results(), ["SAE", "dense"], "both")
    assert best[["task", "seed", "chosen", "auc"]].values.tolist() == [
        ["a", 0, "SAE", 0.9], ["a", 1, "dense", 0.8], ["b", 0, "dense", 0.7], ["b", 1, "SAE", 0.6]]
    assert set(best["probe"]) == {"both"}
    twice = pd.concat([results().assign(n=16), results().assign(n=64)])          # rows with the same numbers
    assert len(analysis.best_probes(twice, ["SAE", "dense"], "both", by=["n"])) == 8
    with pytest.raises(InputError, match="unknown probe"):
        analysis.best_probes(results(), ["PCA"], "none")
