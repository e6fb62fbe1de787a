"""Edits of latents: what they make of an activation by hand, where they count, and that nothing else ever changes."""

from dataclasses import replace

import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target

from solutions.data import Tokens, tokenize
from solutions.errors import InputError
from solutions.interventions import (
    Push,
    add,
    check_latents,
    clamp,
    latents_edited,
    multiply,
    push_vector,
    steered_logits,
)
from solutions.models import extract, load_model
from solutions.sae import decode, encode, run_spliced

HOOK = "blocks.1.hook_resid_pre"
TEXT = "The Eiffel Tower"


@pytest.fixture(params=["gpt2", "llama"])
def tiny(request):
    return tiny_model(request.param)


def acts_under(model, edit, text=TEXT, sae=None, **options):
    with latents_edited(model, sae or tiny_sae(), HOOK, edit, **options):
        return extract(model, text, HOOK)[HOOK]


# ---- the named edits, by hand


def test_the_three_edits_by_hand_and_what_was_given_stays():
    f = torch.tensor([[0.0, 4.0, 1.0], [2.0, 0.0, 3.0]])
    kept = f.clone()
    assert add([0, 2], [1.0, -5.0])(f).tolist() == [[1.0, 4.0, -4.0], [3.0, 0.0, -2.0]]
    assert clamp(1, 2.5)(f).tolist() == [[0.0, 2.5, 1.0], [2.0, 2.5, 3.0]]
    assert multiply([2, 0], torch.tensor([2.0, -1.0]))(f).tolist() == [[0.0, 4.0, 2.0], [-2.0, 0.0, 6.0]]
    assert torch.equal(f, kept)


def test_adding_and_clamping_speak_where_the_latent_is_silent_and_multiplying_does_not():
    silent = torch.zeros(2, 3)
    assert add(1, 2.0)(silent).any() and clamp(1, 2.0)(silent).any() and not multiply(1, 9.0)(silent).any()


@pytest.mark.parametrize(
    ("latents", "said"),
    [
        ([], "no latents given"),
        (-1, "whole numbers from 0, got -1"),
        (1.5, "whole numbers from 0, got 1.5"),
        (None, "whole numbers from 0, got None"),
        ("12", "whole numbers from 0, got '1'"),
        ([1, 2, 1], "latent 1 stands in the list twice"),
        (True, "got True"),
    ],
)
def test_bad_latents_are_refused(latents, said):
    for make in (add, clamp, multiply):
        with pytest.raises(InputError, match=said):
            make(latents, 1.0)


def test_latents_of_any_kind_of_list_will_do():
    assert check_latents(torch.tensor([3, 1])) == check_latents(iter([3, 1]), 4) == (3, 1)
    assert check_latents(torch.tensor(3)) == check_latents(torch.tensor([3])) == (3,)
    with pytest.raises(InputError, match="from 0 to 3, got 4"):
        check_latents([0, 4], 4)


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), "2", None, True, [1.0, "2"]])
def test_bad_amounts_are_refused(amount):
    with pytest.raises(InputError, match="factor must be a finite number"):
        multiply([1, 2], amount)


def test_a_number_for_each_latent_or_one_for_all():
    assert clamp([1, 2], 3).amounts == (3.0, 3.0)
    with pytest.raises(InputError, match="value must be one number, or one for each of 2 latents; got 3"):
        clamp([1, 2], [1, 2, 3])


# ---- the activation


def test_the_error_stays_and_everything_but_bos_is_edited(tiny):
    """The tiny SAE keeps 8 of 16 dimensions, so its error is large; latent 3 writes the axis 3."""
    before, axis = extract(tiny, TEXT, HOOK)[HOOK], torch.eye(16)[3]
    after = acts_under(tiny, add(3, 2.0))
    torch.testing.assert_close(after[:, 1:], before[:, 1:] + 2 * axis)
    assert torch.equal(after[:, 0], before[:, 0])
    everywhere = acts_under(tiny, add(3, 2.0), skip_bos=False)
    torch.testing.assert_close(everywhere, before + 2 * axis)


def test_without_the_error_the_token_is_the_edited_reconstruction(tiny):
    before, sae = extract(tiny, TEXT, HOOK)[HOOK], tiny_sae()
    after = acts_under(tiny, multiply(3, 4.0), keep_error=False)
    f = encode(sae, before)
    f[..., 3] *= 4
    torch.testing.assert_close(after[:, 1:], decode(sae, f)[:, 1:])
    assert torch.equal(after[:, 0], before[:, 0])
    with_error = acts_under(tiny, multiply(3, 4.0))
    assert not torch.allclose(after[:, 1:], with_error[:, 1:], atol=0.1)


