"""Steering: the vector by hand, where it is added and where not, what comes down again, and the controls."""

import math
from dataclasses import replace

import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target

from solutions.data import Tokens, load_texts, tokenize
from solutions.errors import InputError
from solutions.interventions import (
    Push,
    compare_steering,
    promoted_tokens,
    push_vector,
    random_push,
    steered_logits,
    steered_text,
    steering,
)
from solutions.models import extract, generate, load_model, loss, run_with_edit, running, unembedding
from solutions.sae import encode

HOOK = "blocks.1.hook_resid_pre"
LAST = "blocks.2.hook_resid_post"
TEXT = "The Eiffel Tower"
MAXIMA = torch.arange(1.0, 33.0)


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return tiny_model(request.param)


def some_vector(d=16, seed=0):
    return torch.randn(d, generator=torch.Generator().manual_seed(seed))


# ---- the vector


def test_a_push_is_strength_times_maximum_times_decoder_row():
    sae = tiny_sae()  # latent j < 16 writes the axis j, latent 16 + j its opposite
    vector = push_vector(sae, [Push(2, 0.5), Push(16, 2.0), Push(0, -1.0)], MAXIMA)
    by_hand = torch.zeros(16)
    by_hand[2] = 0.5 * 3.0
    by_hand[0] = -2.0 * 17.0 - 1.0 * 1.0
    assert torch.equal(vector, by_hand)
    assert torch.equal(push_vector(sae, [(2, 0.5), (2, 0.5)], MAXIMA), push_vector(sae, [Push(2, 1)], MAXIMA))


def test_the_push_of_the_embedded_sae_is_its_decoder_row(sae):
    maxima = torch.full((sae.cfg.d_sae,), 4.0)
    by_hand = 1.5 * 4.0 * sae.W_dec[7] - 0.5 * 4.0 * sae.W_dec[9]
    torch.testing.assert_close(push_vector(sae, [Push(7, 1.5), Push(9, -0.5)], maxima), by_hand.detach())


class RescalingSAE:
    """An SAE whose decoder divides each row by its norm first, as SAELens's `rescale_acts_by_decoder_norm` does."""

    def __init__(self, rows, **changes):
        self.W_dec, self.b_dec = torch.nn.Parameter(rows), torch.ones(rows.shape[1])
        self.cfg = type("Config", (), {"d_sae": len(rows), "d_in": rows.shape[1], **changes})

    def parameters(self):
        yield self.W_dec

    def encode(self, x):
        raise NotImplementedError

    def decode(self, features):
        return features @ (self.W_dec / self.W_dec.norm(dim=1, keepdim=True)) + self.b_dec


