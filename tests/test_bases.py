"""Bases side by side: what is planted is found, what is chosen is chosen on one half, and controls find nothing."""

import numpy as np
import pytest
import torch
from test_index import HOOK, Store, identity_sae

from solutions import analysis
from solutions.analysis import bases
from solutions.analysis.bases import compare, shuffled
from solutions.analysis.bases.compare import best_threshold, best_units
from solutions.analysis.bases.make import neurons_before
from solutions.errors import InputError
from solutions.targets import get_target


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


def planted(n=2000, seed=0):
    """Text with three concepts that have nothing to do with each other or with the tokens, half of it for testing."""
    labels = torch.rand(n, 3, generator=dice(seed)) < torch.tensor([0.4, 0.2, 0.1])
    ids = torch.randint(0, 5, (n,), generator=dice(seed + 1))
    document = torch.arange(n) // 20
    return bases.LabelledTokens(ids, document, labels, ("a", "b", "c"), document % 2 == 1)


def noise(text, n_units, seed=5):
    return torch.relu(torch.randn(len(text.ids), n_units, generator=dice(seed)))


# ---- entropy


def test_a_token_counts_for_the_rarest_of_its_concepts():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.bool)
    assert bases.rarest_concept(labels).tolist() == [1, 0, 2, 3, 1]  # 3 stands for "none"


def test_entropy_by_hand():
    assert bases.entropy(torch.tensor([[1.0, 1, 0, 0], [4, 0, 0, 0], [1, 1, 1, 1]])).tolist() == [1.0, 0.0, 2.0]
    assert bases.entropy(torch.tensor([3.0, 1.0])) == pytest.approx(0.811278, abs=1e-6)
    assert bases.entropy(torch.zeros(3)).isnan()


def test_a_pure_unit_has_no_entropy_and_a_mixed_one_has():
    labels = torch.eye(4, dtype=torch.bool).repeat(5, 1)
    a, b = labels[:, 0].float(), labels[:, 1].float()
    features = torch.stack([2 * a, a + b, torch.ones(20), torch.zeros(20)], dim=1)
    found = bases.concept_entropy(features, labels)
    assert found[:3].tolist() == pytest.approx([0.0, 1.0, 2.0]) and found[3].isnan()
    weak = torch.stack([labels[:, 0] * 7.0 + labels[:, 1] * 1.0], 1)  # by mass, not by count
    assert 0 < float(bases.concept_entropy(weak, labels)) < 0.6


def test_entropy_of_an_index_is_that_of_the_dense_features(tmp_path, monkeypatch):
    acts = torch.relu(torch.randn(30, 5, generator=dice(3)))
    acts[:, 4] = 0
    store = Store(acts, [10, 10, 10])
    index = analysis.build_index(store, identity_sae(5), HOOK, tmp_path / "index", progress=False)
    labels = torch.rand(30, 4, generator=dice(4)) < 0.3
    labels[store.is_bos] = False
    monkeypatch.setattr("solutions.analysis.latents.blocks.AT_ONCE", 7)  # several pieces
    dense = index.tokens(0, 30).dense()
    found, wanted = bases.concept_entropy(index, labels), bases.concept_entropy(dense, labels)
    assert torch.allclose(found[:4], wanted[:4]) and found[4].isnan()
    with pytest.raises(InputError, match="a row for each of the index's 30 places"):
        bases.concept_entropy(index, labels[:9])


# ---- units and thresholds


def brute_force(features, labels):
    """The best F1 of any unit with any threshold."""
    best = torch.zeros(labels.shape[1])
    for j in range(features.shape[1]):
        for t in features[:, j][features[:, j] > 0].unique():
            says = features[:, j] >= t
            f1 = 2 * (says[:, None] & labels).sum(0) / (says.sum() + labels.sum(0))
            best = torch.maximum(best, f1)
    return best


