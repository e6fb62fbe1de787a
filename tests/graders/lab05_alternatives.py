"""Lab 5: right answers that are written differently from the solved lab's."""

import math

import torch

from solutions.analysis import next_to, previous, text_matches, token, token_matches


def by_sum(active, ids, n_vocab):
    """The hypergeometric tail from binomial coefficients."""
    total, drawn, found = len(ids), int(active.sum()), []
    for word in range(n_vocab):
        marked, met = int((ids == word).sum()), int((active & (ids == word)).sum())
        ways = sum(
            math.comb(marked, n) * math.comb(total - marked, drawn - n)
            for n in range(met, min(marked, drawn) + 1)
        )
        found.append(ways / math.comb(total, drawn))
    return torch.tensor(found)


def by_definition(p):
    ranked = sorted(p.tolist())
    return torch.tensor(
        [
            min(ranked[s] * len(p) / (s + 1) for s in range(len(p)) if ranked[s] >= value)
            for value in p.tolist()
        ],
        dtype=p.dtype,
    )


def by_counting(holds, active, test):
    rows = [(h, a) for h, a, t in zip(holds.tolist(), active.tolist(), test.tolist(), strict=True) if t]
    hits = sum(h and a for h, a in rows)
    precision = hits / (sum(a for _, a in rows) or 1)
    recall = hits / (sum(h for h, _ in rows) or 1)
    return {
        "recall": recall,
        "precision": precision,
        "f1": 2 * precision * recall / (precision + recall or 1),
    }


def by_adding_words(ids, holds, test):
    train = ~test
    words = sorted(
        set(ids[train].tolist()), key=lambda word: -holds[train & (ids == word)].double().mean().item()
    )
    best, chosen = -1.0, set()
    for size in range(1, len(words) + 1):
        says = torch.tensor([i in words[:size] for i in ids.tolist()])
        f1 = by_counting(holds, says, train)["f1"]
        if f1 > best + 1e-12:
            best, chosen = f1, set(words[:size])
    says = torch.tensor([i in chosen for i in ids.tolist()])
    return torch.tensor(by_counting(holds, says, test)["f1"])


def by_heaps(strengths, holds, ids, k):
    fires, silent = [], []
    for i, (value, true) in enumerate(zip(strengths.tolist(), holds.tolist(), strict=True)):
        same = strengths[ids == ids[i]] > 0
        if value > 0 and not true:
            fires.append((-value, i))
        if value == 0 and true:
            silent.append((-int(same.sum()) / len(same), i))
    return [i for _, i in sorted(fires)[:k]], [i for _, i in sorted(silent)[:k]]


def by_columns(features, says, test, k, fits, fails):
    train = features[~test]
    best = train.topk(k, dim=0)
    share = says[~test].gather(0, best.indices).double().mean(0)
    on = features[test] > 0
    recall = (says[test] & on).sum(0) / says[test].sum(0).clamp(min=1)
    liars = (share >= fits) & (recall <= fails) & (best.values[-1] > 0)
    return [j for j in recall.argsort(stable=True).tolist() if liars[j]]


def by_python(strengths, kind, n):
    mass = [float(strengths[kind == c].sum()) for c in range(n)]
    share = [m / sum(mass) for m in mass]
    entropy = sum(s * math.log2(1 / s) for s in share if s > 0)
    return {"effective": math.prod(s**-s for s in share if s > 0), "entropy": entropy, "purity": max(share)}


def by_loop(a, b, shuffles):
    def lift(x, y):
        return float(len(x) * (x & y).sum() / (x.sum() * y.sum()))

    null = torch.tensor([lift(a, b[row]) for row in shuffles])
    as_high = sum((a & b[row]).sum() >= (a & b).sum() for row in shuffles)
    return {"p": (int(as_high) + 1) / (len(shuffles) + 1), "null": null, "lift": lift(a, b)}


def by_pairs(active, at, below, least):
    found = []
    for parent in range(active.shape[1]):
        for child in range(active.shape[1]):
            both = int((active[:, parent] & active[:, child]).sum())
            general, special = int(active[:, parent].sum()), int(active[:, child].sum())
            if both >= least and both >= at * special and both <= below * general:
                found.append((parent, child))
    return found


def by_counts(active, holds, test, k):
    """After each choice only tokens that are not yet covered are counted."""
    open_, chosen, says, best = ~test, [], torch.zeros_like(test), -1.0
    hits = fired = 0
    wanted = int((holds & ~test).sum())
    for _ in range(k):
        new_fired = active[open_].sum(0)
        new_hits = active[open_ & holds].sum(0)
        f1 = 2 * (hits + new_hits) / (fired + new_fired + wanted)
        j = int(f1.argmax())
        if float(f1[j]) <= best:
            break
        best, hits, fired = float(f1[j]), hits + int(new_hits[j]), fired + int(new_fired[j])
        chosen.append(j)
        open_ = open_ & ~active[:, j]
    reported = []
    for j in chosen:
        says = says | active[:, j]
        reported.append(by_counting(holds, says, test)["f1"])
    return chosen, reported