def test_a_decoder_that_scales_its_rows_is_followed_and_its_bias_left_out():
    sae = RescalingSAE(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    vector = push_vector(sae, [Push(0, 2.0)], torch.tensor([5.0, 1.0]))
    torch.testing.assert_close(vector, torch.tensor([6.0, 8.0]))  # 2 · 5 · (0.6, 0.8)


def test_an_sae_that_rescales_each_token_has_no_vector():
    sae = RescalingSAE(torch.eye(2), normalize_activations="layer_norm")
    with pytest.raises(InputError, match="layer_norm.*no one vector"):
        push_vector(sae, [Push(0, 1.0)], torch.ones(2))


@pytest.mark.parametrize(
    ("pushes", "said"),
    [
        ([], "at least one Push"),
        (Push(1, 1.0), "list of at least one Push"),
        ("no", "list of at least one Push"),
        ([3], r"pushes\[0\] must be a Push"),
        ([Push(1, 1.0), Push(32, 1.0)], r"pushes\[1\]: latent must be a whole number from 0 to 31, got 32"),
        ([Push(-1, 1.0)], "from 0 to 31, got -1"),
        ([Push(1.5, 1.0)], "from 0 to 31, got 1.5"),
        ([Push(1, math.nan)], "finite number, got nan"),
        ([Push(1, "2")], "finite number, got '2'"),
        ([Push(1, True)], "finite number, got True"),
        ([Push(5, 1.0)], "latent 5 has the maximum 0.*no unit"),
    ],
)
def test_bad_pushes_are_refused(pushes, said):
    maxima = torch.where(torch.arange(32) == 5, 0.0, 1.0)
    with pytest.raises(InputError, match=said):
        push_vector(tiny_sae(), pushes, maxima)


def test_maxima_must_belong_to_the_sae():
    with pytest.raises(InputError, match="maxima must have 32 as its last axis, got 31"):
        push_vector(tiny_sae(), [Push(1, 1.0)], torch.ones(31))


def test_the_control_is_as_long_and_repeats_by_its_seed():
    vector = some_vector(200, seed=1000)  # not one of the controls' seeds: the same dice give the same vector
    control = random_push(vector, seed=1)
    assert control.norm().item() == pytest.approx(vector.norm().item(), rel=1e-5)
    assert torch.equal(control, random_push(vector, seed=1))
    others = torch.stack([random_push(vector, seed) for seed in range(30)])
    cosines = torch.cosine_similarity(others, vector[None])
    assert cosines.abs().max() < 0.35 and cosines.abs().mean() > 0.01  # 1/sqrt(200) = 0.07
    assert torch.equal(random_push(torch.zeros(4), 0), torch.zeros(4))


# ---- where it is added


def test_the_vector_is_added_at_every_token_but_bos(model):
    vector = some_vector()
    tokens = tokenize(model, [TEXT, "Hi"])
    before = extract(model, tokens, HOOK)[HOOK]
    with steering(model, HOOK, vector):
        after = extract(model, tokens, HOOK)[HOOK]
    by_hand = before + vector * (~tokens.bos)[..., None]
    torch.testing.assert_close(after, by_hand)
    with steering(model, HOOK, vector, skip_bos=False):
        after = extract(model, tokens, HOOK)[HOOK]
    torch.testing.assert_close(after, before + vector)


def test_a_row_without_bos_is_steered_from_its_first_token(model):
    """Also: a BOS token further on is text, and only the first one is left alone."""
    vector, bos = some_vector(), model.tokenizer.bos_token_id
    ids = torch.tensor([[40, 41, 42], [bos, 41, bos]])
    plain = Tokens(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))
    before = extract(model, plain, HOOK)[HOOK]
    with steering(model, HOOK, vector):
        moved = extract(model, plain, HOOK)[HOOK] - before
    torch.testing.assert_close(moved[1, 0], torch.zeros(16))
    rest = torch.cat([moved[0], moved[1, 1:]])
    torch.testing.assert_close(rest, vector.expand_as(rest), rtol=1e-4, atol=1e-4)


def test_a_model_with_processed_weights_is_steered_once():
    """TransformerLens calls a hook once for each name of its hook point in this mode."""
    centred = load_model(replace(tiny_target(), processing={"center_writing_weights": True}), "cpu")
    vector = some_vector()
    before = extract(centred, TEXT, HOOK)[HOOK]
    with steering(centred, HOOK, vector):
        after = extract(centred, TEXT, HOOK)[HOOK]
    torch.testing.assert_close(after[:, 1:], before[:, 1:] + vector)


def test_steered_logits_at_the_last_layer_by_hand(model):
    vector = some_vector()
    tokens = tokenize(model, TEXT)
    with torch.no_grad():
        by_edit = run_with_edit(model, tokens, LAST, lambda x: x + vector * (~tokens.bos)[..., None])
        stream = extract(model, tokens, LAST)[LAST] + vector
        by_hand = model.unembed(model.ln_final(stream))[:, 1:]
    logits = steered_logits(model, tokens, LAST, vector)
    assert not logits.requires_grad
    torch.testing.assert_close(logits, by_edit, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[:, 1:], by_hand, rtol=1e-3, atol=1e-3)


def test_blocks_inside_each_other_add_up(model):
    a, b = some_vector(seed=1), some_vector(seed=2)
    with steering(model, HOOK, a):
        together = steered_logits(model, TEXT, HOOK, b)
    torch.testing.assert_close(together, steered_logits(model, TEXT, HOOK, a + b), rtol=1e-3, atol=1e-3)


def test_the_models_other_hooks_stay(model):
    seen = []
    with model.hooks(fwd_hooks=[(HOOK, lambda x, hook: seen.append(1))]):
        steered_logits(model, TEXT, HOOK, some_vector())
        seen.clear()
        model(tokenize(model, TEXT).ids)
    assert len(seen) == 1


