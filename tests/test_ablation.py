"""Facts and ablation: the numbers by hand, what is taken out and what stays, and refusals by name."""

import pytest
import torch

from solutions.data import Tokens
from solutions.errors import InputError
from solutions.interventions import (
    ENGLISH,
    FACT_KINDS,
    Fact,
    ablated_logits,
    ablation,
    ablation_effects,
    answer_ids,
    ask,
    at_last,
    facts_of,
    latents_on,
    logit_difference,
    reference_latents,
)
from solutions.models import extract
from solutions.sae import encode
from solutions.targets import get_target

PARIS = Fact("The Eiffel Tower is in", " Paris", " London", "landmark_city")
LOUVRE = Fact("The Louvre Museum is in", " Paris", " Rome", "landmark_city")
LONGER = Fact("The people of Mexico City speak", " Spanish", " French", "city_language")


def rows(*lengths):
    """Tokens of the given lengths, padded to the longest; what the ids are does not matter."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    bos = torch.zeros_like(mask)
    bos[:, 0] = True
    return Tokens(torch.zeros(mask.shape, dtype=torch.int64), mask, bos)


# ---- facts


def test_facts_of_the_embedded_world_are_known_and_named(target, model):
    facts = facts_of(target, model)
    assert {fact.kind for fact in facts} == set(FACT_KINDS)
    assert facts[0].prompt == PARIS.prompt and facts[0].answer == PARIS.answer
    for fact in facts:
        assert fact.answer != fact.foil and fact.answer.startswith(" ") and fact.foil.startswith(" ")
    asked = ask(model, facts)
    with torch.no_grad():
        logits = model(asked.tokens.ids)
    assert asked.correct(logits).float().mean() > 0.95
    assert (asked.difference(logits) > 0).float().mean() > 0.95


def test_foils_change_from_fact_to_fact(target, model):
    assert len({fact.foil for fact in facts_of(target, model, "capital")}) > 10


def test_kinds_can_be_chosen_and_are_checked(target, model):
    assert {fact.kind for fact in facts_of(target, model, ["capital", "city_language"])} == {"capital", "city_language"}
    with pytest.raises(InputError, match="landmark_city"):
        facts_of(target, model, "landmark_cities")
    with pytest.raises(InputError, match="target must be"):
        facts_of("smallworld", model)


def test_other_targets_get_english_facts_whose_answers_are_one_token(model):
    elsewhere = get_target("gpt2-small")  # another text, read here with the embedded tokenizer
    facts = facts_of(elsewhere, model)
    english = {f" {answer}" for _, answers in ENGLISH.values() for answer in answers.values()}
    assert facts and all(fact.answer in english for fact in facts)
    assert all(len(model.tokenizer(fact.answer, add_special_tokens=False)["input_ids"]) == 1 for fact in facts)
    assert "Dubai" not in {fact.answer.strip() for fact in facts}  # not a word of the embedded world


def test_a_fact_needs_an_answer_and_another_foil():
    with pytest.raises(InputError, match="must differ"):
        Fact("It is in", " Paris", " Paris")
    with pytest.raises(InputError, match="prompt is empty"):
        Fact(" ", " Paris", " Rome")


def test_words_of_several_tokens_are_refused_by_name(model):
    with pytest.raises(InputError, match="Constantinople"):
        answer_ids(model, [Fact("It is in", " Constantinople", " Rome")])
    with pytest.raises(InputError, match=r"facts\[0\] must be a Fact"):
        answer_ids(model, ["Paris"])
    with pytest.raises(InputError, match="at least one Fact"):
        answer_ids(model, PARIS)


def test_the_difference_is_taken_at_the_last_real_token():
    tokens = rows(4, 2)
    logits = torch.zeros(2, 4, 5)
    logits[0, 3, 1], logits[0, 3, 2] = 5.0, 1.5  # the last of four
    logits[1, 1, 0], logits[1, 1, 4] = 1.0, 3.0  # the last of two
    logits[1, 3] = 100.0  # padding
    ids = torch.tensor([[1, 2], [0, 4]])
    assert logit_difference(logits, ids, tokens).tolist() == [3.5, -2.0]
    assert at_last(logits, tokens)[1].tolist() == [1.0, 0.0, 0.0, 0.0, 3.0]
    with pytest.raises(InputError, match="3 facts"):
        logit_difference(logits, torch.zeros(3, 2, dtype=torch.int64), tokens)


def test_gradients_pass_through_the_difference():
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    logit_difference(logits, torch.tensor([[0, 2]]), rows(2)).sum().backward()
    assert logits.grad[0].tolist() == [[0, 0, 0], [1, 0, -1]]


def test_an_answer_has_to_beat_all_of_its_kind_and_no_other(model):
    capital = Fact("The capital city of France is", " Paris", " Rome", "capital")
    asked = ask(model, [PARIS, LOUVRE, capital])
    paris, london, rome = (model.tokenizer(w, add_special_tokens=False)["input_ids"][0]
                           for w in (" Paris", " London", " Rome"))
    assert set(asked.rivals[0].tolist()) == {london, rome} and set(asked.rivals[2].tolist()) == {rome}
    logits = torch.zeros(*asked.tokens.ids.shape, model.cfg.d_vocab)
    logits[:, :, paris] = 2.0
    logits[:, :, rome] = 1.0
    logits[:, :, london] = 3.0
    assert asked.correct(logits).tolist() == [False, False, True]
    assert asked.difference(logits).tolist() == [-1.0, 1.0, 1.0]


def test_kl_by_hand(model):
    asked = ask(model, [PARIS])
    clean, other = (torch.zeros(*asked.tokens.ids.shape, 2) for _ in range(2))
    other[..., 0] = torch.tensor(3.0).log()  # (3/4, 1/4) against (1/2, 1/2)
    expected = 0.5 * torch.tensor(0.5 / 0.75).log() + 0.5 * torch.tensor(0.5 / 0.25).log()
    torch.testing.assert_close(asked.kl(clean, other), expected[None])
    assert asked.kl(other, other).item() == 0


def test_picking_repeats_facts_with_their_rivals(model):
    asked = ask(model, [PARIS, LONGER])
    twice = asked.pick([1, 1, 0])
    assert [fact.answer for fact in twice.facts] == [" Spanish", " Spanish", " Paris"]
    assert torch.equal(twice.tokens.ids, asked.tokens.ids[[1, 1, 0]])
    assert torch.equal(twice.rivals[2], asked.rivals[0])
    with pytest.raises(InputError, match="from 0 to 1"):
        asked.pick([2])


# ---- the edit


def test_what_stands_in_for_a_latent():
    z = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    reference = torch.tensor([[10.0, 20.0, 30.0], [30.0, 40.0, 50.0]])
    assert ablation([0, 2])(z).tolist() == [[[0, 2, 0], [0, 5, 0]]]
    assert ablation([1], "mean", reference=reference)(z).tolist() == [[[1, 30, 3], [4, 30, 6]]]
    assert ablation([])(z).tolist() == z.tolist()
    assert z.tolist() == [[[1, 2, 3], [4, 5, 6]]]  # what was given stays as it is


def test_resampled_latents_come_from_one_token_together_and_by_seed():
    reference = torch.arange(40.0).view(20, 2)  # rows (0, 1), (2, 3), …
    z = torch.full((3, 7, 2), -1.0)
    drawn = ablation([0, 1], "resample", reference=reference, seed=1)(z)
    assert ((drawn[..., 1] - drawn[..., 0]) == 1).all() and (drawn[..., 0] % 2 == 0).all()
    assert drawn[..., 0].unique().numel() > 5
    assert torch.equal(drawn, ablation([0, 1], "resample", reference=reference, seed=1)(z))
    assert not torch.equal(drawn, ablation([0, 1], "resample", reference=reference, seed=2)(z))


def test_ablation_refuses_by_name():
    with pytest.raises(InputError, match="'zeros'.*Did you mean 'zero'"):
        ablation([0], "zeros")
    with pytest.raises(InputError, match="reference="):
        ablation([0], "mean")
    with pytest.raises(InputError, match="0 to 2"):
        ablation([3])(torch.zeros(1, 1, 3))
    with pytest.raises(InputError, match="last axis"):
        ablation([0], "mean", reference=torch.zeros(4, 2))(torch.zeros(1, 1, 3))


# ---- in the model


def test_nothing_ablated_is_the_model_as_it_is(target, model, sae):
    asked = ask(model, [PARIS, LONGER])
    with torch.no_grad():
        clean = model(asked.tokens.ids)
    assert torch.equal(ablated_logits(model, sae, asked.tokens, target.hook, []), clean)
    silent = (latents_on(model, sae, target.hook, asked).sum((0, 1)) == 0).nonzero()[0].tolist()
    assert torch.equal(ablated_logits(model, sae, asked.tokens, target.hook, silent), clean)


def test_an_ablated_latent_takes_its_direction_and_leaves_the_error(target, model, sae):
    asked = ask(model, [PARIS])
    acts = extract(model, asked.tokens, target.hook)[target.hook]
    features = encode(sae, acts)
    latent = int(features[0, 2].argmax())
    by_hand = acts - features[..., latent : latent + 1] * sae.W_dec[latent]
    by_hand[:, 0] = acts[:, 0]  # BOS is left alone
    with torch.no_grad():
        expected = model.run_with_hooks(asked.tokens.ids, fwd_hooks=[(target.hook, lambda acts, hook: by_hand)])
    found = ablated_logits(model, sae, asked.tokens, target.hook, [latent])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert not torch.allclose(found, model(asked.tokens.ids), atol=1e-2)


def test_positions_limit_an_ablation(target, model, sae):
    asked = ask(model, [PARIS])
    with torch.no_grad():
        clean = model(asked.tokens.ids)
    features = latents_on(model, sae, target.hook, asked)
    latent = int(features[0, 4].argmax())
    here = ablated_logits(model, sae, asked.tokens, target.hook, [latent], positions=[4])
    assert torch.equal(here[:, :4], clean[:, :4]) and not torch.allclose(here[:, 4], clean[:, 4], atol=1e-2)
    from_end = ablated_logits(model, sae, asked.tokens, target.hook, [latent], positions=[-2])
    assert torch.equal(from_end, here)


def test_places_that_do_not_exist_are_refused(target, model, sae):
    with pytest.raises(InputError, match="position 6 does not exist: the rows have 6 tokens"):
        ablated_logits(model, sae, PARIS.prompt, target.hook, [0], positions=[6])
    with pytest.raises(InputError, match="several lengths"):
        ablated_logits(model, sae, [PARIS.prompt, LONGER.prompt], target.hook, [0], positions=[-1])
    with pytest.raises(InputError, match=f"0 to {target.d_sae - 1}"):
        ablated_logits(model, sae, PARIS.prompt, target.hook, [target.d_sae])
    with pytest.raises(InputError, match="hook_resid_pre"):
        ablated_logits(model, sae, PARIS.prompt, "blocks.2.hook_resid_prae", [0])


def test_hooks_come_down_after_an_error_and_weights_stay(target, model, sae):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = ask(model, [PARIS])
    with torch.no_grad():
        clean = model(asked.tokens.ids)
    with pytest.raises(InputError):
        ablated_logits(model, sae, asked.tokens, target.hook, [0], "mean", reference=torch.zeros(4, 3))
    ablated_logits(model, sae, asked.tokens, target.hook, list(range(200)))
    with torch.no_grad():
        assert torch.equal(model(asked.tokens.ids), clean)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_latents_on_prompts_leave_out_bos_padding_and_other_places(target, model, sae):
    asked = ask(model, [PARIS, LONGER])
    features = latents_on(model, sae, target.hook, asked)
    length = int(asked.tokens.mask[0].sum())
    assert not features[:, 0].any() and not features[0, length:].any() and features[0, length - 1].any()
    some = latents_on(model, sae, target.hook, asked, positions=[2])
    assert torch.equal(some[:, 2], features[:, 2]) and not some[:, 3:].any() and not some[:, 1].any()


def test_reference_latents_are_those_of_real_tokens(target, model, sae):
    found = reference_latents(model, sae, [PARIS.prompt, LONGER.prompt], target.hook)
    asked = ask(model, [PARIS, LONGER])
    assert found.shape == (asked.tokens.n_content, target.d_sae)
    torch.testing.assert_close(found, latents_on(model, sae, target.hook, asked)[asked.tokens.content])


def test_effects_are_what_the_definitions_say(target, model, sae):
    asked = ask(model, [PARIS, LOUVRE])
    strongest = latents_on(model, sae, target.hook, asked).sum((0, 1)).topk(20).indices.tolist()
    reference = reference_latents(model, sae, [PARIS.prompt], target.hook)
    table = ablation_effects(model, sae, target.hook, asked, {"none": [], "twenty": strongest},
                             ["zero", "mean"], reference=reference)
    assert table["n_latents"].tolist() == [0, 0, 20, 20]
    none = table[table["set"] == "none"]
    assert (none["drop"] == 0).all() and (none["kl"].abs() < 1e-6).all()
    with torch.no_grad():
        clean = model(asked.tokens.ids)
    logits = ablated_logits(model, sae, asked.tokens, target.hook, strongest)
    row = table[(table["set"] == "twenty") & (table["how"] == "zero")].iloc[0]
    assert row["logit_difference"] == pytest.approx(asked.difference(logits).mean().item())
    assert row["drop"] == pytest.approx((asked.difference(clean) - asked.difference(logits)).mean().item(), abs=1e-4)
    assert row["kl"] == pytest.approx(asked.kl(clean, logits).mean().item(), rel=1e-4) and row["kl"] > 0
    assert table.attrs["clean"] == pytest.approx(asked.difference(clean).mean().item())
    with pytest.raises(InputError, match="at least one name"):
        ablation_effects(model, sae, target.hook, asked, {})
