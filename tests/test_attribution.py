"""Attribution: shares that must add up do, gradients are those of finite differences, ablations those by hand."""

import math
from dataclasses import replace

import pytest
import torch
from hub_cache import tiny_model, tiny_sae, tiny_target

from solutions.attribution import (
    answer_gap,
    attribution_patching,
    compare_guesses,
    direct_latents,
    direct_parts,
    frozen,
    gradient_shares,
    gradient_times_activation,
    integrated_gradients,
    integrated_shares,
    latent_effects,
    latent_inputs,
    pre_activation,
    take_apart,
)
from solutions.attribution.nodes import runner
from solutions.errors import InputError
from solutions.interventions import Fact, facts_of
from solutions.models import extract, load_model, run_with_edit
from solutions.sae import encode, load_sae

HOOK = "blocks.1.hook_resid_pre"
LATER = "blocks.2.hook_resid_pre"
TEXT = "The Eiffel Tower is"
ABC = Fact(TEXT, "a", "b")


@pytest.fixture(params=["gpt2", "llama"])
def tiny(request):
    return tiny_model(request.param)


@pytest.fixture(scope="module")
def eiffel(target, model):
    """A fact of the embedded world: the Eiffel Tower is in Paris, not in London."""
    return facts_of(target, model, "landmark_city")[0]


def gap(logits):
    return logits[:, -1, 7] - logits[:, -1, 9]


def state(model):
    """Every weight, and how many hooks hang in the model."""
    weights = {name: p.detach().clone() for name, p in model.original_model.named_parameters()}
    return weights, sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values())


def assert_untouched(model, before):
    weights, hooks = state(model)
    assert hooks == before[1] == 0
    assert all(torch.equal(weights[name], w) for name, w in before[0].items())
    assert all(p.grad is None for p in model.original_model.parameters())


# ---- functions whose answer is known


def both(x):
    """AND: the product."""
    return x[:, 0] * x[:, 1]


def either(x):
    """OR: one of two is enough."""
    return x.sum(1).clamp(max=1)


def enough(x):
    """Saturated: twice as much as needed."""
    return x[:, 0].clamp(max=1)


def test_the_shares_of_three_known_functions():
    one, two = torch.ones(2), torch.tensor([2.0])
    assert gradient_shares(both, one).tolist() == [1, 1]            # together 2, where the function is worth 1
    assert integrated_shares(both, one).tolist() == pytest.approx([0.5, 0.5])
    assert gradient_shares(either, one).tolist() == [0, 0]
    assert integrated_shares(either, one).tolist() == pytest.approx([0.5, 0.5])
    assert gradient_shares(enough, two).tolist() == [0]             # and yet without it everything is lost
    assert integrated_shares(enough, two).tolist() == pytest.approx([1.0])


def test_shares_are_counted_from_the_baseline():
    x, baseline = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])
    assert gradient_shares(both, x, baseline).tolist() == [10, 9]           # (3-1)·5, (5-2)·3
    assert integrated_shares(both, x, baseline).tolist() == pytest.approx([7, 6])   # 2·mean(5, 2), 3·mean(3, 1)
    assert integrated_shares(both, x, x).tolist() == [0, 0]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_integrated_shares_are_complete_and_do_not_depend_on_the_batch(batch_size):
    def function(x):
        return torch.tanh(x[:, 0]) * x[:, 1].exp() + x[:, 2].sin()

    x, baseline = torch.tensor([1.0, 0.5, 2.0]), torch.tensor([-1.0, 0.2, 0.0])
    ends = function(torch.stack([x, baseline]))
    shares = integrated_shares(function, x, baseline, steps=200, batch_size=batch_size)
    assert shares.sum().item() == pytest.approx((ends[0] - ends[1]).item(), abs=1e-4)
    assert gradient_shares(function, x, baseline).sum().item() != pytest.approx((ends[0] - ends[1]).item(), abs=0.1)