def test_units_and_thresholds_are_about_as_good_as_any():
    labels = torch.rand(120, 3, generator=dice(1)) < torch.tensor([0.5, 0.2, 0.1])
    features = torch.relu(torch.randn(120, 8, generator=dice(2))).round(decimals=1)  # with many equal values
    features[:, 3] = torch.relu(features[:, 3] + 1.5 * labels[:, 1])
    unit, _ = best_units(features, labels)
    wanted = brute_force(features, labels)
    for c in range(3):
        threshold = best_threshold(features[:, unit[c]], labels[:, c])
        says = features[:, unit[c]] >= threshold
        f1 = 2 * (says & labels[:, c]).sum() / (says.sum() + labels[:, c].sum())
        of_this_unit = brute_force(features[:, unit[c]][:, None], labels[:, [c]])
        assert f1 == pytest.approx(float(of_this_unit)) and f1 > wanted[c] - 0.08
    assert unit[1] == 3


def test_nothing_above_zero_says_nothing():
    assert best_threshold(torch.zeros(5), torch.tensor([True, False, True, False, False])) == float("inf")


def test_equal_values_stand_or_fall_together():
    # A threshold cannot cut between equals: taking in the first three alone would be perfect, and is impossible.
    values, holds = torch.tensor([1.0, 1, 1, 1, 1, 1]), torch.tensor([True, True, True, False, False, False])
    assert best_threshold(values, holds) == 1.0


def test_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    holds = torch.rand(80, 4, generator=dice(1)) < 0.3
    values = torch.relu(torch.randn(80, 4, generator=dice(2))).round(decimals=1)
    values[:, 2] += holds[:, 2]
    values[:, 3] = 0
    wanted = [average_precision_score(h.numpy(), v.numpy()) for h, v in zip(holds.T, values.T, strict=True)]
    assert compare.average_precisions(values, holds).tolist() == pytest.approx(wanted)


# ---- the comparison


def test_a_planted_unit_is_found_whatever_its_threshold():
    text = planted()
    clean = torch.cat([noise(text, 3), text.labels[:, [1]] * 2.0], dim=1)
    offset = clean.clone()
    offset[:, 3] += 1.0  # active everywhere: only a threshold of its own shows what it knows
    found = bases.compare_bases({"clean": clean, "offset": offset}, text)
    b = found.concepts.query("concept == 'b'").set_index("basis")
    assert (b.loc[["clean", "offset"], "f1"] == 1.0).all() and (b.loc[["clean", "offset"], "unit"] == 3).all()
    assert (b.loc[["clean", "offset"], "average_precision"] == 1.0).all()
    assert b.loc["token lookup", "f1"] < 0.5 and (b["lookup_f1"] == b.loc["token lookup", "f1"]).all()
    table = found.table.set_index("basis")
    assert table.loc["clean", "f1_active"] > table.loc["offset", "f1_active"] + 0.1
    assert table.loc["clean", "n"] == 4 == table.loc["clean", "n_units"]
    assert table.loc["clean", "active"] == pytest.approx(float((clean > 0).float().mean()))


def test_what_is_right_on_the_chosen_half_only_scores_on_the_other_half():
    text = planted()
    memorised = (text.labels[:, [2]] & ~text.test[:, None]) * 1.0
    found = bases.compare_bases({"memory": torch.cat([noise(text, 2), memorised], dim=1)}, text)
    c = found.concepts.query("basis == 'memory' and concept == 'c'").iloc[0]
    assert c["unit"] == 2 and c["f1"] == 0.0
    assert found.table["n"][0] == 2  # a unit that is silent on one side is not judged for purity


