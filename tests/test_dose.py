"""Dose and response: directions by hand, effects and damage against slower ways to the same numbers, and the figure."""

import math

import pandas as pd
import pytest
import torch
from figure_rules import describes_itself, takes_no_name_for_html, travels_light
from hub_cache import tiny_model
from transformers import DynamicCache

from solutions.data import tokenize
from solutions.errors import InputError
from solutions.interventions import (
    difference_of_means,
    dose_response,
    prompting,
    steered_logits,
    steered_text,
    steering_effects,
)
from solutions.models import generate, loss, unembedding
from solutions.visualization import paths

HOOK = "blocks.1.hook_resid_pre"
LAST = "blocks.2.hook_resid_post"
PROMPTS = ["The Eiffel Tower", "Hi", "We went to"]
WANTED = [300, 301, 40]


@pytest.fixture(params=["gpt2", "llama"])
def tiny(request):
    return tiny_model(request.param)


def some_vectors(n, seed=0, d=16):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# ---- directions


def test_the_difference_of_means_by_hand():
    acts = torch.tensor([[1.0, 0.0], [3.0, 2.0], [0.0, 5.0], [4.0, 1.0], [2.0, 3.0]])
    holds = torch.tensor([True, True, False, False, False])
    assert difference_of_means(acts, holds).tolist() == [0.0, -2.0]
    assert torch.equal(difference_of_means(acts, ~holds), -difference_of_means(acts, holds))


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        (torch.ones(3, dtype=torch.bool), "holds everywhere"),
        (torch.zeros(3, dtype=torch.bool), "holds nowhere"),
        (torch.ones(2, dtype=torch.bool), r"torch.bool of shape \[3\], got torch.bool \[2\]"),
        (torch.ones(3), "got torch.float32"),
        ([True, False, True], "got list"),
    ],
)
def test_two_groups_are_needed(holds, said):
    with pytest.raises(InputError, match=said):
        difference_of_means(torch.ones(3, 2), holds)


# ---- the effect of many vectors


def test_effects_are_those_of_each_vector_alone(tiny):
    """Prompts of different lengths: neither padding nor BOS may count, and batches may cut anywhere."""
    vectors = some_vectors(5)
    wanted = {"some": WANTED, "one": torch.arange(400) == 7}
    found = steering_effects(tiny, HOOK, vectors, PROMPTS, wanted, batch_size=7)
    assert list(found) == ["some", "one"] and found["some"].shape == (5, 3)
    for i, vector in enumerate(vectors):
        for j, prompt in enumerate(PROMPTS):
            chances = steered_logits(tiny, prompt, HOOK, vector).softmax(-1)[0, 1:]
            assert found["some"][i, j].item() == pytest.approx(chances[:, WANTED].sum(-1).mean().item(), rel=1e-3)
            assert found["one"][i, j].item() == pytest.approx(chances[:, 7].mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([400], "token ids from 0 to 399"),
        ([-1], "token ids from 0 to 399"),
        ([0.5], "token ids from 0 to 399"),
        ([], "token ids|at least one token"),
        (torch.zeros(400, dtype=torch.bool), "at least one token"),
        (torch.ones(399, dtype=torch.bool), "at least one token of the 400"),
    ],
)
def test_wanted_tokens_must_exist(wanted, said):
    with pytest.raises(InputError, match=said):
        steering_effects(tiny_model(), HOOK, some_vectors(1), PROMPTS, {"them": wanted})


# ---- dose and response


def responses(model, **options):
    given = {
        "prompts": PROMPTS,
        "directions": {"one": 4 * some_vectors(1)[0], "random": 4 * some_vectors(2, seed=1)},
        "wanted": WANTED,
        "strengths": [0, 0.5, 2],
        "max_new_tokens": 4,
        "temperature": 0,
        **options,
    }
    return dose_response(model, given.pop("hook", HOOK), given.pop("prompts"), **given)


def test_a_row_for_each_direction_draw_and_strength(tiny):
    table = responses(tiny)
    assert table[["direction", "draw", "strength"]].values.tolist() == [
        [name, draw, s] for name, draw in (("one", 0), ("random", 0), ("random", 1)) for s in (0, 0.5, 2)
    ]
    length = 4 * some_vectors(1)[0].norm().item()
    assert table["length"][:3].tolist() == pytest.approx([0, 0.5 * length, 2 * length], rel=1e-5)
    measures = ["probability", "written", "loss", "distinct", "sample"]
    none = table[table["strength"] == 0][measures]
    assert (none == none.iloc[0]).all(axis=None)  # without strength there are no directions