def test_an_edit_that_changes_nothing_changes_not_a_bit(tiny):
    assert torch.equal(acts_under(tiny, lambda f: f), extract(tiny, TEXT, HOOK)[HOOK])
    assert torch.equal(acts_under(tiny, multiply(range(32), 1)), extract(tiny, TEXT, HOOK)[HOOK])


def test_an_edit_may_write_into_what_it_is_given(tiny):
    def in_place(f):
        f[..., 3] += 2.0
        return f

    assert torch.equal(acts_under(tiny, in_place), acts_under(tiny, add(3, 2.0)))


def test_clamping_takes_the_old_value_out(tiny):
    """A wrong clamp that adds the new value on top would be off by the old one."""
    before = extract(tiny, TEXT, HOOK)[HOOK]
    latent = int(encode(tiny_sae(), before)[0, 1:].sum(0).argmax())
    old = encode(tiny_sae(), before)[..., latent]
    assert (old[0, 1:] > 0).any()
    moved = (acts_under(tiny, clamp(latent, 5.0)) - before)[0, 1:, latent % 16]
    sign = 1 if latent < 16 else -1
    torch.testing.assert_close(moved, sign * (5.0 - old[0, 1:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("positions", "where"), [([2], [2]), ([-1, 1], [1, -1]), ((3, 3), [3]), ([0], [])])
def test_positions_and_bos_whatever_they_say(tiny, positions, where):
    before = extract(tiny, TEXT, HOOK)[HOOK]
    moved = (acts_under(tiny, add(3, 2.0), positions=positions) != before).any(-1)[0]
    by_hand = torch.zeros_like(moved)
    by_hand[where] = True
    assert torch.equal(moved, by_hand)


def test_rows_with_and_without_bos(tiny):
    bos = tiny.tokenizer.bos_token_id
    ids = torch.tensor([[40, 41, 42], [bos, 41, bos]])
    rows = Tokens(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool))
    moved = (acts_under(tiny, add(3, 2.0), rows) != extract(tiny, rows, HOOK)[HOOK]).any(-1)
    assert moved.tolist() == [[True, True, True], [False, True, True]]


def test_adding_to_a_latent_is_steering_with_its_direction(tiny):
    """Two ways to the same model, with code of their own: logits of all tokens."""
    sae = tiny_sae()
    vector = push_vector(sae, [Push(3, 0.5), Push(20, 1.0)], torch.full((32,), 4.0))
    with torch.no_grad(), latents_edited(tiny, sae, HOOK, add([3, 20], [2.0, 4.0])):
        logits = tiny(tokenize(tiny, TEXT).ids)
    torch.testing.assert_close(logits, steered_logits(tiny, TEXT, HOOK, vector), rtol=1e-3, atol=1e-3)


def test_without_error_and_edit_it_is_the_splice(model, sae, target):
    text = "The old man went to the river."
    with torch.no_grad(), latents_edited(model, sae, target.hook, lambda f: f, keep_error=False):
        logits = model(tokenize(model, text).ids)
    torch.testing.assert_close(logits, run_spliced(model, sae, text, target.hook), rtol=1e-4, atol=1e-4)


def test_a_model_with_processed_weights_is_edited_once():
    """TransformerLens calls a hook once for each name of its hook point in this mode."""
    centred = load_model(replace(tiny_target(), processing={"center_writing_weights": True}), "cpu")
    moved = acts_under(centred, add(3, 2.0)) - extract(centred, TEXT, HOOK)[HOOK]
    torch.testing.assert_close(moved[0, 1:], (2 * torch.eye(16)[3]).expand_as(moved[0, 1:]))


def test_an_sae_that_rescales_each_token_is_followed(tiny):
    """SAELens forgets a token's length when it has decoded it once; the identity must still be exact."""
    from sae_lens import StandardSAE, StandardSAEConfig

    for scaling in ("layer_norm", "constant_norm_rescale"):
        sae = StandardSAE(StandardSAEConfig(d_in=16, d_sae=32, normalize_activations=scaling))
        with torch.no_grad():
            sae.W_enc.copy_(torch.cat([torch.eye(16), -torch.eye(16)]).T)
            sae.W_dec.copy_(torch.cat([torch.eye(16), -torch.eye(16)]))
        before = extract(tiny, TEXT, HOOK)[HOOK]
        assert torch.equal(acts_under(tiny, lambda f: f, sae=sae), before)
        moved = (acts_under(tiny, add(3, 1.0), sae=sae) - before)[0, 1:]
        x = before[0, 1:]
        length = x.std(-1) if scaling == "layer_norm" else x.norm(dim=-1) / 16**0.5
        torch.testing.assert_close(moved[:, 3], length, rtol=1e-3, atol=1e-3)
        assert moved[:, 4:].abs().max() < 1e-3


# ---- blocks, gradients, and what is left behind


def test_an_inner_block_sees_what_the_outer_one_left(tiny):
    """Clamp after add leaves the clamp, add after clamp both. TopK keeps both values: they are the largest."""
    sae = tiny_sae()
    before = extract(tiny, TEXT, HOOK)[HOOK]
    with latents_edited(tiny, sae, HOOK, add(3, 50.0)):
        clamped = encode(sae, acts_under(tiny, clamp(3, 70.0)))[0, 1:, 3]
    with latents_edited(tiny, sae, HOOK, clamp(3, 70.0)):
        added = encode(sae, acts_under(tiny, add(3, 50.0)))[0, 1:, 3]
    assert not torch.equal(before[0, 1:, 3], torch.full_like(clamped, 70.0))
    assert (added - clamped > 45).all()


def test_what_comes_out_can_be_differentiated(tiny):
    """d logit / d amount at one latent, against a finite difference."""
    sae, ids = tiny_sae(), tokenize(tiny, TEXT).ids
    amount = torch.zeros(32, requires_grad=True)

    def metric():
        return tiny(ids)[0, -1, 5]

    with latents_edited(tiny, sae, HOOK, lambda f: f + amount):
        (slope,) = torch.autograd.grad(metric(), amount)
    with torch.no_grad():
        step = 0.05
        ends = []
        for sign in (1, -1):
            with latents_edited(tiny, sae, HOOK, add(3, sign * step)):
                ends.append(metric().item())
    assert slope[3].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.05, abs=1e-3)