def test_purity_is_measured_where_the_concept_was_not_chosen():
    text = planted()
    pure = text.labels[:, [1]] * (1.0 + torch.rand(len(text.ids), 1, generator=dice(9)))
    table = bases.compare_bases({"pure": pure, "noise": noise(text, 60)}, text).table.set_index("basis")
    assert table.loc["pure", ["purity_top", "purity_mass"]].tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    # Chosen and measured on the same tokens, the best of three concepts would look better than chance.
    assert abs(table.loc["noise", "purity_top"]) < 0.03 and abs(table.loc["noise", "purity_mass"]) < 0.03
    flattered = float(analysis.top_k_purity(noise(text, 60), text.labels).score.mean())
    assert flattered > table.loc["noise", "purity_top"] + 0.03
    assert table.loc["pure", "entropy"] < table.loc["noise", "entropy"]


def test_shuffled_labels_show_the_luck_of_the_best_unit():
    text = planted()
    features = torch.cat([noise(text, 30), text.labels * 1.0], dim=1)
    table = bases.compare_bases({"SAE": features}, text, shuffle="SAE").table.set_index("basis")
    assert table.loc["SAE", "f1"] == 1.0
    assert table.loc["SAE, labels shuffled", "f1"] < 0.45
    assert table.loc["SAE, labels shuffled", "average_precision"] < 0.3


def test_bases_are_made_one_after_the_other():
    text, made = planted(), []

    def basis(name):
        return lambda: made.append(name) or noise(text, 3)

    found = bases.compare_bases({"x": basis("x"), "y": basis("y")}, text)
    assert made == ["x", "y"] and list(found.table["basis"]) == ["x", "y", "token lookup"]


def test_groups_are_means_over_their_concepts():
    text = planted()
    found = bases.compare_bases({"x": torch.cat([noise(text, 2), text.labels[:, [0]] * 1.0], 1)}, text,
                                groups={"a": "one", "b": "two", "c": "two"})
    f1 = found.concepts[found.concepts["basis"] == "x"].set_index("concept")["f1"]
    groups = found.by_group().query("basis == 'x'").set_index("group")
    assert groups.loc["one", "f1"] == f1["a"] == 1.0 and groups.loc["two", "f1"] == pytest.approx(f1[["b", "c"]].mean())
    assert list(groups["n"]) == [1, 2]
    with pytest.raises(InputError, match="groups=concept_groups"):
        bases.compare_bases({"x": noise(text, 2)}, text).by_group()


def test_input_that_cannot_be_compared_is_named():
    text = planted()
    for given, message in (
        ({"x": noise(text, 2) - 1.0}, "x: expected activations from zero up"),
        ({"x": noise(text, 2)[:9]}, "x has 9"),
        ({}, "at least one"),
    ):
        with pytest.raises(InputError, match=message):
            bases.compare_bases(given, text)
    with pytest.raises(InputError, match="unknown basis 'PCA'"):
        bases.compare_bases({"x": noise(text, 2)}, text, shuffle="PCA")
    with pytest.raises(InputError, match="no concept has 5000 tokens on both sides"):
        bases.compare_bases({"x": noise(text, 2)}, text, least=5000)
    with pytest.raises(InputError, match="each side of the split"):
        bases.compare_bases({"x": noise(text, 2)}, text._replace(test=torch.zeros_like(text.test)))


# ---- probes and directions


def test_a_linear_probe_reads_what_no_unit_holds():
    text = planted()
    x = torch.randn(len(text.ids), 6, generator=dice(3))
    x[:, 0] += 3 * text.labels[:, 0] + 3 * text.labels[:, 1]
    x[:, 1] += 3 * text.labels[:, 0] - 3 * text.labels[:, 1]
    probe = bases.linear_probe(x, text)
    assert probe.shape == text.labels.shape and 0 <= float(probe.min()) and float(probe.max()) <= 1
    units = analysis.project(x, torch.eye(6), two_sided=True)
    f1 = bases.compare_bases({"probe": probe, "units": units}, text).concepts.pivot(
        index="concept", columns="basis", values="f1")
    assert f1.loc["a", "probe"] > 0.9 and f1.loc["a", "probe"] > f1.loc["a", "units"] + 0.1
    assert f1.loc["c", "probe"] < 0.4  # nothing to read