def test_the_hook_comes_down_after_an_error_too(model):
    before = loss(model, TEXT)
    with pytest.raises(ZeroDivisionError), steering(model, HOOK, 100 * some_vector()):
        assert loss(model, TEXT) != before
        raise ZeroDivisionError
    assert loss(model, TEXT) == before
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize(
    ("hook", "vector", "said"),
    [
        (HOOK, torch.ones(17), r"vector \(for 'blocks.1.hook_resid_pre'\) must have 16 as its last axis, got 17"),
        (HOOK, torch.ones(2, 16), r"vector must have shape \[d\]"),
        (HOOK, torch.tensor([math.nan] * 16), "not finite"),
        (HOOK, torch.tensor([math.inf] * 16), "not finite"),
        (HOOK, torch.ones(16, dtype=torch.long), "floating point"),
        (HOOK, [1.0] * 16, "must be a torch.Tensor"),
        ("blocks.1.hook_resid_pree", torch.ones(16), "Did you mean 'blocks.1.hook_resid_pre'"),
        ("blocks.7.hook_resid_pre", torch.ones(16), "blocks 0 to 2"),
        ("blocks.1.attn.hook_pattern", torch.ones(16), "not one vector per token"),
    ],
)
def test_what_cannot_be_added_is_refused_before_anything_runs(model, hook, vector, said):
    with pytest.raises(InputError, match=said), steering(model, hook, vector):
        raise AssertionError("the block was entered")
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


# ---- text, and the comparison


def test_a_vector_of_zeros_writes_what_the_model_writes(model):
    zeros = torch.zeros(16)
    for temperature in (0, 1.0):
        wanted = generate(model, TEXT, 8, temperature, seed=3)
        assert steered_text(model, TEXT, HOOK, zeros, 8, temperature, seed=3) == wanted


def test_steered_text_is_steered_at_every_step(model):
    """At the last layer, towards one token: the greedy continuation is that token again and again."""
    token = 300
    vector = 1e4 * unembedding(model)[:, token]
    text = steered_text(model, TEXT, LAST, vector, max_new_tokens=4, temperature=0)
    assert text == TEXT + 4 * model.tokenizer.decode([token])
    assert promoted_tokens(model, vector, 1).tolist() == [token]


def test_promoted_tokens_are_those_of_the_direct_path():
    model, vector = tiny_model(), some_vector()
    effects = vector @ unembedding(model)
    assert promoted_tokens(model, vector, 20).tolist() == effects.argsort(descending=True)[:20].tolist()
    with pytest.raises(InputError, match="vector must have 16"):
        promoted_tokens(model, torch.ones(17))


def compared(model, sae, prompt=TEXT, strength=0.5, **options):
    options = {"max_new_tokens": 6, "seed": 4, **options}
    return compare_steering(model, sae, tiny_target(), prompt, [Push(3, strength)], MAXIMA, **options)


def test_the_comparison_by_hand():
    model, sae = tiny_model(), tiny_sae()
    table = compared(model, sae, promoted=[300, 301])
    vector = push_vector(sae, [Push(3, 0.5)], MAXIMA)
    assert table.index.tolist() == ["unsteered", "steered", "random direction"]
    assert table.loc["unsteered", "text"] == generate(model, TEXT, 6, seed=4)
    assert table.loc["steered", "text"] == steered_text(model, TEXT, HOOK, vector, 6, seed=4)
    control = random_push(vector, 4)
    assert table.loc["random direction", "text"] == steered_text(model, TEXT, HOOK, control, 6, seed=4)
    for run, push in zip(table.index, (0 * vector, vector, control), strict=True):
        chances = steered_logits(model, TEXT, HOOK, push).softmax(-1)[0, 1:]  # position 0 is BOS
        assert table.loc[run, "promoted"] == pytest.approx(chances[:, [300, 301]].sum(-1).mean().item())
    assert table.attrs["promoted"] == [model.tokenizer.decode([i]) for i in (300, 301)]


def test_the_three_rows_go_through_the_model_together(monkeypatch):
    """One pass for each new token, not three; besides, the vector's shape, the prompt, and the damage."""
    model, passes = tiny_model(), []
    monkeypatch.setattr(type(model), "forward", _counted(type(model).forward, passes))
    compared(model, tiny_sae(), max_new_tokens=12, temperature=0)
    assert len(passes) <= 12 + 3 and passes.count(3) == 12 + 2


def _counted(forward, passes):
    def run(self, ids, *args, **options):
        passes.append(len(ids))
        return forward(self, ids, *args, **options)

    return run


