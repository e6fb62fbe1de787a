"""The claims of the findings page, each derived once more in the plainest way, on fewer texts.

Nothing here uses the functions that the page uses. There are dense activations, labels, and loops: slow, and easy
to check by eye. A test fails when the claim does, and also when the page's functions and these loops disagree about
which way it goes.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from solutions.models import extract
from solutions.sae import encode, load_sae
from solutions.smallworld.concepts import CONCEPTS
from solutions.smallworld.corpus import SEEDS, documents
from solutions.smallworld.tokenizer import label_tokens

NAMES = [concept.name for concept in CONCEPTS]
HOOK, NEURONS = "blocks.2.hook_resid_pre", "blocks.1.mlp.hook_post"
N_TEXTS = 360


def other_sae(target, name):
    return load_sae(replace(target, sae_id=name), "cpu")


def read(model, texts, hooks):
    """What flows through the hook points on every token of the texts, BOS left out, one text after the other."""
    found = {hook: [] for hook in hooks}
    for text in texts:
        acts = extract(model, text, hooks)
        for hook in hooks:
            found[hook].append(acts[hook][0, 1:128])
    return {hook: torch.cat(parts) for hook, parts in found.items()}


@pytest.fixture(autouse=True, scope="module")
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def seen(model, sae):
    """Tokens, labels, activations and latents of some documents; every second document is for testing."""
    docs = list(documents(SEEDS["test"], N_TEXTS))
    labelled = [label_tokens(doc, model.tokenizer) for doc in docs]
    ids = np.concatenate([x.ids[:127] for x in labelled])
    labels = np.concatenate([x.labels[:127] for x in labelled])
    document = np.concatenate([np.full(len(x.ids[:127]), i) for i, x in enumerate(labelled)])
    acts = read(model, [doc.text for doc in docs], [HOOK, NEURONS])
    assert len(ids) == len(acts[HOOK])
    latents = encode(sae, acts[HOOK]).numpy()
    test = document % 2 == 1
    words = [model.tokenizer.decode([i]) for i in range(model.cfg.d_vocab)]
    return SimpleNamespace(ids=ids, labels=labels, document=document, acts=acts, latents=latents, active=latents > 0,
                           test=test, train=~test, words=words)


@pytest.fixture(scope="module")
def bases(seen):
    """Units to compare the latents with, as positive numbers [tokens, units]."""
    x = seen.acts[HOOK].numpy()
    x = x - x[seen.train].mean(0)
    drawn = np.random.default_rng(0).normal(size=(512, x.shape[1]))
    along = x @ (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).T
    few = np.where(along >= np.sort(along, axis=1)[:, [-16]], along, 0)
    return {"latents": seen.latents, "neurons": np.maximum(seen.acts[NEURONS].numpy(), 0),
            "random": np.maximum(along, 0), "sparse random": np.maximum(few, 0)}


def column(seen, name):
    return seen.labels[:, NAMES.index(name)]


def f1(says, holds):
    """F1 of a prediction, both bool over the same tokens."""
    return 2 * (says & holds).sum() / max(says.sum() + holds.sum(), 1)


def beyond_chance(share, base):
    return (share - base) / (1 - base)


def purity(values, labels, train, test, weigh):
    """Of one unit: the concept that weighs most on train, and what it weighs on test, beyond chance."""
    weights = [weigh(values[side]) for side in (train, test)]
    if min(w.sum() for w in weights) == 0 or min((values[side] > 0).sum() for side in (train, test)) < 20:
        return None
    shares = [w @ labels[side] / w.sum() for w, side in zip(weights, (train, test), strict=True)]
    found = [beyond_chance(s, labels[side].mean(0)) for s, side in zip(shares, (train, test), strict=True)]
    return found[1][found[0].argmax()]


def by_mass(values):
    return values.astype(np.float64)


def by_top(values):
    top = np.argsort(-values, kind="stable")[:50]
    weights = np.zeros(len(values))
    weights[top[values[top] > 0]] = 1
    return weights


def mean_purity(units, labels, seen, weigh, every=5):
    found = [purity(units[:, j], labels, seen.train, seen.test, weigh) for j in range(0, units.shape[1], every)]
    return np.mean([x for x in found if x is not None])


@pytest.fixture(scope="module")
def mass(seen, bases):
    return {name: mean_purity(units, seen.labels, seen, by_mass) for name, units in bases.items()}


# ------------------------------------------------------------------------------------- 1 and 2: purity

def test_latents_are_purer_than_other_units_by_all_of_their_activation(mass):
    assert mass["latents"] > mass["neurons"] > mass["sparse random"] > mass["random"]
    assert mass["latents"] > 1.5 * mass["sparse random"] and mass["sparse random"] > 1.5 * mass["random"]


def test_labels_moved_along_the_text_leave_no_purity(seen):
    moved = np.roll(seen.labels, len(seen.labels) // 2, axis=0)
    assert abs(mean_purity(seen.latents, moved, seen, by_mass)) < 0.06


def test_the_top_examples_do_not_tell_latents_from_neurons_and_flatter_random_directions(seen, bases, mass):
    top = {name: mean_purity(bases[name], seen.labels, seen, by_top) for name in ("latents", "neurons", "random")}
    assert top["neurons"] > top["latents"] - 0.08
    assert top["random"] > 0.25
    assert top["random"] / top["latents"] > 2 * mass["random"] / mass["latents"]


# ----------------------------------------------------------------------------- 3: the word says more

def best_lookup(ids, holds, train, test):
    """The set of words with the best F1 on train: words are taken in by how often they have the concept."""
    words = {w: (holds & (ids == w) & train).sum() / ((ids == w) & train).sum() for w in np.unique(ids[holds & train])}
    best, chosen = 0.0, set()
    taken = set()
    for w in sorted(words, key=words.get, reverse=True):
        taken = taken | {w}
        score = f1(np.isin(ids[train], list(taken)), holds[train])
        if score > best:
            best, chosen = score, taken
    return f1(np.isin(ids[test], list(chosen)), holds[test])


def best_latent(active, holds, train, test):
    scores = [f1(active[train, j], holds[train]) for j in range(active.shape[1])]
    return f1(active[test, int(np.argmax(scores))], holds[test])


def test_the_word_says_more_than_the_best_latent_but_for_what_repeats(seen):
    kinds = ["city", "month", "det", "negation", "keyword", "animal", "food", "pron_f"]
    repeats = ["ingredient_again", "s_name", "io_name"]
    latent = {c: best_latent(seen.active, column(seen, c), seen.train, seen.test) for c in kinds + repeats}
    lookup = {c: best_lookup(seen.ids, column(seen, c), seen.train, seen.test) for c in kinds + repeats}
    assert np.mean([lookup[c] - latent[c] for c in kinds]) > 0.15
    assert np.mean([latent[c] - lookup[c] for c in repeats]) > 0.2


def test_a_probe_on_the_same_numbers_knows_more_than_either(seen):
    from sklearn.linear_model import LogisticRegression

    x = seen.acts[HOOK].numpy()
    x = (x - x[seen.train].mean(0)) / x[seen.train].std(0)
    for c in ("d_code", "in_brackets", "sent_start"):
        holds = column(seen, c)
        probe = LogisticRegression(C=0.1, max_iter=200).fit(x[seen.train], holds[seen.train])
        says = probe.predict(x[seen.test]).astype(bool)
        assert f1(says, holds[seen.test]) > best_latent(seen.active, holds, seen.train, seen.test) + 0.15


# --------------------------------------------------------------------------------------- 4: senses

def tells_apart(active, one, train):
    """Balanced accuracy on test of the unit that tells best on train; it may stand for either sense."""
    def accuracy(j, side, flip):
        says = active[side, j] ^ flip
        return (says[one[side]].mean() + (~says[~one[side]]).mean()) / 2

    best = max(((j, flip) for j in range(active.shape[1]) for flip in (False, True)),
               key=lambda choice: accuracy(choice[0], train, choice[1]))
    return accuracy(best[0], ~train, best[1])


def test_latents_tell_senses_apart_where_the_token_cannot_and_random_directions_nearly_as_well(target, model, sae):
    pairs = [("bank_money", "bank_river"), ("match_sport", "match_fire"), ("four_english", "four_french"),
             ("spring_season", "spring_water"), ("pain_english", "pain_french")]
    wanted = {name: NAMES.index(name) for pair in pairs for name in pair}
    texts, places, senses = [], [], []
    for doc in documents(SEEDS["test"], 2500):
        if not any(word in doc.text for word in ("bank", "match", "four", "spring", "pain")):
            continue
        labels = label_tokens(doc, model.tokenizer).labels[:127]
        here = np.flatnonzero(labels[:, list(wanted.values())].any(1))
        if len(here):
            texts.append(doc.text)
            places.append(here)
            senses.append(labels[here])
    hooks = ["blocks.0.hook_resid_pre", HOOK]
    x = {hook: [] for hook in hooks}
    for text, here in zip(texts, places, strict=True):
        acts = extract(model, text, hooks)
        for hook in hooks:
            x[hook].append(acts[hook][0, 1:128][here])
    x = {hook: torch.cat(parts) for hook, parts in x.items()}
    labels = np.concatenate(senses)
    document = np.concatenate([np.full(len(here), i) for i, here in enumerate(places)])
    first = encode(other_sae(target, "blocks.0.hook_resid_pre.topk.8x"), x[hooks[0]]).numpy() > 0
    latents = encode(sae, x[HOOK]).numpy() > 0
    drawn = torch.randn(1024, 128, generator=torch.Generator().manual_seed(3))
    along = (x[HOOK] - x[HOOK].mean(0)) @ drawn.T / drawn.norm(dim=1)
    random = (along >= along.topk(16, dim=1).values[:, -1:]).numpy()
    found = {"latents": [], "first layer": [], "random": []}
    for a, b in pairs:
        either = labels[:, wanted[a]] | labels[:, wanted[b]]
        one, train = labels[either, wanted[a]], document[either] % 2 == 0
        for name, active in (("latents", latents), ("first layer", first), ("random", random)):
            found[name].append(tells_apart(active[either], one, train))
    mean = {name: np.mean(values) for name, values in found.items()}
    assert mean["latents"] > 0.85
    assert mean["first layer"] < mean["latents"] - 0.15
    assert mean["random"] > 0.75


# --------------------------------------------------------------------------------- 5: spread over many

def grow_a_union(active, holds, train, test, k):
    """Latent after latent, each the one that raises the F1 of "any of these is active" most on train."""
    covered, curve = np.zeros(len(holds), bool), []
    for _ in range(k):
        scores = [f1(covered[train] | active[train, j], holds[train]) for j in range(active.shape[1])]
        covered = covered | active[:, int(np.argmax(scores))]
        curve.append(f1(covered[test], holds[test]))
    return curve


def test_code_is_spread_over_many_latents_and_french_is_not(seen, bases):
    code = grow_a_union(seen.active, column(seen, "d_code"), seen.train, seen.test, 10)
    french = grow_a_union(seen.active, column(seen, "d_french"), seen.train, seen.test, 6)
    by_chance = grow_a_union(bases["sparse random"] > 0, column(seen, "d_code"), seen.train, seen.test, 10)
    assert code[-1] > code[0] + 0.15
    assert french[-1] < french[0] + 0.17
    assert by_chance[-1] > by_chance[0] + 0.15 and by_chance[-1] < code[-1] - 0.04
    assert best_lookup(seen.ids, column(seen, "d_code"), seen.train, seen.test) > code[-1] - 0.05


# ---------------------------------------------------------------------------------------- 6: splitting

def share_that_splits(narrow, wide, narrow_dec, wide_dec, alike):
    """Of the narrow latents that are alive: which have two or more wide ones, similar and mostly inside them?"""
    alive = [i for i in range(narrow.shape[1]) if (narrow[:, i] > 0).sum() >= 20]
    live = np.flatnonzero((wide > 0).sum(0) >= 20)
    narrow_dec, wide_dec = (W / np.linalg.norm(W, axis=1, keepdims=True) for W in (narrow_dec, wide_dec))
    n_split = 0
    for i in alive:
        cosines = wide_dec[live] @ narrow_dec[i]
        children = 0
        for j in live[cosines >= alike]:
            inside = wide[narrow[:, i] > 0, j].sum() / wide[:, j].sum()
            part = narrow[wide[:, j] > 0, i].sum() / narrow[:, i].sum()
            children += inside >= 0.5 and part >= 0.05
        n_split += children >= 2
    return n_split / len(alive)


def test_a_wider_sae_splits_far_more_latents_than_another_of_equal_width(target, seen):
    saes = {name: other_sae(target, f"{HOOK}.{name}") for name in ("topk.4x", "topk.8x", "batchtopk.4x")}
    latents = {name: encode(s, seen.acts[HOOK]).numpy() for name, s in saes.items()}
    directions = {name: s.W_dec.detach().numpy() for name, s in saes.items()}

    def share(wide, alike=0.5):
        return share_that_splits(latents["topk.4x"], latents[wide], directions["topk.4x"], directions[wide], alike)

    wider, same, strict = share("topk.8x"), share("batchtopk.4x"), share("topk.8x", 0.7)
    assert wider > 2.5 * same and wider > 0.25
    assert strict < 0.1


# ----------------------------------------------------------------------------------------- 7: holes

def test_two_latents_divide_the_forms_of_be_between_them(seen):
    """Which of the two is the better one hangs on how common " was" is in the texts; the page says so."""
    holds = column(seen, "be_form")
    scores = [f1(seen.active[seen.train, j], holds[seen.train]) for j in range(1024)]
    best = np.argsort(scores)[-2:]
    is_was = np.array([w == " was" for w in seen.words])[seen.ids]
    was, other = holds & is_was & seen.test, holds & ~is_was & seen.test
    assert was.sum() >= 30 and other.sum() >= 30
    special, general = sorted(best, key=lambda j: -seen.active[was, j].mean())
    assert seen.active[was, special].mean() > 0.8 and seen.active[other, special].mean() < 0.1
    assert seen.active[was, general].mean() < 0.1 and seen.active[other, general].mean() > 0.6
    assert is_was[seen.active[:, special]].mean() > 0.8


def looks_absorbed(seen, places, direction, usual, unit, lengths, without):
    """The share of places where one latent alone writes 40 % of what is usual along a direction."""
    along = unit @ direction
    writes = np.where(along >= 0.1, along * lengths, 0.0)
    writes[without] = 0.0
    return np.mean([(seen.latents[p] * writes).max() >= 0.4 * usual for p in places])


def test_absorption_is_commoner_than_elsewhere_but_a_random_latents_direction_looks_absorbed_as_well(seen, sae):
    W_dec = sae.W_dec.detach().numpy()
    lengths = np.linalg.norm(W_dec, axis=1)
    unit = W_dec / lengths[:, None]
    alive = np.flatnonzero(seen.active.sum(0) >= 100)
    dice = np.random.default_rng(1)
    found = []
    for concept in ("be_form", "sent_start", "det", "variable", "def_line", "conj", "adj", "in_brackets"):
        holds = column(seen, concept)
        parent = int(np.argmax([f1(seen.active[seen.train, j], holds[seen.train]) for j in range(1024)]))
        fires = seen.active[:, parent]
        usual = np.median(seen.latents[holds & fires & seen.train, parent]) * lengths[parent]
        missed = np.flatnonzero(holds & ~fires & seen.test)
        silent = dice.choice(np.flatnonzero(~holds & ~fires & seen.test), 300, replace=False)
        controls = []
        for j in dice.choice(alive, 5, replace=False):
            free = [p for p in missed if not seen.active[p, j]]
            median = np.median(seen.latents[seen.active[:, j], j]) * lengths[j]
            controls.append(looks_absorbed(seen, free, unit[j], median, unit, lengths, [j]))
        found.append((looks_absorbed(seen, missed, unit[parent], usual, unit, lengths, [parent]),
                      looks_absorbed(seen, silent, unit[parent], usual, unit, lengths, [parent]), np.mean(controls)))
    missed, elsewhere, random = np.mean(found, axis=0)
    assert missed > 2 * elsewhere
    assert random > 0.12 and random > elsewhere


# --------------------------------------------------------------------------------- 8: firing together

def shuffled_within(active, groups, dice):
    """Every latent's tokens dealt out anew among the tokens of the same group, each latent by itself."""
    moved = np.zeros_like(active)
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    for members in np.split(order, edges):
        rows = active[members]
        moved[members] = np.take_along_axis(rows, dice.random(rows.shape).argsort(0), 0)
    return moved