def test_a_function_must_give_one_differentiable_number_a_row():
    x = torch.ones(3)
    for function in (lambda x: x.sum(), lambda x: x, lambda x: 1.0):
        with pytest.raises(InputError, match="one number for each row"):
            gradient_shares(function, x)
    with pytest.raises(InputError, match="no gradient"):
        gradient_shares(lambda x: x.sum(1).detach(), x)
    with pytest.raises(InputError, match="shape of x"):
        integrated_shares(both, x, torch.ones(2))
    with pytest.raises(InputError, match="steps"):
        integrated_shares(both, x, steps=0)


def test_gradients_are_found_while_they_are_switched_off():
    with torch.no_grad():
        assert gradient_shares(both, torch.tensor([2.0, 3.0])).tolist() == [6, 6]


# ---- a text taken apart


def test_nodes_put_together_are_the_model_again(tiny):
    sae = tiny_sae()
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    acts = extract(tiny, TEXT, HOOK)[HOOK][0]
    assert torch.equal(nodes.latents[1:], encode(sae, acts)[1:]) and not nodes.latents[0].any()
    torch.testing.assert_close(sae.decode(nodes.latents) + nodes.error, acts)
    run = runner(tiny, sae, HOOK, nodes, gap)
    torch.testing.assert_close(run(nodes.packed[None]), gap(tiny(nodes.tokens.ids)), atol=1e-4, rtol=1e-4)


def test_one_text_at_a_time_and_an_sae_that_fits(tiny):
    with pytest.raises(InputError, match="one text at a time"):
        take_apart(tiny, tiny_sae(), HOOK, [TEXT, TEXT])
    with pytest.raises(InputError, match="reads vectors of 16"):
        take_apart(tiny, tiny_sae(), "blocks.1.mlp.hook_post", TEXT)
    with pytest.raises(InputError, match="unknown hook point"):
        take_apart(tiny, tiny_sae(), "blocks.1.hook_resid_prae", TEXT)
    with pytest.raises(InputError, match="blocks 0 to 2"):
        take_apart(tiny, tiny_sae(), "blocks.7.hook_resid_pre", TEXT)


# ---- guesses from gradients


def test_gradient_times_activation_is_the_finite_difference(tiny):
    sae = tiny_sae()
    before = state(tiny)
    found = gradient_times_activation(tiny, sae, HOOK, TEXT, gap, move_error=True)
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    run = runner(tiny, sae, HOOK, nodes, gap)
    at, latent = divmod(int(found.latents.abs().argmax()), sae.cfg.d_sae)
    step = torch.zeros_like(nodes.packed)
    step[at, latent] = 0.02
    with torch.no_grad():
        up, down = run(torch.stack([nodes.packed + step, nodes.packed - step]))
    slope = (up - down).item() / 0.04
    assert found.latents[at, latent].item() == pytest.approx(slope * nodes.latents[at, latent].item(), rel=0.02)
    assert found.value == pytest.approx(gap(tiny(nodes.tokens.ids)).item(), abs=1e-4)
    assert not found.latents[0].any() and found.error[0] == 0 and found.error[1:].any()
    assert_untouched(tiny, before)


@pytest.mark.parametrize("move_error", [False, True])
def test_integrated_gradients_are_complete(tiny, move_error):
    sae = tiny_sae()
    start = torch.linspace(0, 1, 32)                # not zeros: there is a cliff where a normalisation meets nothing
    found = integrated_gradients(tiny, sae, HOOK, TEXT, gap, baseline=start, move_error=move_error, steps=400)
    assert abs(found.gap) < 0.02 * abs(found.value - found.baseline) + 0.01
    assert bool(found.error.any()) == move_error
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    kept = torch.zeros_like(nodes.error) if move_error else nodes.error

    def at_start(acts):
        there = (sae.decode(start.expand_as(nodes.latents)) + kept).detach()
        return torch.cat([acts[:, :1], there[None, 1:]], dim=1)       # BOS stays as it is

    assert found.baseline == pytest.approx(gap(run_with_edit(tiny, TEXT, HOOK, at_start)).item(), abs=1e-3)