def by_one_pair_at_a_time(narrow, wide, narrow_dec, wide_dec, alike, inside):
    def is_child(i, j):
        cosine = torch.cosine_similarity(narrow_dec[i], wide_dec[j], dim=0)
        total = wide[:, j].sum()
        return total > 0 and cosine >= alike and wide[narrow[:, i] > 0, j].sum() / total >= inside

    return [[j for j in range(wide.shape[1]) if is_child(i, j)] for i in range(narrow.shape[1])]


def by_token(features, W_dec, holds, parent, carried):
    d = W_dec[parent] / W_dec[parent].pow(2).sum().sqrt()
    along = [float(row @ d) for row in W_dec]
    own = [
        float(z[parent]) * along[parent] for z, h in zip(features, holds, strict=True) if h and z[parent] > 0
    ]
    usual = sum(own) / len(own)
    looks = {True: [], False: []}
    for z, true in zip(features.tolist(), holds.tolist(), strict=True):
        if z[parent] == 0:
            looks[true].append(max(value * a for value, a in zip(z, along, strict=True)) >= carried * usual)
    return {
        "elsewhere": sum(looks[False]) / len(looks[False]),
        "missed": len(looks[True]) / int(holds.sum()),
        "absorbed": sum(looks[True]) / len(looks[True]),
    }


def by_fisher(here, there, alpha):
    from scipy.stats import false_discovery_control, fisher_exact

    n, m = here.sum(0).tolist(), there.sum(0).tolist()
    p = [
        fisher_exact([[a, len(here) - a], [b, len(there) - b]], alternative="greater").pvalue
        for a, b in zip(n, m, strict=True)
    ]
    q = false_discovery_control(p)
    gap = [a / len(here) - b / len(there) for a, b in zip(n, m, strict=True)]
    return sorted((j for j in range(len(q)) if q[j] <= alpha), key=lambda j: gap[j], reverse=True)


def by_patterns(number):
    """Regular expressions and contexts in place of lists."""

    def again(pattern):
        return text_matches(rf"\b({pattern})\b(?s:.)*\b\1$", within=250)

    def one_of(words):
        return "|".join(words.split())

    months = one_of("January February March April May June July August September October November December")
    cities = one_of(
        "Paris Rome Berlin London Londres Washington Istanbul Moscow Cairo Amman Athens Vienna Venice Madrid "
        "Shanghai Tokyo Rio Ankara Sydney Kyoto York Lisbon Agra Granada Osaka Rabat Cologne City Delhi Stockholm "
        "Seoul Toronto Bangkok Brussels Florence Budapest Chicago Boston Nairobi Ottawa"
    )
    languages = one_of(
        "English Italian Arabic Turkish Spanish German Portuguese Hindi Greek Russian Japanese Polish Norwegian "
        "Korean Danish Thai"
    )
    french = token_matches(
        r"^ ?([Uu]ne?|[MmSs]on|[MmSs]a|[Cc]e|[Cc]ette|[Jj]e|[Ii]l|[Ee]lle|le|la|petite?|grande?)$"
    )
    foods = one_of(
        "grapes tomatoes bananas nuts cherries berries peppers lemons dates onions potatoes olives mushrooms eggs "
        "carrots oranges beans apples"
    )
    names = one_of(
        "Jane Henry Diana Sophie Grace Mark Lily Sarah Simon Ellen Samuel Mary Clara Daniel Thomas Louis James "
        "Helen Julia Susan Chloe Marie Anna Robert Felix Emma Jack Peter Tom Ruth Irene Rosa Lucy Victor Max"
    )
    return {
        0: lambda: token_matches(rf"^ ?({months})$"),
        1: lambda: token_matches(r"^ ?(is|est)$"),
        2: lambda: token_matches("^ ?(shall|would)$") | token(").") & previous(token("Section"), within=8),
        3: lambda: token_matches("^ ?not$") | token("may"),
        4: lambda: token_matches(rf"^ ?({cities})$"),
        5: lambda: token_matches(rf"^ ?({languages})$"),
        6: lambda: text_matches(r"\w =$"),
        7: lambda: french | next_to(french) | next_to(french, before=2) | next_to(french, before=3),
        8: lambda: again(foods),
        9: lambda: again(names),
    }[number]()


ALTERNATIVES = (
    ("5.1", by_sum),
    ("5.2", by_definition),
    ("5.3", by_counting),
    ("5.4", by_adding_words),
    ("5.5", by_heaps),
    ("5.6", by_columns),
    ("5.7", by_python),
    ("5.8", by_loop),
    ("5.9", by_pairs),
    ("5.10", by_counts),
    ("5.11", by_one_pair_at_a_time),
    ("5.12", by_token),
    ("5.13", by_fisher),
    ("5.14", by_patterns),
)

MEASURED = {"5.A": (0.1, 0.4, 0.9), "5.B": (0.1, 0.4, 0.9)}


def after_running(names, described):
    """What must hold in the notebook's namespace once every cell has run on the target `described`."""
    assert names["features"].shape == (len(names["ids"]), described["d_sae"])
    assert names["test"].any() and not names["test"].all()
    assert names["narrow"].shape[1] < described["d_sae"]
    assert len(names["families"]) == names["narrow"].shape[1]
    assert names["text"].sum() == len(names["x"]) == len(names["document"])
