"""Sets of latents: both ends, complements, searches that must find what is planted, minimality, and controls."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from solutions.errors import InputError
from solutions.interventions import (
    Bench,
    Fact,
    ask,
    compare_sets,
    faithfulness_curve,
    greedy,
    latents_on,
    matched_sets,
    minimal,
    needed,
    orders,
    random_sets,
    shortest,
    single_effects,
)
from solutions.interventions.circuits import Found
from solutions.sae import run_spliced

EIFFEL = Fact("The Eiffel Tower is in", " Paris", " London", "landmark_city")
COLOSSEUM = Fact("The Colosseum is in", " Rome", " Madrid", "landmark_city")


@pytest.fixture(scope="module")
def bench(target, model, sae):
    return Bench(model, sae, target.hook, [EIFFEL, COLOSSEUM])


class Planted:
    """A bench whose facts add up numbers of latents, so that every answer is known.

    A fact holds while its sum is above 1. Latent 9 does nothing, and 4 speaks against."""

    weights = torch.tensor([[3.0, 1.0, 1.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                            [0.0, 2.0, 0.0, 2.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    activation = torch.ones(2, 10)
    candidates = list(range(10))

    def __init__(self, facts=2):
        self.weights, self.activation = self.weights[:facts], self.activation[:facts]
        self.asked = SimpleNamespace(facts=(EIFFEL, COLOSSEUM)[:facts])

    def run(self, tries, mode="keep"):
        sums = []
        for fact, latents in tries:
            named = self.weights[fact][list(latents)].sum()
            sums.append(named if mode == "keep" else self.weights[fact].sum() - named)
        found = torch.stack(sums)
        return found, found > 1

    each = Bench.each
    share = Bench.share
    ends = Bench.ends
    _ends = None


# ---- the bench


def test_both_ends_are_the_model_as_it_is(bench, model):
    asked = ask(model, [EIFFEL, COLOSSEUM])
    with torch.no_grad():
        clean = asked.difference(model(asked.tokens.ids))
    torch.testing.assert_close(bench.each([[]], "remove")[0][0], clean)
    torch.testing.assert_close(bench.each([bench.candidates], "keep")[0][0], clean, atol=1e-4, rtol=1e-4)
    assert bench.ends[1] == pytest.approx(clean.mean().item(), abs=1e-4)


def test_keeping_a_set_is_removing_all_others(bench):
    some, rest = bench.candidates[::2], bench.candidates[1::2]
    torch.testing.assert_close(bench.each([some], "keep")[0], bench.each([rest], "remove")[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(bench.each([some], "keep")[0], bench.each([some], "remove")[0], atol=0.1)


def test_without_the_error_all_latents_are_the_spliced_model(target, model, sae):
    bench = Bench(model, sae, target.hook, [EIFFEL, COLOSSEUM], keep_error=False)
    spliced = run_spliced(model, sae, bench.asked.tokens, target.hook)
    expected = bench.asked.difference(spliced)
    torch.testing.assert_close(bench.each([[]], "remove")[0][0], expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(expected, Bench(model, sae, target.hook, bench.asked).each([[]], "remove")[0][0])


def test_a_baseline_stands_in(target, model, sae, bench):
    usual = torch.zeros(target.d_sae)
    usual[bench.candidates[0]] = 5.0
    with_it = Bench(model, sae, target.hook, bench.asked, baseline=usual)
    others = bench.candidates[1:]
    torch.testing.assert_close(with_it.each([others], "remove")[0], bench.each([others], "remove")[0])
    first = [bench.candidates[0]]
    assert not torch.allclose(with_it.each([first], "remove")[0], bench.each([first], "remove")[0])
    own = latents_on(model, sae, target.hook, bench.asked)  # a baseline of what is there changes nothing
    untouched = Bench(model, sae, target.hook, bench.asked, baseline=own)
    torch.testing.assert_close(untouched.each([[]], "keep")[0], bench.each([[]], "remove")[0])
    assert untouched.candidates == []
    with pytest.raises(InputError, match="the latents do nothing"):
        untouched.share(1.0)


def test_single_tries_are_the_rows_of_each(bench):
    a, b = bench.candidates[:2]
    grid, right = bench.each([[a], [b, a]], "remove")
    found, correct = bench.run([(1, [b, a]), (0, [a])], "remove")
    torch.testing.assert_close(found, torch.stack([grid[1, 1], grid[0, 0]]))
    assert correct.tolist() == [right[1, 1].item(), right[0, 0].item()]
    bench.batch_size, whole = 3, bench.batch_size
    try:
        torch.testing.assert_close(bench.each([[a], [b, a]], "remove")[0], grid)
    finally:
        bench.batch_size = whole


def test_single_effects_are_of_active_latents_in_order(bench):
    table = single_effects(bench)
    first = table[table["fact"] == 0]
    assert set(first["latent"]) == set(bench.activation[0].nonzero().flatten().tolist())
    assert first["effect"].is_monotonic_decreasing
    row = first.iloc[0]
    after = bench.run([(0, [int(row["latent"])])], "remove")[0].item()
    assert row["effect"] == pytest.approx(row["clean"] - after, abs=1e-4)
    assert row["activation"] == pytest.approx(bench.activation[0, int(row["latent"])].item())
    mine = orders(table)
    assert mine[0] == first["latent"].tolist() and len(mine) == 2
    assert orders(table, "activation")[0][0] == int(first.sort_values("activation")["latent"].iloc[-1])
    with pytest.raises(InputError, match="'effects'.*Did you mean 'effect'"):
        orders(table, "effects")


def test_positions_count(target, model, sae, bench):
    with pytest.raises(InputError, match="several lengths"):
        Bench(model, sae, target.hook, bench.asked, positions=[-1])
    one = Bench(model, sae, target.hook, [EIFFEL], positions=[2])
    features = latents_on(model, sae, target.hook, one.asked)[0]
    assert set(one.candidates) == set(features[2].nonzero().flatten().tolist())


def test_the_bench_refuses_by_name(target, model, sae, bench):
    with pytest.raises(InputError, match="unknown mode 'kept'.*'keep'"):
        bench.each([[]], "kept")
    with pytest.raises(InputError, match="nothing to try"):
        bench.run([])
    with pytest.raises(InputError, match=f"0 to {target.d_sae - 1}"):
        bench.each([[-1]])
    with pytest.raises(InputError, match="from 0 to 1"):
        bench.run([(2, [])])
    with pytest.raises(InputError, match="baseline must have"):
        Bench(model, sae, target.hook, [EIFFEL], baseline=torch.zeros(3, 2, target.d_sae))
    with pytest.raises(InputError, match="last axis"):
        Bench(model, sae, target.hook, [EIFFEL], baseline=torch.zeros(7))
    with pytest.raises(InputError, match="hook_resid_pre"):
        Bench(model, sae, "blocks.2.hook_resid_prae", [EIFFEL])


# ---- curves


def test_faithfulness_and_completeness_by_hand():
    curve = faithfulness_curve(Planted(1), [0, 1, 2, 4], sizes=[0, 1, 3, 4])
    # m(∅) = 0 and m(M) = 3 + 1 + 1 - 2 = 3
    assert curve["faithfulness"].tolist() == pytest.approx([0, 1, 5 / 3, 1])
    assert curve["completeness"].tolist() == pytest.approx([1, 0, -2 / 3, 0])
    assert curve["correct_kept"].tolist() == [0, 1, 1, 1] and curve["correct_left"].tolist() == [1, 0, 0, 0]


def test_curves_end_where_they_must(bench):
    curve = faithfulness_curve(bench, bench.candidates)
    ends = curve.iloc[[0, -1]]
    assert ends["faithfulness"].tolist() == pytest.approx([0, 1], abs=1e-4)
    assert ends["completeness"].tolist() == pytest.approx([1, 0], abs=1e-4)
    assert curve["n_latents"].is_monotonic_increasing and curve["n_latents"].iloc[-1] == len(bench.candidates)
    with pytest.raises(InputError, match="beyond|up to 5"):
        faithfulness_curve(bench, [0, 1], sizes=[5])


def test_how_many_have_to_go():
    # Fact 0 is 3 = 3 + 1 + 1 - 2 and holds above 1; fact 1 is 2 = 2 + 2 - 2.
    table = needed(Planted(), [[1, 2, 0], [9, 8, 3]])
    assert table["breaks"].tolist() == [2, 3]  # 3 - 1 - 1 = 1 no longer holds; 2 - 0 - 0 - 2 = 0
    assert table["tried"].tolist() == [3, 3] and table["answer"].tolist() == [" Paris", " Rome"]
    assert math.isnan(needed(Planted(), [[1, 2, 0], [9, 8]])["breaks"][1])
    assert math.isnan(needed(Planted(), [[1, 2, 0], [9, 8, 3]], most=2)["breaks"][1])
    with pytest.raises(InputError, match="each of the 2 facts"):
        needed(Planted(), [[1]])


# ---- searches


def test_greedy_finds_the_smallest_set_that_is_planted():
    kept = greedy(Planted(1))
    assert kept.latents == [0] and kept.reached
    both = greedy(Planted())
    assert both.reached and both.latents[:1] in ([0], [1]) and set(both.latents) == {0, 1}
    gone = greedy(Planted(1), "remove")
    assert gone.latents == [0] and gone.reached
    assert gone.path["logit_difference"].tolist() == [3, 0] and gone.path["n_latents"].tolist() == [0, 1]


def test_greedy_says_when_it_cannot():
    found = greedy(Planted(1), candidates=[4, 9])
    assert not found.reached
    with pytest.raises(InputError, match="does not do what is asked"):
        minimal(Planted(1), found)
    assert len(greedy(Planted(1), candidates=[3, 5, 6, 7, 9], most=2).latents) == 2


def test_a_goal_of_ones_own():
    found = greedy(Planted(1), goal=lambda differences, correct: bool(differences.mean() >= 5))
    assert sorted(found.latents) == [0, 1, 2]


def test_the_shortest_beginning_of_an_order():
    found = shortest(Planted(1), [9, 1, 2, 0])
    assert found.latents == [9, 1, 2] and found.reached
    assert found.path["logit_difference"].tolist() == [0, 0, 1, 2]
    assert not shortest(Planted(1), [9, 4]).reached
    assert shortest(Planted(1), [9, 1, 2, 0], "remove").latents == [9, 1, 2]


def test_minimal_sets_have_no_member_to_spare():
    found = shortest(Planted(1), [9, 1, 2, 0])
    assert minimal(Planted(1), found) == [1, 2]
    assert minimal(Planted(1), Found([0, 1, 2, 9], True, pd.DataFrame())) == [0]


@pytest.mark.parametrize("mode", ["keep", "remove"])
def test_sets_found_on_the_model_are_minimal(target, model, sae, mode):
    bench = Bench(model, sae, target.hook, [EIFFEL])

    def goal(differences, correct):
        share = bench.share(differences.mean().item())
        return share >= 0.8 if mode == "keep" else share <= 0.3

    found = greedy(bench, mode, candidates=bench.candidates[:30], goal=goal, most=12)
    assert found.reached
    members = minimal(bench, found, mode, goal)
    assert goal(*(x[0] for x in bench.each([members], mode)))
    for latent in members:
        without = [other for other in members if other != latent]
        assert not goal(*(x[0] for x in bench.each([without], mode)))
    again = bench.each([found.latents], mode)[0].mean().item()
    assert found.path["logit_difference"].iloc[-1] == pytest.approx(again, abs=1e-3)


# ---- controls


def test_random_sets_have_the_size_and_the_seed():
    sets = random_sets(range(50), 6, draws=10, seed=3)
    assert len(sets) == 10 and all(len(set(s)) == 6 and set(s) <= set(range(50)) for s in sets)
    assert sets == random_sets(range(50), 6, draws=10, seed=3) != random_sets(range(50), 6, draws=10, seed=4)
    with pytest.raises(InputError, match="cannot be drawn from 3"):
        random_sets([1, 2, 3], 4)


def test_matched_sets_are_as_active_and_share_nobody():
    activation = torch.arange(60.0)
    for chosen in matched_sets([30, 50], activation, draws=15, among=4):
        assert len(set(chosen)) == 2 and not {30, 50, 0} & set(chosen)
        low, high = sorted(chosen)
        assert abs(low - 30) <= 3 and abs(high - 50) <= 3
    assert matched_sets([30], activation, seed=1) == matched_sets([30], activation, seed=1)
    assert len({tuple(s) for s in matched_sets([30, 50], activation, draws=15)}) > 3
    with pytest.raises(InputError, match="only 1 others"):
        matched_sets([1, 2], torch.tensor([0.0, 1.0, 1.0, 1.0]))


def test_sets_beside_their_controls():
    table = compare_sets(Planted(1), {"found": [[0]], "random": [[1], [9]]}).set_index("set")
    assert table.loc["found", "share"] == pytest.approx(1) and table.loc["found", "correct"] == 1
    assert table.loc["random", "share"] == pytest.approx(1 / 6)
    assert (table.loc["random", "low"], table.loc["random", "high"]) == pytest.approx((0, 1 / 3))
    assert table["n_latents"].tolist() == [1, 1] and table["activation"].tolist() == [1, 1]
    left = compare_sets(Planted(1), {"found": [[0]]}, "remove")
    assert left["share"][0] == pytest.approx(0)
    with pytest.raises(InputError, match="at least one name"):
        compare_sets(Planted(1), {})