def together(active):
    return active.astype(np.float32).T @ active.astype(np.float32)


def test_pairs_that_meet_are_mostly_about_the_same_words(seen):
    """By ratio to two permutations each: beyond 1.7 times what chance gives (in a permutation hardly any pair is)."""
    dice = np.random.default_rng(0)
    n = together(seen.active)
    a, b = np.triu_indices(len(n), 1)
    kept = n[a, b] >= 20
    a, b = a[kept], b[kept]
    beyond = {}
    for name, groups in (("document", seen.document), ("word", seen.ids)):
        chance = sum(together(shuffled_within(seen.active, groups, dice)) for _ in range(2)) / 2
        beyond[name] = ((n[a, b] + 1) / (chance[a, b] + 1) > 1.7).mean()
    assert beyond["document"] > 2 * beyond["word"] > 0.04


def test_latents_that_imply_others_are_few(seen):
    n, fires = together(seen.active), seen.active.sum(0)
    up = n / np.maximum(fires[None, :], 1)    # [parent, child]: of the child's tokens, those with the parent
    down = n / np.maximum(fires[:, None], 1)
    pairs = (n >= 20) & (up >= 0.9) & (down <= 0.5)
    np.fill_diagonal(pairs, False)
    assert pairs.sum() < 60
    assert pairs.sum() < 0.002 * (n >= 20).sum()