def test_greedy_texts_are_those_of_steered_text(tiny):
    """The same texts without a memory of what was read, one after the other; and what they cost by `loss`."""
    table, vectors = responses(tiny), 4 * some_vectors(2, seed=1)
    row = table[(table["direction"] == "random") & (table["draw"] == 1) & (table["strength"] == 2)].iloc[0]
    texts = [steered_text(tiny, prompt, HOOK, 2 * vectors[1], 4, temperature=0) for prompt in PROMPTS]
    assert row["sample"] == texts[0].removeprefix(PROMPTS[0])
    chances = steering_effects(tiny, HOOK, 2 * vectors[1:], PROMPTS, {"them": WANTED})["them"]
    assert row["probability"] == pytest.approx(chances.mean().item(), rel=1e-3)


def test_a_model_that_forgets_what_it_has_read_reads_it_again(tiny, monkeypatch):
    """As with transformers 5.24 under TransformerLens 3.9, where the cache stays empty and nothing is said."""
    remembered = responses(tiny)
    monkeypatch.setattr(DynamicCache, "update", lambda self, keys, values, *_, **__: (keys, values))
    _, cache = tiny(tokenize(tiny, PROMPTS[0]).ids, return_type="logits_and_cache", use_cache=True)
    assert cache.get_seq_length() == 0
    pd.testing.assert_frame_equal(responses(tiny), remembered, rtol=1e-4)


def test_the_damage_is_the_unsteered_models_loss_on_what_was_written(tiny):
    """Pushed towards one token, what is written is known, and its loss can be had with one plain pass."""
    row = responses(tiny, hook=LAST, directions={"push": 1e4 * unembedding(tiny)[:, 300]}, strengths=[1]).iloc[0]
    losses = []
    for prompt in PROMPTS:
        ids = tokenize(tiny, prompt).ids
        with torch.no_grad():
            logits = tiny(torch.cat([ids, torch.full((1, 4), 300)], 1))[0]
        losses += [-logits[i].log_softmax(-1)[300].item() for i in range(ids.shape[1] - 1, ids.shape[1] + 3)]
    assert row["loss"] == pytest.approx(sum(losses) / 12, rel=1e-3)


def test_pushed_towards_one_token_that_token_is_all_that_is_written(tiny):
    """Known answers: effect 1, one token of four distinct, and a loss above that of the model's own text."""
    vector = 1e4 * unembedding(tiny)[:, 300]
    table = responses(tiny, hook=LAST, directions={"push": vector}, wanted=[300], strengths=[0, 1])
    assert table["written"].tolist() == [pytest.approx(0, abs=0.3), 1.0]
    assert table["distinct"][1] == 0.25
    assert table["probability"][1] > 2 * table["probability"][0]
    assert table["loss"][1] > table["loss"][0] + 0.5
    assert table["sample"][1] == 4 * tiny.tokenizer.decode([300])


def test_the_dice_are_the_same_for_all_and_follow_the_seed(tiny):
    options = {"temperature": 1.0, "directions": {"a": torch.zeros(16), "b": torch.zeros(2, 16)}, "strengths": [1, 2]}
    table = responses(tiny, seed=3, **options)
    assert table["sample"].nunique() == 1 and table["loss"].nunique() == 1
    assert responses(tiny, seed=3, batch_size=1, **options)["sample"].nunique() == 1
    assert {responses(tiny, seed=s, **options)["sample"][0] for s in range(4)} != {table["sample"][0]}


def test_the_dice_follow_the_models_probabilities():
    """The cumulated probability is what the dice fall into: by hand for three tokens."""
    from solutions.interventions.dose import _drawn

    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(5, 1)
    assert _drawn(logits, 1.0, torch.tensor([0.0, 0.49, 0.51, 0.79, 0.999])).tolist() == [0, 0, 1, 1, 2]
    assert _drawn(logits, 0, torch.full((5,), 0.9)).tolist() == [0] * 5
    assert _drawn(logits, 0.01, torch.full((5,), 0.9)).tolist() == [0] * 5


def test_what_follows_the_end_of_a_text_does_not_count():
    """Pushed towards the end of the text at once, nothing is written, and there is nothing to measure."""
    tiny = tiny_model()
    end = tiny.tokenizer.eos_token_id
    vector = 1e4 * unembedding(tiny)[:, end]
    row = responses(tiny, hook=LAST, directions={"end": vector}, strengths=[1]).iloc[0]
    assert row["sample"] == "" and math.isnan(row["loss"]) and math.isnan(row["written"])


