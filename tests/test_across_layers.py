"""Features across layers: a turned and shuffled layer is matched by what fires, chance is not, and a crosscoder says
where its latents live."""

import dataclasses
import json

import figure_rules as rules
import pandas as pd
import pytest
import torch

from solutions import analysis, visualization
from solutions.errors import InputError
from solutions.sae import Crosscoder, Plan, make_sae, saes_by_layer, scales_of, side_by_side, train_crosscoder
from solutions.sae.training import TensorSource, train


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def fired(tokens=400, latents=12, seed=0):
    active = torch.rand(tokens, latents, generator=dice(seed + 1)) < 0.2
    return active * torch.rand(tokens, latents, generator=dice(seed))


DOCUMENT = torch.arange(400) // 40


# ---- matching


def test_the_correlation_is_pearsons():
    a, b = fired(60, 3), fired(60, 4, seed=5)
    expected = torch.corrcoef(torch.cat([a, b], dim=1).T)[:3, 3:]
    assert torch.allclose(analysis.activation_correlation(a, b), expected, atol=1e-5)


def test_a_latent_that_never_fires_goes_with_nothing():
    a = fired()
    a[:, 3] = 0
    found = analysis.activation_correlation(a, a)
    assert found[3].abs().max() == 0 and found.isfinite().all() and found[0, 0] == pytest.approx(1, abs=1e-5)


def test_what_was_shuffled_and_rescaled_is_found_again():
    a, order = fired(), torch.randperm(12, generator=dice(3))
    matched = analysis.match_activations(a, 7 * a[:, order])
    assert torch.equal(order[matched.b], matched.a) and matched.mean == pytest.approx(1, abs=1e-5)


def test_chance_takes_the_tokens_of_other_documents():
    a = fired()
    assert analysis.chance_of_correlation(a, a, DOCUMENT).mean < 0.3 < analysis.match_activations(a, a).mean
    same_everywhere = fired(40).repeat(10, 1)  # ten times one document: other documents are no other tokens
    assert analysis.chance_of_correlation(same_everywhere, same_everywhere, DOCUMENT).mean > 0.99
    with pytest.raises(InputError, match="at least two"):
        analysis.chance_of_correlation(a, a, torch.zeros(400))


def test_links_say_both_likenesses_and_only_those_strong_enough():
    a = fired(latents=3)
    b = torch.stack([a[:, 1], a[:, 0] + a[:, 2]], dim=1)
    directions = torch.eye(3, 8)
    table = analysis.layer_links(a, b, directions, directions[[1, 0]], least=0.3)
    assert {(0, 1), (1, 0), (2, 1)} == set(zip(table["earlier"], table["later"], strict=True))
    first = table.iloc[0]
    assert (first["earlier"], first["later"]) == (1, 0) and first["correlation"] == pytest.approx(1, abs=1e-5)
    assert first["cosine"] == 1 and float(table.loc[table["earlier"] == 2, "cosine"].iloc[0]) == 0
    with pytest.raises(InputError, match="one per latent"):
        analysis.layer_links(a, b, directions, directions)


def test_a_layer_that_turns_every_direction_keeps_its_features_and_loses_its_cosines():
    a, order = fired(), torch.randperm(12, generator=dice(3))
    before = torch.nn.functional.normalize(torch.randn(12, 32, generator=dice(4)), dim=1)
    turned = before @ analysis.random_rotation(32, seed=5)
    table = analysis.matches_between([a, a[:, order], a], [before, before[order], turned], DOCUMENT, ["a", "b", "c"])
    assert table[["from", "to"]].to_numpy().tolist() == [["a", "b"], ["b", "c"]]
    assert table["correlation"].tolist() == pytest.approx([1, 1], abs=1e-4)
    assert table["cosine"][0] == pytest.approx(1, abs=1e-4) and table["same_partner"][0] == 1
    assert abs(table["cosine"][1]) < 0.2 and table["same_partner"][1] < 0.5
    assert (table["correlation_by_chance"] < 0.3).all()