def test_probes_learn_from_train_labels_alone():
    text = planted()
    x = torch.randn(len(text.ids), 4, generator=dice(3)) + 2.0 * text.labels[:, [0]]
    other = text._replace(labels=torch.where(text.test[:, None], ~text.labels, text.labels))
    for probe in (lambda t: bases.linear_probe(x, t), lambda t: bases.k_sparse_probe(torch.relu(x), t, 2)):
        assert torch.equal(probe(text), probe(other))
    with torch.no_grad():  # as in a notebook that only reads
        assert torch.equal(bases.linear_probe(x, text), bases.linear_probe(x, text))


def test_a_sparse_probe_reads_only_the_units_that_tell():
    text = planted()
    features = noise(text, 10)
    features[:, 4] += 3.0 * text.labels[:, 1]
    one = bases.k_sparse_probe(features, text, 1)
    changed = features.clone()
    changed[:, [c for c in range(10) if c != 4]] = 0.0
    assert torch.allclose(bases.k_sparse_probe(changed, text, 1)[:, 1], one[:, 1], atol=0.01)
    correlation = np.corrcoef(one[:, 1].numpy(), features[:, 4].numpy())[0, 1]
    assert correlation > 0.8
    with pytest.raises(InputError, match="k: expected 1 to 10"):
        bases.k_sparse_probe(features, text, 11)


def test_ica_finds_independent_sources_where_pca_does_not():
    sources = torch.distributions.Laplace(0.0, 1.0)
    torch.manual_seed(0)
    s = sources.sample((4000, 3))
    mixing = torch.linalg.qr(torch.randn(3, 3, generator=dice(1)))[0]  # rotated, so that all variances are equal
    x = s @ mixing.T
    best = {name: float((d @ mixing).abs().amax(1).min())
            for name, d in (("ica", bases.ica_directions(x)), ("pca", analysis.pca_directions(x)))}
    assert best["ica"] > 0.98 and best["pca"] < 0.95
    assert torch.equal(bases.ica_directions(x, seed=1), bases.ica_directions(x, seed=1))
    with pytest.raises(InputError, match="n: expected 1 to 3"):
        bases.ica_directions(x, n=4)


# ---- the embedded model


def test_the_standard_bases_of_the_embedded_model(model, sae, target):
    world = analysis.labelled_texts(model, 12)
    text = bases.labelled_tokens(world)
    made = {name: make() for name, make in bases.standard_bases(model, sae, target, world, text).items()}
    made["shuffled"] = bases.shuffled_features(target, world)
    assert all(len(features) == len(text.ids) == len(text.labels) for features in made.values())
    assert made["SAE"].shape[1] == target.d_sae == made["random directions"].shape[1] == made["shuffled"].shape[1]
    assert made["PCA"].shape[1] == 2 * target.d_in == made["ICA"].shape[1] == made["residual dimensions"].shape[1]
    sparse = (made["random directions, made sparse"] > 0).sum(1).float().mean()
    assert sparse == pytest.approx(float((made["SAE"] > 0).sum(1).float().mean()), abs=1)
    assert not torch.equal(made["shuffled"], made["SAE"])
    found = bases.compare_bases(made, text, least=10, k=20, min_active=5, groups=bases.concept_groups())
    assert len(found.table) == len(made) + 1 and found.table["f1"].between(0, 1).all()
    assert "other" not in set(found.concepts["group"])
    assert neurons_before(model, target).startswith(f"blocks.{target.layer - 1}.")


def test_documents_stay_on_one_side(model):
    text = bases.labelled_tokens(analysis.labelled_texts(model, 6))
    for d in text.document.unique():
        assert text.test[text.document == d].float().mean() in (0.0, 1.0)