def test_latents_with_similar_directions_meet_more_often(seen, sae):
    unit = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1).numpy()
    n, fires = together(seen.active), seen.active.sum(0).astype(float)
    a, b = np.triu_indices(len(n), 1)
    expected = fires[a] * fires[b] / len(seen.ids)
    kept = expected >= 5
    a, b, lift = a[kept], b[kept], (n[a, b] / np.maximum(expected, 1e-9))[kept]
    order = np.random.default_rng(0).permutation(len(unit))
    assert spearmanr((unit[a] * unit[b]).sum(1), lift).statistic > 0.25
    assert abs(spearmanr((unit[order[a]] * unit[order[b]]).sum(1), lift).statistic) < 0.05


# ------------------------------------------------------------------------------------- 9: she and he

def test_one_latent_serves_she_and_he(seen):
    she, he = column(seen, "pron_f"), column(seen, "pron_m")
    assert not (she & he).any()
    scores = [f1(seen.active[seen.train, j], (she | he)[seen.train]) for j in range(1024)]
    j = int(np.argmax(scores))
    fires = seen.active[seen.test, j]
    either = f1(fires, (she | he)[seen.test])
    assert either > max(f1(fires, she[seen.test]), f1(fires, he[seen.test])) + 0.1
    assert fires[she[seen.test]].mean() > 0.5 and fires[he[seen.test]].mean() > 0.5
    assert best_lookup(seen.ids, she, seen.train, seen.test) > 0.9


