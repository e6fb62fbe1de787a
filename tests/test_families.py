"""Families of latents, planted: what is split, absorbed, spread or merged is found, and what is not is not."""

import numpy as np
import pytest
import torch
from test_coactivation import index_of

from solutions import analysis
from solutions.analysis.families import union
from solutions.errors import InputError

N = 2001  # tokens, the first of them BOS; the second half is the test split
TEST = torch.arange(N) > N // 2


def chance(shape, p, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < p


def planted(path, latents, ids=None, n_noise=0):
    """An index whose latents are active where given; values count as they are, bool as 1."""
    noise = chance((N, n_noise), 0.1, 99).float()
    features = torch.cat([torch.stack([x.float() for x in latents], 1), noise], 1)
    features[0] = 0
    return index_of(path, features, ids=ids, test=TEST)


# ----------------------------------------------------------------------------------------------- unions

def thirds(seed=5):
    """Tokens with a concept, and three groups that they fall into: about 1/2, 1/3, 1/6."""
    holds = chance((N,), 0.3)
    where = torch.rand(N, generator=torch.Generator().manual_seed(seed))
    return holds, [holds & (where < 1 / 2), holds & (where >= 1 / 2) & (where < 5 / 6), holds & (where >= 5 / 6)]


def test_a_concept_in_three_pieces_is_put_together_again(tmp_path):
    holds, pieces = thirds()
    index = planted(tmp_path, [pieces[2], pieces[0], pieces[1]], n_noise=3)
    found = analysis.union_f1(index, holds, "spread", k=6)
    assert found.table["latent"].tolist() == [1, 2, 0]  # the largest first, and no noise
    assert (found.table["precision"] == 1).all() and found.f1 == 1.0
    wanted = int((holds & TEST).sum())
    half = int((pieces[0] & TEST).sum())
    assert found.single_f1 == pytest.approx(2 * half / (half + wanted)) and found.n == wanted
    assert found.table["recall"].tolist()[0] == pytest.approx(half / wanted)
    assert found.always_f1 == pytest.approx(2 * wanted / (int(TEST.sum()) + wanted))
    assert (found.table["random_f1"] < found.table["f1"]).all() and found.concept == "spread"


def test_the_greedy_choice_is_that_of_a_plain_loop(tmp_path):
    features = chance((N, 30), 0.15, 3)
    holds = chance((N,), 0.2, 4) | features[:, 3] | (features[:, 7] & chance((N,), 0.7, 5))
    index = planted(tmp_path, list(features.T))
    train = (~TEST & ~index.is_bos).numpy()
    holds = (holds & ~index.is_bos).numpy()
    active = (index.tokens(0, N).dense() > 0).numpy()

    def f1(latents):
        fires = active[:, latents].any(1) & train
        return 2 * (fires & holds).sum() / (fires.sum() + (holds & train).sum())

    chosen = []
    while len(chosen) < 5:
        best = max(range(30), key=lambda j: (f1([*chosen, j]), -j))
        if chosen and f1([*chosen, best]) <= f1(chosen):
            break
        chosen.append(best)
    found, scores = union.greedy_union(index, holds, train, 5)
    assert found == chosen and len(chosen) >= 2
    assert scores == pytest.approx([f1(chosen[:i + 1]) for i in range(len(chosen))])


def test_what_was_chosen_is_measured_on_text_that_did_not_choose_it(tmp_path):
    holds = chance((N,), 0.3)
    lucky, honest = holds & ~TEST, holds & chance((N,), 0.8, 7)
    found = analysis.union_f1(planted(tmp_path, [lucky, honest]), holds, "x", k=1)
    assert found.table["latent"].tolist() == [0] and found.table["train_f1"][0] == 1.0
    assert found.single_f1 == 0.0


def test_the_lookup_baseline_reads_the_token(tmp_path):
    ids = torch.where(chance((N,), 0.3), 3, 5)
    found = analysis.union_f1(planted(tmp_path, [chance((N,), 0.1, 21)], ids=ids), ids == 3, "a token")
    assert found.lookup_f1 == 1.0 and found.lookup_size == 1 and found.f1 < 0.5


def test_concepts_have_names_or_columns(tmp_path):
    holds, pieces = thirds()
    index, labels = planted(tmp_path, pieces), torch.stack([~holds, holds], 1)
    by_name = analysis.union_f1(index, labels, "yes", concepts=["no", "yes"])
    assert by_name.f1 == analysis.union_f1(index, labels, 1, concepts=["no", "yes"]).f1 == 1.0
    with pytest.raises(InputError, match="unknown concept 'yess'.*'yes'"):
        analysis.union_f1(index, labels, "yess", concepts=["no", "yes"])
    with pytest.raises(InputError, match="expected 2 names"):
        analysis.union_f1(index, labels, "yes")
    with pytest.raises(InputError, match="occur in both"):
        analysis.union_f1(index, holds & TEST, "late")
    with pytest.raises(InputError, match="2001 places, got 5"):
        analysis.union_f1(index, holds[:5], "short")
    with pytest.raises(InputError, match="torch.bool"):
        analysis.union_f1(index, holds.float(), "soft")


# -------------------------------------------------------------------------------------------- absorption

def absorbing(path, child_writes=1.0, child_value=1.0, child_everywhere=False):
    """Latent 0 follows a concept, but on token 4 it is silent, and latent 1 fires with child_value instead; what
    latent 1 writes has child_writes of latent 0's direction and something of its own. Latent 2 is a bystander."""
    holds = chance((N,), 0.3)
    ids = torch.where(holds & chance((N,), 0.25, 8), 4, 2)
    child = ids == 4
    parent = holds & ~child
    other = child | (~holds & chance((N,), 0.9, 11)) if child_everywhere else child
    index = planted(path, [parent * 2.0, other * child_value, chance((N,), 0.4, 12)], ids=ids)
    W_dec = torch.tensor([[1.0, 0, 0, 0], [child_writes, 1.0, 0, 0], [0, 0, 0, 1.0]])
    return index, holds, child, W_dec


def test_an_absorbed_token_is_counted_and_its_latent_named(tmp_path):
    index, holds, child, W_dec = absorbing(tmp_path)
    found = analysis.absorption(index, holds, "thing", W_dec, parents=[0])
    n, gone = int((holds & TEST).sum()), int((child & TEST).sum())
    assert (found.n, found.missed, found.absorbed) == (n, gone, gone) and 0.1 < found.rate < 0.4
    assert found.rate == pytest.approx(gone / n) and found.of_missed == 1.0
    assert found.elsewhere == 0.0 and found.random == 0.0
    row = found.table.iloc[0]
    assert (row["latent"], row["n"], row["precision"], row["token"], row["token_share"]) == (1, gone, 1.0, " w4", 1.0)
    assert row["cosine"] == pytest.approx(0.5 ** 0.5) and row["carried"] == pytest.approx(0.5)  # 1 of 2
    assert row["recall"] == pytest.approx(gone / n)


@pytest.mark.parametrize("child", [
    {"child_writes": 0.0},                     # another direction: the concept is lost, not absorbed
    {"child_writes": 0.05, "child_value": 40}, # loud, and hardly similar
    {"child_value": 0.5},                      # similar, and too weak: it carries a quarter
])
def test_a_hole_that_nobody_fills_is_not_absorption(tmp_path, child):
    index, holds, gone, W_dec = absorbing(tmp_path, **child)
    found = analysis.absorption(index, holds, "thing", W_dec, parents=[0])
    assert found.missed == int((gone & TEST).sum()) > 0 and found.absorbed == 0 and found.of_missed == 0
    assert len(found.table) == 0


def test_a_latent_that_writes_the_direction_everywhere_shows_in_the_control(tmp_path):
    index, holds, _, W_dec = absorbing(tmp_path, child_everywhere=True)
    found = analysis.absorption(index, holds, "thing", W_dec, parents=[0])
    assert found.of_missed == 1.0 and found.elsewhere == pytest.approx(0.9, abs=0.05)
    assert found.table["precision"][0] < 0.4


def test_parents_are_found_and_split_ones_are_parents_too(tmp_path):
    holds, pieces = thirds()
    index = planted(tmp_path, pieces)
    W_dec = torch.tensor([[1.0, 0, 0], [0.9, 0.4, 0], [0.9, 0, 0.4]])
    found = analysis.absorption(index, holds, "thing", W_dec)
    assert found.parents == [0, 1, 2] and found.missed == 0 and found.rate == 0 and found.of_missed == 0
    alone = analysis.absorption(index, holds, "thing", W_dec, parents=[0])
    assert alone.rate == pytest.approx(1 - int((pieces[0] & TEST).sum()) / alone.n)


def test_the_direction_can_be_a_probes(tmp_path):
    index, holds, _, W_dec = absorbing(tmp_path)
    probe = torch.tensor([5.0, 0, 0, 0])
    assert analysis.absorption(index, holds, "thing", W_dec, parents=[0], direction=probe).of_missed == 1.0
    with pytest.raises(InputError, match="write nothing along the direction"):
        analysis.absorption(index, holds, "thing", W_dec, parents=[0], direction=-probe)
    with pytest.raises(InputError, match="direction has 3 numbers"):
        analysis.absorption(index, holds, "thing", W_dec, parents=[0], direction=probe[:3])
    with pytest.raises(InputError, match="2 directions, the index 3"):
        analysis.absorption(index, holds, "thing", W_dec[:2], parents=[0])
    with pytest.raises(InputError, match="0 to 2, got 3"):
        analysis.absorption(index, holds, "thing", W_dec, parents=[3])


def test_the_words_on_which_a_latent_is_silent(tmp_path):
    """Latent 0 follows the concept at a recall of about 0.9, except on token 4, which has its own latent, 1."""
    holds = chance((N,), 0.4)
    ids = torch.where(chance((N,), 0.2, 8), 4, torch.where(chance((N,), 0.3, 9), 5, 6))
    index = planted(tmp_path, [holds & (ids != 4) & chance((N,), 0.9, 13), holds & (ids == 4), chance((N,), 0.9, 14)],
                    ids=ids)
    W_dec = torch.tensor([[1.0, 0, 0], [0.5, 1.0, 0], [0, 0, 1.0]])
    table = analysis.silent_tokens(index, holds, "thing", W_dec)
    n = int((holds & (ids == 4) & TEST).sum())
    row = table.iloc[0]
    assert len(table) == 1 and (row["token"], row["n"], row["recall"]) == (" w4", n, 0.0) and row["q"] < 1e-6
    assert (row["latent"], row["active"], row["token_share"]) == (1, 1.0, 1.0)
    rest = index.test & holds & (ids != 4)
    rest[0] = False
    fires = index.tokens(0, N).dense()[:, 0] > 0
    assert row["elsewhere"] == pytest.approx(int((rest & fires).sum()) / int(rest.sum()))
    assert row["cosine"] == pytest.approx(0.5 / 1.25 ** 0.5)
    # a latent that is silent on one word in the train split only, or by chance, has no hole
    lucky = planted(tmp_path / "lucky", [holds & ~((ids == 4) & ~TEST)], ids=ids)
    assert len(analysis.silent_tokens(lucky, holds, "thing", W_dec[:1], parent=0)) == 0
    rare = planted(tmp_path / "rare", [holds & chance((N,), 0.08, 15)], ids=ids)
    assert len(analysis.silent_tokens(rare, holds, "thing", W_dec[:1], parent=0, general=0.0)) == 0
    # a latent for one word is silent on the others, and no general latent with holes
    other = planted(tmp_path / "other", [holds & (ids == 6) & chance((N,), 0.9, 13)], ids=ids)
    assert len(analysis.silent_tokens(other, holds, "thing", W_dec[:1], parent=0, general=0.0)) == 2
    assert len(analysis.silent_tokens(other, holds & (ids != 5), "thing", W_dec[:1], parent=0, general=0.95)) == 0


# --------------------------------------------------------------------------------------------- splitting

def test_every_kind_of_fate_is_told_apart(tmp_path):
    parts = [chance((N,), 0.1, seed) for seed in range(7)]
    a, b, c, d, e, f, g = parts
    half = chance((N,), 0.5, 50)
    narrow = planted(tmp_path / "narrow", [a, b, c, d, e])                  # stays, splits, merges, merges, goes
    wide = planted(tmp_path / "wide", [b & half, a, c | d, b & ~half, f])   # pieces of b, a, both of c d, new
    eye = torch.eye(8)
    narrow_dec = torch.stack([eye[0], eye[1], eye[2], eye[2] + 0.2 * eye[3], eye[4]])
    wide_dec = torch.stack([eye[1] + 0.3 * eye[6], eye[0], eye[2] * 5, eye[1] - 0.3 * eye[6], eye[5]])
    found = analysis.splits(narrow, wide, narrow_dec, wide_dec)
    got = sorted(found.table[["narrow", "wide", "kind"]].itertuples(index=False, name=None))
    assert got == [(-1, 4, "new"), (0, 1, "one"), (1, 0, "split"), (1, 3, "split"), (2, 2, "merged"), (3, 2, "merged"),
                   (4, -1, "gone")]
    rows = found.children(1)
    assert rows["share_of_narrow"].sum() == pytest.approx(1.0) and rows["share_of_wide"].tolist() == [1.0, 1.0]
    assert rows["cosine"].tolist() == pytest.approx([1 / 1.09 ** 0.5] * 2)
    counts = found.counts().set_index("kind")
    assert counts["narrow"].to_dict() == {"one": 1, "split": 1, "merged": 2, "gone": 1, "new": 0}
    assert counts["wide"].to_dict() == {"one": 1, "split": 2, "merged": 1, "gone": 0, "new": 1}
    assert counts.loc["split", "share_of_wide_sae"] == pytest.approx(2 / 5)
    assert len(found.of_kind("split")) == 2


def test_shares_count_by_activation(tmp_path):
    loud, quiet = torch.zeros(N), torch.zeros(N)
    loud[1:11], quiet[11:31] = 6.0, 2.0
    narrow, wide = planted(tmp_path / "n", [loud + quiet]), planted(tmp_path / "w", [loud > 0, quiet > 0])
    same = torch.eye(1, 4)
    table = analysis.splits(narrow, wide, same, same.repeat(2, 1), least=5).table
    assert table["share_of_narrow"].tolist() == pytest.approx([0.6, 0.4])  # 60 and 40 of 100
    assert table["kind"].tolist() == ["split", "split"]


def test_neither_direction_nor_tokens_alone_make_a_child(tmp_path):
    a, b = chance((N,), 0.1, 0), chance((N,), 0.1, 1)
    narrow, wide = planted(tmp_path / "n", [a]), planted(tmp_path / "w", [a, b])
    eye = torch.eye(4)
    table = analysis.splits(narrow, wide, eye[:1], torch.stack([eye[1], eye[0]])).table
    assert sorted(table["kind"]) == ["gone", "new", "new"]


def test_splits_refuses_what_does_not_fit(tmp_path):
    a = planted(tmp_path / "a", [chance((N,), 0.1)])
    b = planted(tmp_path / "b", [chance((N,), 0.1)], ids=torch.full((N,), 3))
    eye = torch.eye(4)
    with pytest.raises(InputError, match="different tokens"):
        analysis.splits(a, b, eye[:1], eye[:1])
    with pytest.raises(InputError, match="wide_dec has 2 directions, its index 1"):
        analysis.splits(a, a, eye[:1], eye[:2])
    found = analysis.splits(a, a, eye[:1], eye[:1])
    assert found.table["kind"].tolist() == ["one"] and found.table["cosine"].tolist() == [1.0]
    with pytest.raises(InputError, match="unknown kind 'splits'.*'split'"):
        found.of_kind("splits")
    with pytest.raises(InputError, match="narrow latent 5"):
        found.children(5)


# ----------------------------------------------------------------------------------------------- merging

def she_and_he():
    person, she = chance((N,), 0.2), chance((N,), 0.5, 1)
    return person & she, person & ~she, chance((N,), 0.15, 2) & ~person


def test_one_latent_for_two_concepts_that_exclude_each_other(tmp_path):
    she, he, it = she_and_he()
    index = planted(tmp_path, [it, (she | he) * 1.0 + she * 3.0, he])
    table = analysis.merged(index, torch.stack([she, he, it], 1), "she", "he", concepts=["she", "he", "it"], k=2)
    row = table.iloc[0]
    assert row["latent"] == 1 and row["f1_either"] == 1.0
    assert row["share_first"] + row["share_second"] == pytest.approx(1) and 0.35 < row["share_first"] < 0.65
    assert (row["recall_first"], row["recall_second"], row["strength_tells"]) == (1.0, 1.0, 1.0)
    one = table.iloc[1]
    assert (one["latent"], one["share_first"], one["recall_second"]) == (2, 0.0, 1.0)
    assert np.isnan(one["strength_tells"])
    with pytest.raises(InputError, match="do not exclude each other: both hold on"):
        analysis.merged(index, torch.stack([she, she | he], 1), 0, 1, concepts=["a", "b"])


def test_equal_strength_tells_nothing(tmp_path):
    she, he, _ = she_and_he()
    index = planted(tmp_path, [she | he])
    assert analysis.merged(index, torch.stack([she, he], 1), 0, 1, concepts=["she", "he"])["strength_tells"][0] == 0.5


def test_merged_pairs_are_found_and_not_when_one_concept_describes_the_latent(tmp_path):
    she, he, it = she_and_he()
    index = planted(tmp_path, [she | he, it])
    names, labels = ["she", "he", "it"], torch.stack([she, he, it], 1)
    found = analysis.merged_pairs(analysis.concept_table(index, labels, names), labels)
    assert found[["first", "second", "latent", "f1_either"]].values.tolist() == [["she", "he", 0, 1.0]]
    assert found["concept_f1"][0] < 0.8 and found["concept"][0] in ("she", "he")
    wider, more = torch.cat([labels, (she | he)[:, None]], 1), [*names, "person"]
    assert len(analysis.merged_pairs(analysis.concept_table(index, wider, more), wider)) == 0
    few = analysis.merged_pairs(analysis.concept_table(index, labels, names), labels, among=["she", "it"])
    assert len(few) == 0
    with pytest.raises(InputError, match="unknown concept 'hee'"):
        analysis.merged_pairs(analysis.concept_table(index, labels, names), labels, among=["hee"])