def test_the_stored_control_opens_and_belongs_to_one_target(target):
    sae = bases.shuffled_sae(target)
    assert (sae.cfg.d_in, sae.cfg.d_sae) == (target.d_in, target.d_sae)
    with pytest.raises(InputError, match="not for 'gpt2-small'"):
        bases.shuffled_sae(get_target("gpt2-small"))


def test_the_control_is_trained_on_the_shuffled_model(target, tmp_path):
    from solutions.sae import load_sae_from_disk

    shuffled.train_shuffled(target, tmp_path / "sae", n_texts=20, n_tokens=2048, progress=False)
    sae = load_sae_from_disk(tmp_path / "sae", "cpu")
    assert sae.cfg.d_sae == target.d_sae and "shuffled" in sae.cfg.metadata.model_name


# ---- clusters


def two_worlds(tmp_path, mixed):
    """Latent 0 is active on 60 tokens; latents 1 to 3 go with it in half of the documents and 4 to 6 in the others, or,
    if `mixed`, each by its own coin."""
    generator = np.random.default_rng(0)
    acts = torch.zeros(240, 7)
    words = torch.zeros(240, dtype=torch.long)
    labels = torch.zeros(240, dtype=torch.bool)
    for d in range(60):
        at = 4 * d + 3
        acts[at, 0] = 1.0
        half = d % 2
        on = generator.random(6) < 0.5 if mixed else np.repeat([half == 0, half == 1], 3)
        acts[at, 1:] = torch.from_numpy(on * generator.uniform(0.5, 1.0, 6))
        words[at - 1], words[at] = (1 + half, 3 + half)
        labels[at] = half == 0
    store = Store(acts, [4] * 60, ids=words)
    index = analysis.build_index(store, identity_sae(7), HOOK, tmp_path / "index", progress=False)
    index.vocabulary = ["<bos>", *(f" w{i}" for i in range(1, 12))]
    return index, {"first": labels, "second": ~labels & ~store.is_bos}


def test_two_meanings_make_two_clusters(tmp_path):
    index, labels = two_worlds(tmp_path, mixed=False)
    found = bases.example_clusters(index, 0, labels=labels)
    assert len(found.table) == 2 and list(found.table["n"]) == [30, 30]
    assert found.silhouette > 0.8 > max(found.shuffled) + 0.2
    assert set(found.table["concept"]) == {"first", "second"} and (found.table["share"] == 1.0).all()
    assert set(found.table["tokens"]) == {" w3", " w4"}
    shown = found.examples(index, 0, k=3)
    assert shown and all(e.tokens[e.peak] in found.table["tokens"][0] for e in shown)
    assert (index.latent(0)[0].numpy() == found.places).all()


def test_one_meaning_does_not_beat_the_shuffled_control(tmp_path):
    index, _ = two_worlds(tmp_path, mixed=True)
    found = bases.example_clusters(index, 0)
    assert found.silhouette < max(found.shuffled) + 0.05 and len(found.shuffled) == 10


def test_examples_can_be_compared_by_their_words(tmp_path):
    index, _ = two_worlds(tmp_path, mixed=True)
    found = bases.example_clusters(index, 0, by="tokens")
    assert len(found.table) == 2 and found.silhouette > max(found.shuffled) + 0.1


def test_clusters_that_cannot_be_are_named(tmp_path):
    index, _ = two_worlds(tmp_path, mixed=False)
    with pytest.raises(InputError, match="unknown way to compare"):
        bases.example_clusters(index, 0, by="context")
    with pytest.raises(InputError, match="up to 40 clusters need 160"):
        bases.example_clusters(index, 0, most=40)
    with pytest.raises(InputError, match="cluster: expected 0 to 1"):
        bases.example_clusters(index, 0).examples(index, 7)


def test_a_basis_that_says_nothing_has_no_purity():
    text = planted(400)
    row = compare._purities(torch.zeros(400, 3), text, k=5, min_active=2)
    assert row["n"] == 0 and np.isnan(row["purity_top"]) and np.isnan(row["entropy"])