def test_integrated_gradients_of_the_embedded_model_are_complete(model, sae, target, eiffel):
    metric = answer_gap(model, eiffel)
    found = integrated_gradients(model, sae, target.hook, eiffel.prompt, metric, steps=64)
    assert found.value > 5 and abs(found.gap) < 0.1
    once = gradient_times_activation(model, sae, target.hook, eiffel.prompt, metric)
    assert (once.value, once.baseline) == pytest.approx((found.value, found.baseline), abs=1e-4)
    assert abs(once.gap) > 3                                       # one slope does not add up


def test_the_baseline_and_the_positions_of_a_path(tiny):
    sae = tiny_sae()
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    still = integrated_gradients(tiny, sae, HOOK, TEXT, gap, baseline=nodes.latents, steps=4)
    assert not still.latents.any() and still.value == pytest.approx(still.baseline, abs=1e-4)
    last = integrated_gradients(tiny, sae, HOOK, TEXT, gap, baseline=torch.ones(32), positions=[-1], steps=100)
    assert not last.latents[:-1].any() and last.latents[-1].all()
    assert abs(last.gap) < 0.02 * abs(last.value - last.baseline) + 0.01
    for wrong in (torch.ones(31), torch.ones(3, 32), torch.ones(1, 1, 32)):
        with pytest.raises(InputError, match="baseline|last axis"):
            integrated_gradients(tiny, sae, HOOK, TEXT, gap, baseline=wrong)
    with pytest.raises(InputError, match="position"):
        integrated_gradients(tiny, sae, HOOK, TEXT, gap, positions=[99])


def test_attribution_patching(tiny):
    sae, other = tiny_sae(), "The Eiffel Power is"
    same = attribution_patching(tiny, sae, HOOK, TEXT, TEXT, gap)
    assert not same.latents.any() and not same.error.any()
    found = attribution_patching(tiny, sae, HOOK, TEXT, other, gap)
    there = gap(tiny(take_apart(tiny, sae, HOOK, other).tokens.ids)).item()
    assert found.baseline == pytest.approx(there, abs=1e-3)          # all patched together is the other text
    here, away = (take_apart(tiny, sae, HOOK, t) for t in (TEXT, other))
    assert not found.latents[here.latents == away.latents].any()
    whole = attribution_patching(tiny, sae, HOOK, TEXT, other, gap, steps=100)
    assert abs(whole.gap) < 0.02 * abs(whole.value - whole.baseline) + 0.01
    with pytest.raises(InputError, match="as many tokens"):
        attribution_patching(tiny, sae, HOOK, TEXT, TEXT + " in", gap)


def test_a_metric_that_is_wrong_is_said_to_be_and_leaves_nothing_behind(tiny):
    before = state(tiny)
    with pytest.raises(InputError, match="one number for each row"):
        gradient_times_activation(tiny, tiny_sae(), HOOK, TEXT, lambda logits: logits[0, -1, 7])
    with pytest.raises(InputError, match="no gradient"):
        gradient_times_activation(tiny, tiny_sae(), HOOK, TEXT, lambda logits: logits[:, -1].argmax(-1).float())
    with pytest.raises(ZeroDivisionError):
        integrated_gradients(tiny, tiny_sae(), HOOK, TEXT, lambda logits: 1 / 0)
    with pytest.raises(InputError, match="finite"):
        gradient_times_activation(tiny, tiny_sae(), HOOK, TEXT, lambda logits: logits[:, -1, 7] / 0.0)
    assert_untouched(tiny, before)


def test_the_table_of_an_attribution(tiny):
    found = gradient_times_activation(tiny, tiny_sae(), HOOK, TEXT, gap)
    table = found.table(5)
    assert table.columns.tolist() == ["position", "token", "latent", "activation", "share"] and len(table) == 5
    first = table.iloc[0]
    assert abs(first["share"]) == pytest.approx(found.latents.abs().max().item())
    assert first["token"] == found.words[first["position"]]
    assert first["activation"] == pytest.approx(found.activations[first["position"], first["latent"]].item())
    assert len(found.table(10_000)) == int((found.latents != 0).sum())


# ---- the truth


