"""Patching: where nothing can change, where everything does, both directions, and refusals by name."""

import pandas as pd
import pytest
import torch

from solutions.errors import InputError
from solutions.interventions import (
    Bench,
    Fact,
    Pair,
    both_runs,
    fact_pairs,
    facts_of,
    mean_over_pairs,
    other_prompts,
    patch_heads,
    patch_positions,
    patched_difference,
    sites,
)
from solutions.models import extract

EIFFEL = Fact("The Eiffel Tower is in", " Paris", " London", "landmark_city")
PISA = Fact("The Leaning Tower is in", " Pisa", " Rome", "landmark_city")
LONGER = Fact("The Arc de Triomphe is in", " Paris", " Rome", "landmark_city")
PAIR = Pair(EIFFEL, PISA)


@pytest.fixture(scope="module")
def grids(model):
    """Both directions on the residual stream: [layers + 1, positions]."""
    made = {}
    for direction in ("restore", "destroy"):
        table = patch_positions(model, PAIR, sites(model), direction)
        made[direction] = torch.tensor(table["moved"].tolist()).view(-1, table["position"].max() + 1)
    return made


@pytest.mark.parametrize("direction", ["restore", "destroy"])
def test_what_is_the_same_in_both_prompts_moves_nothing_at_the_start(grids, direction):
    first = grids[direction][0]  # before the first layer only token 2 differs
    assert first[[0, 1, 3, 4, 5]].abs().max() == 0
    assert first[2] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("direction", ["restore", "destroy"])
def test_at_the_end_only_the_last_token_counts(grids, direction):
    last = grids[direction][-1]
    assert last[:-1].abs().max() == 0 and last[-1] == pytest.approx(1, abs=1e-4)


def test_no_position_before_the_difference_ever_matters(grids):
    for grid in grids.values():
        assert grid[:, :2].abs().max() < 1e-5  # a causal model: BOS and "The" know of nothing yet


def test_the_answer_moves_from_the_subject_to_the_last_token(grids):
    for grid in grids.values():
        assert grid[1, 2] > 0.7 and grid[1, -1] < 0.3
        assert grid[-1, 2] == 0


def test_patching_is_what_one_would_do_by_hand(model):
    hook, position = sites(model)[2], 2
    runs = both_runs(model, PAIR, "restore")
    clean = extract(model, runs.giver.tokens, hook)[hook]

    def put(acts, hook):
        acts = acts.clone()
        acts[0, position] = clean[0, position]
        return acts

    with torch.no_grad():
        logits = model.run_with_hooks(runs.receiver.tokens.ids, fwd_hooks=[(hook, put)])[0, -1]
        plain = model(runs.receiver.tokens.ids)[0, -1]
    paris, pisa = runs.receiver.ids[0].tolist()
    found = patched_difference(model, runs, [(hook, position)])
    assert found.item() == pytest.approx((logits[paris] - logits[pisa]).item(), abs=1e-4)
    assert runs.start == pytest.approx((plain[paris] - plain[pisa]).item(), abs=1e-4)
    assert runs.moved(torch.tensor([runs.start, runs.end, (runs.start + runs.end) / 2])).tolist() == [0, 1, 0.5]


def test_the_directions_have_each_others_ends(model):
    restore, destroy = (both_runs(model, PAIR, direction) for direction in ("restore", "destroy"))
    assert (restore.start, restore.end) == (destroy.end, destroy.start)
    assert restore.start < 0 < restore.end  # each prompt calls for its own answer
    assert torch.equal(restore.receiver.tokens.ids, destroy.giver.tokens.ids)
    assert torch.equal(restore.receiver.ids, destroy.receiver.ids)


def test_patching_a_whole_row_position_by_position_adds_up_to_the_other_run(model):
    """All positions of one row at once give the giver's logits: patch each with the same row number."""
    runs = both_runs(model, PAIR)
    given = extract(model, runs.giver.tokens, sites(model)[1])[sites(model)[1]]
    with torch.no_grad():
        logits = model.run_with_hooks(runs.receiver.tokens.ids,
                                      fwd_hooks=[(sites(model)[1], lambda acts, hook: given)])
    assert runs.moved(runs.receiver.difference(logits)).item() == pytest.approx(1, abs=1e-4)


def test_many_places_at_once_are_one_after_the_other(model):
    runs = both_runs(model, PAIR)
    places = [(sites(model)[1], 2), (sites(model)[3], 5), (sites(model, "MLP output")[0], 2), (sites(model)[1], 5)]
    together = patched_difference(model, runs, places)
    apart = torch.cat([patched_difference(model, runs, [place]) for place in places])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(patched_difference(model, runs, places, batch_size=3), apart, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="at least one place"):
        patched_difference(model, runs, [])