def test_a_row_that_ends_is_over_and_the_others_go_on(monkeypatch):
    """The steered row is pushed to the end of the text at once; its damage is not a number."""
    model, sae = tiny_model(), tiny_sae()
    ends = {"steered": model.tokenizer.eos_token_id}
    drawn = running._drawn

    def ending(logits, temperature, dice):
        row = len(seen) % 3
        seen.append(row)
        return ends["steered"] if row == 1 else drawn(logits, temperature, dice)

    seen = []
    monkeypatch.setattr(running, "_drawn", ending)
    table = compared(model, sae)
    monkeypatch.setattr(running, "_drawn", drawn)
    assert table.loc["steered", "text"] == TEXT and math.isnan(table.loc["steered", "loss"])
    assert table.loc["unsteered", "text"] == generate(model, TEXT, 6, seed=4)
    assert table["loss"].isna().sum() == 1


def test_the_damage_is_the_unsteered_models_loss_on_what_was_added():
    """Whole text = prompt and continuation, so the two means, weighted, must give the whole."""
    model = tiny_model()
    table = compared(model, tiny_sae())
    n_prompt = tokenize(model, TEXT).ids.shape[1] - 1  # predictions: every token but BOS
    for text, damage in zip(table["text"], table["loss"], strict=True):
        n = tokenize(model, text).ids.shape[1] - 1 - n_prompt
        whole = loss(model, text) * (n + n_prompt)
        assert damage == pytest.approx((whole - loss(model, TEXT) * n_prompt) / n, rel=1e-3)


def test_a_stronger_push_does_more():
    """On a model with random weights that is all one can say: pushed to the end, it ends far from where it was."""
    model, sae = tiny_model(), tiny_sae()
    none, much = (compared(model, sae, strength=s, max_new_tokens=3) for s in (0.0, 20.0))
    assert none["promoted"].nunique() == none["text"].nunique() == 1  # without strength the three rows are one
    assert much["promoted"]["steered"] != pytest.approx(much["promoted"]["unsteered"], rel=0.1)


def test_the_comparison_refuses_what_does_not_fit():
    model, sae = tiny_model(), tiny_sae()
    with pytest.raises(InputError, match="reads at most 32.*Shorten the prompt"):
        compared(model, sae, max_new_tokens=32)
    with pytest.raises(InputError, match="prompt is empty"):
        compared(model, sae, prompt="  ")
    with pytest.raises(InputError, match="Shorten the prompt"):
        compared(model, sae, prompt="x" * 100_000)


@pytest.fixture(scope="session")
def embedded(target):
    return load_model(target, "cpu")


@pytest.mark.parametrize("temperature", [0, 0.7, 1.3])
def test_together_they_write_what_they_write_alone(embedded, sae, target, temperature):
    """Texts of one seed are the same, whatever else is in the batch."""
    maxima = torch.ones(sae.cfg.d_sae)
    for seed, prompt in enumerate(["This morning", "The Eiffel Tower is in", "Je mange"]):
        pushes = [Push(7 + seed, 40.0)]
        table = compare_steering(embedded, sae, target, prompt, pushes, maxima, max_new_tokens=20,
                                 temperature=temperature, seed=seed)
        vector = push_vector(sae, pushes, maxima)
        alone = [steered_text(embedded, prompt, target.hook, push, 20, temperature, seed)
                 for push in (0 * vector, vector, random_push(vector, seed))]
        assert table["text"].tolist() == alone and len(set(alone)) == 3


def test_latents_steer_the_embedded_model_and_random_directions_do_not(embedded, sae, target):
    """The ten latents that write most, at the strength 1, on text that had no part in the choice."""
    texts = load_texts(target, 92)
    reference, prompts = texts[:80], [text.text[:60].rsplit(" ", 1)[0] for text in texts[80:]]
    tokens = tokenize(embedded, reference)
    acts = extract(embedded, tokens, target.hook)[target.hook][tokens.content]
    maxima = encode(sae, acts).max(dim=0).values
    most = (maxima * sae.W_dec.norm(dim=1)).topk(10).indices.tolist()
    prompts = tokenize(embedded, prompts)

    def promoted(vector, wanted):
        chances = steered_logits(embedded, prompts, target.hook, vector).softmax(-1)[prompts.content]
        return chances[:, wanted].sum(-1).mean().item()

    gains = {"latent": 0.0, "random": 0.0}
    for latent in most:
        vector = push_vector(sae, [Push(latent, 1.0)], maxima)
        wanted = promoted_tokens(embedded, vector)
        before = promoted(0 * vector, wanted)
        gains["latent"] += promoted(vector, wanted) - before
        gains["random"] += promoted(random_push(vector, latent), wanted) - before
    assert gains["latent"] > 0.8  # it was 2.3, over ten latents
    assert abs(gains["random"]) < 0.1  # it was 0.01