def test_latent_effects_are_ablations_by_hand(tiny):
    sae = tiny_sae()
    before = state(tiny)
    effects = latent_effects(tiny, sae, HOOK, TEXT, gap)
    again = latent_effects(tiny, sae, HOOK, TEXT, gap, positions=[-1, 2], batch_size=5)
    torch.testing.assert_close(again[[-1, 2]], effects[[-1, 2]], atol=1e-4, rtol=1e-4)
    assert not again[3:-1].any() and not again[:2].any()
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    clean = gap(tiny(nodes.tokens.ids)).item()
    for at, latent in nodes.latents.nonzero()[::23].tolist():
        def without(acts, at=at, latent=latent):
            acts = acts.clone()
            acts[0, at] -= nodes.latents[at, latent] * sae.W_dec[latent].detach()
            return acts

        by_hand = clean - gap(run_with_edit(tiny, TEXT, HOOK, without)).item()
        assert effects[at, latent].item() == pytest.approx(by_hand, abs=2e-3)
    assert not effects[nodes.latents == 0].any() and not effects[0].any()
    assert_untouched(tiny, before)


def test_effects_with_a_baseline_and_at_positions(tiny):
    sae = tiny_sae()
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    assert not latent_effects(tiny, sae, HOOK, TEXT, gap, baseline=nodes.latents).any()
    assert not latent_effects(tiny, sae, HOOK, TEXT, gap, positions=[0]).any()
    last = latent_effects(tiny, sae, HOOK, TEXT, gap, baseline=torch.full((32,), 0.5), positions=[-1])
    assert not last[:-1].any() and (last[-1] != 0).sum() > 25      # a silent latent is switched on, too


def test_a_comparison_by_hand():
    true = torch.tensor([[4.0, 0.0, -2.0], [1.0, 3.0, 0.0]])
    good, bad = true / 2, torch.tensor([[-1.0, 9.0, 4.0], [2.0, -3.0, 9.0]])
    table = compare_guesses(true, {"good": good, "bad": bad}, k=2)
    assert table.loc["good", ["n", "spearman", "pearson", "slope", "sign", "top"]].tolist() == pytest.approx(
        [4, 1, 1, 2, 1, 1])
    # ranks of the truth 4, 1, 2, 3, of the guess 2, 4, 3, 1: 1 - 6·(4 + 9 + 1 + 4)/(4·15)
    assert table.loc["bad", "spearman"] == pytest.approx(1 - 6 * 18 / 60)
    assert table.loc["bad", "sign"] == 0.25 and table.loc["bad", "top"] == 0.5
    with pytest.raises(InputError, match="at least three"):
        compare_guesses(torch.tensor([0.0, 1.0]), {})
    with pytest.raises(InputError, match="shape of the effects"):
        compare_guesses(true, {"short": torch.ones(3)})


# ---- direct logit attribution


@pytest.mark.parametrize("heads", [False, True])
def test_what_is_written_adds_up_to_the_logit(model, eiffel, heads):
    found = direct_parts(model, eiffel.prompt, eiffel, heads=heads)
    assert abs(found.gap) < 1e-4
    with torch.no_grad():
        assert found.value == pytest.approx(answer_gap(model, eiffel)(model(ids_of(model, eiffel.prompt))).item())
    n, h = model.cfg.n_layers, model.cfg.n_heads
    assert len(found.parts) == 3 + 2 * n + (n * h if heads else 0)
    assert found.parts["layer"].tolist()[-2:] == [n - 1, -1]
    assert found.parts["contribution"].iloc[:-1].sum() == pytest.approx(found.value, abs=1)   # biases are small


def ids_of(model, text):
    from solutions.data import tokenize

    return tokenize(model, text).ids


@pytest.mark.parametrize("position", [-1, 2])
def test_it_adds_up_for_other_kinds_of_models(tiny, position):
    for heads in (False, True):
        found = direct_parts(tiny, TEXT, ABC, position=position, heads=heads)
        assert abs(found.gap) < 1e-4 * max(1, abs(found.value))