# ------------------------------------------------------------------------------------- 10: explanations

def explain(seen, j, labels, k=10):
    """The concept that the k strongest train tokens share, one from a document; of equals the rarest. And its share."""
    base = labels[seen.train].mean(0)
    chosen, used = [], set()
    for place in np.argsort(-seen.latents[:, j], kind="stable"):
        if seen.latents[place, j] <= 0 or len(chosen) == k:
            break
        if seen.train[place] and seen.document[place] not in used:
            chosen.append(place)
            used.add(seen.document[place])
    if len(chosen) < k:
        return None
    share = labels[chosen].mean(0)
    score = (share - base) / np.maximum(1 - base, 1e-6)
    best = np.flatnonzero(score >= score.max() - 1e-6)
    c = int(best[np.argmin(base[best])])
    return c, share[c]


def test_explanations_fit_the_top_ten_and_fail_elsewhere(seen):
    moved = np.roll(seen.labels, len(seen.labels) // 2, axis=0)
    latents = [j for j in range(0, 1024, 2) if seen.active[:, j].sum() >= 60]
    found = [(j, explain(seen, j, seen.labels)) for j in latents]
    luck = [explain(seen, j, moved) for j in latents]
    found = [(j, *e) for j, e in found if e is not None]
    fitting = [(j, c) for j, c, share in found if share >= 0.9]
    assert len(fitting) > 0.45 * len(found)
    assert np.mean([e[1] >= 0.9 for e in luck if e is not None]) < 0.1
    recall, precision = [], []
    for j, c in fitting:
        fires, holds = seen.active[seen.test, j], seen.labels[seen.test, c]
        recall.append((fires & holds).sum() / max(holds.sum(), 1))
        precision.append((fires & holds).sum() / max(fires.sum(), 1))
    assert np.mean(np.array(recall) <= 0.3) > 0.6
    assert np.mean(np.array(precision) <= 0.5) > 0.3


# ------------------------------------------------------------------------------ the page and this file

def test_the_page_has_a_control_and_a_refutation_for_each_of_its_ten_findings():
    from pathlib import Path

    page = (Path(__file__).resolve().parent.parent / "book" / "findings.md").read_text(encoding="utf-8")
    findings = [part for part in page.split("\n## ") if part[:1].isdigit()]
    assert len(findings) == 10
    for finding in findings:
        assert "**Control.**" in finding and "**What would refute it.**" in finding and "claim(" in finding