def test_layers_that_do_not_fit_are_refused():
    a = fired()
    with pytest.raises(InputError, match="two layers"):
        analysis.matches_between([a], [torch.eye(12)], DOCUMENT, ["a"])
    with pytest.raises(InputError):
        analysis.activation_correlation(a, a[:-1])


def test_the_first_layer_that_comes_near_the_best_one():
    scores = pd.DataFrame({"0": [0.1, 0.5, 0.0], "1": [0.85, 0.4, 0.0], "2": [0.9, 0.45, 0.3]}, index=list("abc"))
    assert analysis.first_readable(scores).to_dict() == {"a": "1", "b": "0", "c": "2"}
    assert analysis.first_readable(scores, share=1)["a"] == "2"
    for wrong in (0, 1.5):
        with pytest.raises(InputError, match="share"):
            analysis.first_readable(scores, share=wrong)
    with pytest.raises(InputError, match="empty"):
        analysis.first_readable(scores.iloc[:0])


def test_random_features_are_the_same_directions_at_every_layer():
    x = torch.randn(20, 16, generator=dice())
    found = analysis.random_features({"a": x, "b": 2 * x}, 32, keep=4)
    assert torch.equal(found["a"] > 0, found["b"] > 0) and int((found["a"] > 0).sum(1).max()) <= 4
    assert analysis.random_features({}, 32, keep=4) == {}


# ---- siblings


def test_the_siblings_are_the_same_kind_at_other_layers(target):
    found = saes_by_layer(target)
    assert list(found) == [0, 1, 2, 3] and found[target.layer] == target
    assert {t.sae_id.split(".", 3)[3] for t in found.values()} == {"topk.8x"}
    assert all(t.hook == t.sae_id.removesuffix(".topk.8x") and t.layer == layer for layer, t in found.items())


def test_siblings_of_a_release_on_the_hub_are_named_without_asking_it():
    from solutions.targets import TARGETS

    found = saes_by_layer(TARGETS["gpt2-small"])
    assert list(found)[:12] == list(range(12)) and found[3].hook == found[3].sae_id == "blocks.3.hook_resid_pre"


def test_siblings_in_a_folder_of_ones_own(target, tmp_path):
    for name in ("blocks.0.x", "blocks.11.x", "blocks.1.y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cfg.json").write_text("{}")
    (tmp_path / "blocks.5.x").mkdir()  # no SAE in it
    mine = dataclasses.replace(target, sae_release=str(tmp_path), sae_id="blocks.0.x", hook="blocks.0.hook_mlp_out")
    assert [t.hook for t in saes_by_layer(mine).values()] == ["blocks.0.hook_mlp_out", "blocks.11.hook_mlp_out"]


def test_an_id_that_does_not_name_its_layer_has_no_siblings(target):
    alone = dataclasses.replace(target, sae_id="layer_2/width_1k")
    assert saes_by_layer(alone) == {2: alone}


# ---- crosscoder


def two_layers(n=4000, shared=6, own=3, d=24, seed=0):
    """Activations of two layers with known features: some in both, with a direction of their own in each."""
    generator = dice(seed)
    there = torch.rand(n, shared + 2 * own, generator=generator) < 0.1
    values = there * (0.5 + torch.rand(n, shared + 2 * own, generator=generator))
    directions = torch.linalg.qr(torch.randn(2, d, d, generator=generator)).Q[:, : shared + 2 * own]
    directions[0, shared : shared + own] = 0      # only the second layer has these
    directions[1, shared + own :] = 0             # only the first has those
    return [values @ directions[0], 5 * values @ directions[1]], directions


@pytest.fixture(scope="module")
def found():
    acts, directions = two_layers()
    plan = Plan(n_tokens=160_000, batch_size=400, lr=5e-3)
    return acts, directions, train_crosscoder(acts, 24, plan, architecture="topk", k=2, progress=False)