def test_the_hook_comes_down_after_an_error_too_and_the_weights_stay(tiny):
    weights = {name: p.clone() for name, p in tiny.original_model.named_parameters()}
    ids = tokenize(tiny, TEXT).ids
    before = tiny(ids)

    def broken(f):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), latents_edited(tiny, tiny_sae(), HOOK, broken):
        tiny(ids)
    with pytest.raises(KeyError), latents_edited(tiny, tiny_sae(), HOOK, add(3, 9.0)):
        assert not torch.equal(tiny(ids), before)
        raise KeyError
    assert not any(point.fwd_hooks for point in tiny.hook_dict.values())
    assert torch.equal(tiny(ids), before)
    assert all(torch.equal(p, weights[name]) for name, p in tiny.original_model.named_parameters())


# ---- what is refused


@pytest.mark.parametrize(
    ("hook", "edit", "options", "said"),
    [
        ("blocks.1.hook_resid_prae", add(3, 1.0), {}, "Did you mean 'blocks.1.hook_resid_pre'"),
        ("blocks.9.hook_resid_pre", add(3, 1.0), {}, "blocks 0 to 2"),
        ("blocks.1.attn.hook_pattern", add(3, 1.0), {}, "not one vector per token"),
        ("blocks.1.mlp.hook_post", add(3, 1.0), {}, "SAE reads activations of width 16; those at .* have (64|32)"),
        (HOOK, add(32, 1.0), {}, "from 0 to 31, got 32"),
        (HOOK, 3, {}, "edit must be a function of the latents"),
        (HOOK, add(3, 1.0), {"positions": 2}, "positions must be a list"),
        (HOOK, add(3, 1.0), {"positions": []}, "at least one whole number"),
        (HOOK, add(3, 1.0), {"positions": [0.5]}, "at least one whole number"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(tiny, hook, edit, options, said):
    with pytest.raises(InputError, match=said), latents_edited(tiny, tiny_sae(), hook, edit, **options):
        raise AssertionError("the block was entered")
    assert not any(point.fwd_hooks for point in tiny.hook_dict.values())


@pytest.mark.parametrize("positions", [[99], [1, -100]])
def test_a_position_that_does_not_exist_is_named(tiny, positions):
    n = tokenize(tiny, TEXT).ids.shape[1]
    with pytest.raises(InputError, match=f"position {positions[-1]} does not exist: the rows have {n} tokens"):
        acts_under(tiny, add(3, 1.0), positions=positions)
    assert not any(point.fwd_hooks for point in tiny.hook_dict.values())


def test_an_edit_must_keep_the_shape(tiny):
    for edit, found in ((lambda f: f[..., 1:], "got .*31"), (lambda f: None, "got NoneType")):
        with pytest.raises(InputError, match=f"edit must return a tensor of shape .*32.*, {found}"):
            acts_under(tiny, edit)