@pytest.mark.parametrize("processing", [{"fold_ln": True}, {"center_writing_weights": True, "center_unembed": True}])
def test_it_adds_up_with_processed_weights(processing):
    processed = load_model(replace(tiny_target(), processing=processing), "cpu")
    assert abs(direct_parts(processed, TEXT, ABC).gap) < 1e-4
    assert direct_parts(processed, TEXT, ABC).value == pytest.approx(
        direct_parts(tiny_model(), TEXT, ABC).value, abs=2e-3)


def test_a_part_by_hand(model, eiffel):
    """The last MLP's contribution is that of LayerNorm's own arithmetic; two plausible shortcuts are not."""
    block = model.cfg.n_layers - 1
    hooks = [f"blocks.{block}.hook_mlp_out", f"blocks.{block}.hook_resid_post"]
    part, final = (extract(model, eiffel.prompt, h)[h][0, -1].double() for h in hooks)
    inner = model.original_model.transformer.ln_f
    weights = getattr(inner, "original_component", inner)
    answer, foil = (model.tokenizer.encode(w)[-1] for w in (eiffel.answer, eiffel.foil))
    direction = (model.W_U[:, answer] - model.W_U[:, foil]).double()
    scale = math.sqrt(final.var(unbiased=False) + 1e-5)
    by_hand = (((part - part.mean()) / scale * weights.weight.double()) @ direction).item()
    found = direct_parts(model, eiffel.prompt, eiffel).parts.set_index("part")["contribution"][f"MLP {block}"]
    assert found == pytest.approx(by_hand, abs=1e-4)
    assert found != pytest.approx((part @ direction).item(), rel=0.05)                    # no normalisation
    own = (part - part.mean()) / part.std() * weights.weight.double()
    assert found != pytest.approx((own @ direction).item(), rel=0.05)                     # by its own length


SAES = ["blocks.2.hook_resid_pre.topk.8x", "blocks.3.hook_resid_post.topk.8x", "blocks.2.hook_mlp_out.topk.8x"]


@pytest.mark.parametrize("sae_id", SAES)
def test_latents_error_and_bias_add_up_to_what_they_stand_for(model, target, eiffel, sae_id):
    other = load_sae(replace(target, sae_id=sae_id), "cpu")
    hook = other.cfg.metadata.hook_name
    found = direct_latents(model, other, hook, eiffel.prompt, eiffel)
    assert abs(found.gap) < 1e-4
    whole = direct_parts(model, eiffel.prompt, eiffel).parts.set_index("part")["contribution"]
    rest = found.others.set_index("part")["contribution"]
    covered = whole.drop(rest.index)
    assert found.latents.sum().item() + found.error + found.sae_bias == pytest.approx(covered.sum(), abs=1e-4)
    expected = {SAES[0]: 6, SAES[1]: 10, SAES[2]: 1}                    # embeddings and two layers a block
    assert len(covered) == expected[sae_id] and (found.latents != 0).sum() <= other.cfg.k
    table = found.table(3)
    assert abs(table["contribution"][0]) == pytest.approx(found.latents.abs().max().item())


def test_a_hook_point_beside_the_stream_is_refused(tiny):
    with pytest.raises(InputError, match="part of the residual stream"):
        direct_latents(tiny, tiny_sae(), "blocks.1.ln2.hook_normalized", TEXT, ABC)
    with pytest.raises(InputError, match="BOS"):
        direct_latents(tiny, tiny_sae(), HOOK, TEXT, ABC, position=0)
    with pytest.raises(InputError, match="position"):
        direct_parts(tiny, TEXT, ABC, position=50)
    with pytest.raises(InputError, match="single token"):
        direct_parts(tiny, TEXT, Fact(TEXT, "xyz!", "b"))


# ---- the frozen model