def test_nothing_is_left_behind(tiny):
    before = loss(tiny, PROMPTS)
    responses(tiny)
    steering_effects(tiny, HOOK, some_vectors(1), PROMPTS, {"them": WANTED})
    assert loss(tiny, PROMPTS) == before
    assert not any(point.fwd_hooks for point in tiny.hook_dict.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strengths": []}, "at least one finite number"),
        ({"strengths": [math.nan]}, "at least one finite number"),
        ({"directions": {}}, "directions is empty"),
        ({"directions": {"a": torch.ones(17)}}, "must have 16 as its last axis, got 17"),
        ({"directions": {"a": torch.full((16,), math.nan)}}, "not finite"),
        ({"directions": {"a": [1.0] * 16}}, r"directions\['a'\] must be a torch.Tensor"),
        ({"hook": "blocks.1.hook_resid_prae"}, "Did you mean 'blocks.1.hook_resid_pre'"),
        ({"max_new_tokens": 0}, "max_new_tokens must be a whole number of at least 1"),
        ({"max_new_tokens": 40}, "Shorten the prompt"),
        ({"temperature": -1}, "temperature must be a number of at least 0"),
        ({"prompts": []}, "empty list"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        responses(tiny_model(), **changes)


# ---- plain prompting


def test_prompting_measures_the_prompts_own_tokens_and_the_bare_loss(tiny):
    """One prompt, greedy: what is written is what the model writes after both texts."""
    before, prompt = "Hi ", "We went to"
    row = prompting(tiny, [prompt], {"hi": before}, WANTED, max_new_tokens=4, temperature=0).iloc[0]
    assert row["sample"] == generate(tiny, before + prompt, 4, temperature=0).removeprefix(before + prompt)
    own = tokenize(tiny, prompt).ids.shape[1] - 1
    with torch.no_grad():
        chances = tiny(tokenize(tiny, before + prompt).ids).softmax(-1)[0, -own:, WANTED].sum(-1)
    assert row["probability"] == pytest.approx(chances.mean().item(), rel=1e-3)
    assert math.isnan(row["strength"]) and row["direction"] == "hi"


def test_prompts_of_different_lengths_are_the_mean_of_each(tiny):
    together = prompting(tiny, PROMPTS, {"hi": "Hi "}, WANTED, max_new_tokens=4, temperature=0).iloc[0]
    alone = [prompting(tiny, [p], {"hi": "Hi "}, WANTED, max_new_tokens=4, temperature=0).iloc[0] for p in PROMPTS]
    for measure in ("probability", "written", "loss", "distinct"):
        assert together[measure] == pytest.approx(sum(row[measure] for row in alone) / 3, rel=1e-3)


def test_prompting_needs_room_and_a_text():
    with pytest.raises(InputError, match="Shorten the prompt"):
        prompting(tiny_model(), PROMPTS, {"long": "We went to see the house. " * 9}, WANTED)
    with pytest.raises(InputError, match=r"before\['none'\] is empty"):
        prompting(tiny_model(), PROMPTS, {"none": ""}, WANTED)


# ---- the figure


def test_a_path_goes_through_its_stops_in_their_order():
    routes = {"<i>latent</i>": ([0, 30, 80], [1.0, 2.5, 7.123456]), "random": ([0, math.nan, 1], [1, 2, 5])}
    figure = paths(routes, "effect (%)", "damage (nats)", stops=["none", "half", "full"], points={"<i>p</i>": (2, 1.2)})
    describes_itself(figure)
    travels_light(figure)
    takes_no_name_for_html(figure, "i")
    latent, random, star = figure.data
    assert latent.x == (0, 30, 80) and latent.y == (1, 2.5, 7.123) and latent.customdata == ("none", "half", "full")
    assert random.x == (0, 1) and random.customdata == ("none", "full")
    assert star.marker.symbol == "star" and star.x == (2,)
    assert "random: ends at 1, 5" in figure.layout.meta["alt"]
    assert figure.layout.xaxis.title.text == "effect (%)" and figure.layout.showlegend


@pytest.mark.parametrize(
    ("routes", "stops", "said"),
    [
        ({}, None, "at least one name"),
        ({"a": ([1, 2], [1])}, None, "expected 2 entries"),
        ({"a": ([1, 2], [1, 2])}, ["x"], "stops: expected 2 entries"),
        ({"a": ([math.nan], [1])}, None, "no stop has two finite numbers"),
    ],
)
def test_a_path_that_cannot_be_drawn_is_refused(routes, stops, said):
    with pytest.raises(InputError, match=said):
        paths(routes, "x", "y", stops=stops)