def test_positions_have_their_parts(model):
    table = patch_positions(model, PAIR, sites(model)[0])
    assert table["role"].tolist() == ["before", "before", "differs", "after", "after", "last"]
    assert table["token"].tolist()[2:4] == [" Eiffel", " Tower"] and table["other"][2] == " Leaning"


def test_heads_of_one_position(model):
    table = patch_heads(model, PAIR)
    assert len(table) == model.cfg.n_layers * model.cfg.n_heads
    early = patch_heads(model, PAIR, position=1)
    assert early["moved"].abs().max() < 1e-5  # "The" stands before all that differs
    with pytest.raises(InputError, match="position 6 does not exist: the rows have 6 tokens"):
        patch_heads(model, PAIR, position=6)


def test_pairs_fit(target, model):
    facts = facts_of(target, model, "landmark_city")
    pairs = fact_pairs(model, facts)
    assert len(pairs) > 40
    for clean, corrupt in pairs:
        lengths = {len(model.tokenizer(f.prompt, add_special_tokens=False)["input_ids"]) for f in (clean, corrupt)}
        assert len(lengths) == 1 and clean.answer != corrupt.answer and clean.kind == corrupt.kind
    assert pairs[0].clean.prompt == EIFFEL.prompt and pairs[0].corrupt.prompt == PISA.prompt  # one token differs
    assert len({pair.corrupt.prompt for pair in pairs}) > 20
    assert fact_pairs(model, [EIFFEL]) == []


def test_in_a_mean_every_pair_counts_once():
    tables = iter([
        pd.DataFrame({"hook": ["a"] * 3, "role": ["before", "before", "last"], "moved": [0.0, 0.5, 1.0]}),
        pd.DataFrame({"hook": ["a"] * 2, "role": ["before", "last"], "moved": [0.75, 0.5]}),
    ])  # fmt: skip
    found = mean_over_pairs([PAIR, PAIR], lambda pair: next(tables))
    assert found.to_dict("records") == [
        {"hook": "a", "role": "before", "moved": 0.5, "low": 0.25, "high": 0.75, "n": 2},
        {"hook": "a", "role": "last", "moved": 0.75, "low": 0.5, "high": 1.0, "n": 2}]
    with pytest.raises(InputError, match="at least one pair"):
        mean_over_pairs([], lambda pair: None)


def test_all_latents_of_the_other_prompt_are_no_more_than_its_activation_without_the_error(target, model, sae):
    facts, there = other_prompts(model, sae, target.hook, [PAIR])
    assert facts == [Fact(EIFFEL.prompt, " Paris", " Pisa", "landmark_city")]
    bench = Bench(model, sae, target.hook, facts, baseline=there)
    runs = both_runs(model, PAIR, "destroy")
    nothing, everything = bench.ends
    assert everything == pytest.approx(runs.start, abs=1e-3)
    # The clean prompt's error stays, so it need not reach the corrupt run; without either error it does.
    ours, theirs = (extract(model, asked.tokens, target.hook)[target.hook] for asked in (runs.receiver, runs.giver))
    mixed = theirs + (ours - sae.decode(sae.encode(ours))) - (theirs - sae.decode(sae.encode(theirs)))
    mixed[:, 0] = ours[:, 0]
    with torch.no_grad():
        logits = model.run_with_hooks(runs.receiver.tokens.ids, fwd_hooks=[(target.hook, lambda acts, hook: mixed)])
    assert nothing == pytest.approx(runs.receiver.difference(logits).item(), abs=1e-3)


def test_refusals(target, model, sae):
    with pytest.raises(InputError, match="same number of tokens.*Arc de Triomphe"):
        both_runs(model, Pair(PISA, LONGER))
    with pytest.raises(InputError, match="same number of tokens"):
        other_prompts(model, sae, target.hook, [Pair(PISA, LONGER)])
    with pytest.raises(InputError, match="'restored'.*Did you mean 'restore'"):
        patch_positions(model, PAIR, sites(model), "restored")
    with pytest.raises(InputError, match="blocks 0 to 3"):
        patch_positions(model, PAIR, "blocks.9.hook_resid_pre")
    with pytest.raises(InputError, match="unknown site"):
        sites(model, "residual")
    same = Pair(EIFFEL, Fact(EIFFEL.prompt, " Pisa", " Rome", "landmark_city"))
    with pytest.raises(InputError, match="nothing to patch"):
        both_runs(model, same)


def test_hooks_come_down(model):
    ids = both_runs(model, PAIR).receiver.tokens.ids
    with torch.no_grad():
        before = model(ids)
    with pytest.raises(IndexError):
        patched_difference(model, both_runs(model, PAIR), [(sites(model)[0], 99)])
    with torch.no_grad():
        assert torch.equal(model(ids), before)