def test_a_frozen_model_is_itself_and_straight(tiny):
    sae, before = tiny_sae(), state(tiny)
    nodes = take_apart(tiny, sae, HOOK, TEXT)
    ids = nodes.tokens.ids
    real = tiny(ids)
    run = runner(tiny, sae, HOOK, nodes, gap)
    ends = torch.stack([nodes.packed, 3 * nodes.packed.flip(0), torch.zeros_like(nodes.packed)])
    points = torch.cat([ends, ends.mean(0, keepdim=True)])
    with torch.no_grad():
        with frozen(tiny, TEXT):
            torch.testing.assert_close(tiny(ids), real, atol=1e-3, rtol=1e-3)
            held = run(points)
        free = run(points)
    size = held.abs().max().item()
    assert held[3].item() == pytest.approx(held[:3].mean().item(), abs=1e-4 * size)     # affine …
    assert abs(free[3] - free[:3].mean()) > 0.01 * free.abs().max()                     # … which the model is not
    torch.testing.assert_close(tiny(ids), real)
    assert_untouched(tiny, before)


def test_a_frozen_model_thaws_after_an_error(tiny):
    before = state(tiny)
    with pytest.raises(ZeroDivisionError), frozen(tiny, TEXT):
        1 / 0  # noqa: B018
    assert_untouched(tiny, before)


# ---- one latent from those of an earlier layer


def test_contributions_to_a_latent_add_up(tiny):
    sae, before = tiny_sae(), state(tiny)
    acts = extract(tiny, TEXT, LATER)[LATER][0]
    latent = int(encode(sae, acts)[-1].argmax())
    found = latent_inputs(tiny, sae, LATER, latent, sae, HOOK, TEXT)
    assert found.value == pytest.approx(encode(sae, acts)[-1, latent].item(), abs=1e-4)
    assert abs(found.gap) < 1e-4 * max(1, abs(found.value))
    assert not found.latents[0].any()
    assert_untouched(tiny, before)


def test_contributions_on_the_embedded_model(model, target, sae, eiffel):
    later = load_sae(replace(target, sae_id="blocks.3.hook_resid_pre.topk.8x"), "cpu")
    hook = later.cfg.metadata.hook_name
    acts = extract(model, eiffel.prompt, hook)[hook][0]
    latent = int(encode(later, acts)[-1].argmax())
    found = latent_inputs(model, later, hook, latent, sae, target.hook, eiffel.prompt)
    assert abs(found.gap) < 1e-4 and found.value > 5
    assert not found.latents[0].any() and found.error[0] != 0         # BOS is there, in one piece
    # In the frozen model taking a latent out takes away its contribution, neither more nor less.
    top = found.table(1).iloc[0]
    nodes = take_apart(model, sae, target.hook, eiffel.prompt)

    def without(acts):
        acts = acts.clone()
        acts[0, top["position"]] -= top["activation"] * sae.W_dec[int(top["latent"])].detach()
        return acts

    seen = []
    with torch.no_grad(), frozen(model, nodes.tokens), model.hooks(
        fwd_hooks=[(hook, lambda acts, hook: seen.append(pre_activation(later, acts, latent)[0, -1].item()))]
    ):
        run_with_edit(model, nodes.tokens, target.hook, without)
    assert found.value - seen[0] == pytest.approx(top["contribution"], abs=1e-3)


def test_what_has_no_contributions_is_refused(tiny):
    sae = tiny_sae()
    with pytest.raises(InputError, match="does not depend on"):
        latent_inputs(tiny, sae, HOOK, 3, sae, LATER, TEXT)
    with pytest.raises(InputError, match="latent must be a whole number from 0 to 31"):
        latent_inputs(tiny, sae, LATER, 32, sae, HOOK, TEXT)
    with pytest.raises(InputError, match="position"):
        latent_inputs(tiny, sae, LATER, 3, sae, HOOK, TEXT, position=40)


def test_an_sae_that_is_not_straight_is_refused(tiny):
    class Config:
        d_in, d_sae, normalize_activations = 16, 32, "layer_norm"

        def architecture(self):
            return "gated"

    class Strange:
        cfg = Config()
        encode = decode = None

    with pytest.raises(InputError, match="rescales each token"):
        take_apart(tiny, Strange(), HOOK, TEXT)
    with pytest.raises(InputError, match="not one matrix"):
        pre_activation(Strange(), torch.zeros(2, 16), 0)