def test_a_crosscoder_finds_what_is_shared_and_what_is_not(found):
    acts, directions, crosscoder = found
    both = torch.cat([directions[0], directions[1]], dim=1)
    matched = analysis.match_latents(both, crosscoder.sae.W_dec.detach())
    assert matched.cosine.min() > 0.9
    share = crosscoder.shares()[matched.b]
    assert torch.allclose(share.sum(1), torch.ones(len(share)))
    assert (share[:6, 1] - 0.5).abs().max() < 0.15          # in both
    assert share[6:9, 1].min() > 0.85 and share[9:, 1].max() < 0.15


def test_it_gives_the_activations_back_in_their_own_units(found):
    acts, _, crosscoder = found
    z = crosscoder.encode(acts)
    for x, x_hat in zip(acts, crosscoder.decode(z), strict=True):
        assert x_hat.shape == x.shape
        assert (x - x_hat).square().sum() < 0.2 * (x - x.mean(0)).square().sum()


def test_layers_are_scaled_to_one_mean_length_before_they_are_put_side_by_side():
    acts, _ = two_layers(n=200)
    x = side_by_side(acts)
    assert x.shape == (200, 48)
    assert x[:, :24].norm(dim=1).mean() == pytest.approx(24**0.5, rel=1e-4)
    assert x[:, 24:].norm(dim=1).mean() == pytest.approx(24**0.5, rel=1e-4)


def test_the_same_plan_gives_the_same_crosscoder_as_an_sae_on_the_long_vector():
    acts, _ = two_layers(n=600)
    plan = Plan(n_tokens=2000, batch_size=200, lr=1e-3)
    ours = train_crosscoder(acts, 16, plan, architecture="topk", k=2, seed=1, progress=False)
    by_hand = train(make_sae("topk", 48, 16, k=2, seed=1), TensorSource(side_by_side(acts)), plan, progress=False)
    assert torch.equal(ours.sae.W_dec, by_hand.sae.W_dec)


def test_what_a_crosscoder_cannot_read_is_refused(found):
    acts, _, crosscoder = found
    for wrong, message in (
        (acts[:1], "expected layers"), ([acts[0][:, :5], acts[1]], "widths"), ([acts[0][:5], acts[1]], "same tokens"),
    ):
        with pytest.raises(InputError, match=message):
            crosscoder.encode(wrong)
    with pytest.raises(InputError, match="at least two"):
        side_by_side(acts[:1])
    with pytest.raises(InputError, match="zero everywhere"):
        scales_of([acts[0], 0 * acts[1]])
    assert isinstance(crosscoder, Crosscoder)


# ---- figure


def links(*pairs):
    return pd.DataFrame([dict(zip(("earlier", "later", "correlation", "cosine"), pair, strict=True)) for pair in pairs])


def test_the_flow_follows_latents_through_all_layers():
    stages = [links((1, 5, 0.9, 0.1), (1, 6, 0.5, 0.2), (2, 7, 0.2, 0.9)), links((5, 8, 0.6, 0.7), (9, 9, 0.9, 0.9))]
    layers, names = ["layer 0", "layer 1", "layer 2"], [{1: "<b>"}, {}, {}]
    figure = visualization.layer_flow(stages, layers, latents=[1, 2], names=names)
    rules.describes_itself(figure)
    rules.travels_light(figure)
    rules.takes_no_name_for_html(figure, "b>x|script")
    assert list(figure.data[0].link.value) == [0.9, 0.5, 0.6]
    assert "latent of layer 0, 1 goes on as 5 (90%), 6 (50%)" in figure.layout.meta["alt"]
    assert "correlation: 90%<br>cosine: 0.10" in json.dumps(figure.to_plotly_json(), default=list)


def test_a_flow_needs_a_list_of_tables_with_their_columns():
    with pytest.raises(InputError, match="list of tables"):
        visualization.layer_flow(links((1, 5, 0.9, 0.1)), ["a", "b"])
    with pytest.raises(InputError, match="cosine"):
        visualization.layer_flow([links((1, 5, 0.9, 0.1)).drop(columns="cosine")], ["a", "b"])
