"""Circuits through several layers: both ends, one layer by hand, a toy whose circuit is known, searches and controls.

`Toy` reads the real tokenizer's ids and computes three lines of arithmetic in two layers. Its circuit: two latents at
" Eiffel" that only count together (AND), and what the second layer makes of them at the last token.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from solutions.attribution import answer_gap, attribution_patching, gradient_times_activation
from solutions.errors import InputError
from solutions.interventions import (
    Bench,
    Fact,
    LayerBench,
    Readings,
    ask,
    compare_sets,
    fact_pairs,
    facts_of,
    faithfulness_curve,
    greedy,
    matched_by_layer,
    mean_readings,
    minimal,
    other_prompts,
    other_readings,
    prune,
    random_by_layer,
    resampled_readings,
    shortest,
    single_effects,
)
from solutions.models import extract
from solutions.sae import encode, load_sae, saes_by_layer

EIFFEL = Fact("The Eiffel Tower is in", " Paris", " London", "landmark_city")
COLOSSEUM = Fact("The Colosseum is in", " Rome", " Madrid", "landmark_city")
FIRST, SECOND = "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def saes(target):
    return {sibling.hook: load_sae(sibling, "cpu") for sibling in saes_by_layer(target).values()}


@pytest.fixture(scope="module")
def pair(target, model):
    return fact_pairs(model, facts_of(target, model, "landmark_city"))[0]


@pytest.fixture(scope="module")
def swapped(model, saes, pair):
    facts, there = other_readings(model, saes, [pair])
    return LayerBench(model, saes, facts, baseline=there)


@pytest.fixture(scope="module")
def ranked(model, saes, pair, swapped):
    """Candidates in the order of attribution patching, the best first."""
    gap = answer_gap(model, swapped.asked.facts[0])
    found = {hook: attribution_patching(model, sae, hook, pair.clean.prompt, pair.corrupt.prompt, gap).latents
             for hook, sae in saes.items()}
    order = swapped.pack(found).argsort(descending=True).tolist()
    return [node for node in order if swapped.activation[0, node] > 0]


# ---- a toy


class Positive(torch.nn.Module):
    """An SAE whose latents are the positive numbers of an activation; the negative ones are its error."""

    cfg = SimpleNamespace(d_in=4, d_sae=4, normalize_activations="none")

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def encode(self, x):
        return torch.relu(x) * self.scale

    def decode(self, latents):
        return latents / self.scale


class Toy:
    """Two layers over [BOS, The, Eiffel, Tower, is, in], whose logits favour " Paris" by 3 AND + copied + 2 error."""

    cfg = SimpleNamespace(n_layers=2, n_ctx=16, d_vocab=4096, device="cpu", positional_embedding_type="standard")

    def __init__(self, real):
        self.tokenizer, self.target, self.run_with_cache = real.tokenizer, real.target, None
        self.hook_dict = {FIRST: None, SECOND: None}
        self.hung = []
        self.answer, self.foil = ask(real, [EIFFEL]).ids[0].tolist()

    def _gated_hook_reason(self, name):
        return None

    @contextmanager
    def hooks(self, fwd_hooks):
        self.hung.extend(fwd_hooks)
        try:
            yield
        finally:
            del self.hung[len(self.hung) - len(fwd_hooks):]

    def run_with_hooks(self, ids, fwd_hooks):
        with self.hooks(fwd_hooks):
            return self(ids)

    def _through(self, name, x):
        for hung, function in self.hung:
            if hung == name:
                changed = function(x, hook=None)
                x = x if changed is None else changed
        return x

    def __call__(self, ids, return_type="logits"):
        x = torch.zeros(*ids.shape, 4)
        x[:, 2] = torch.tensor([1.0, 1.0, 0.0, -0.5])
        x[:, -1, 2] = 1.0
        x = self._through(FIRST, x)
        both = torch.relu(x[:, 2, 0] + x[:, 2, 1] - 1)
        last = torch.stack([2 * both, torch.zeros_like(both), x[:, -1, 2], x[:, 2, 3]], dim=-1)
        x = self._through(SECOND, torch.cat([x[:, :-1], last[:, None]], dim=1))
        logits = torch.zeros(*ids.shape, self.cfg.d_vocab)
        logits[:, -1, self.answer] = 3 * x[:, -1, 0] + x[:, -1, 2] + 2 * x[:, -1, 3]
        return logits


TOY_SAES = {FIRST: Positive(), SECOND: Positive()}
CIRCUIT = [(0, 0, 2), (0, 1, 2), (1, 0, 5)]  # layer, latent, position


@pytest.fixture(scope="module")
def toy(model):
    return Toy(model)


def on_toy(toy, kind=LayerBench, **options):
    bench = kind(toy, TOY_SAES, [EIFFEL], **options)
    return bench, [bench.number(*node) for node in CIRCUIT]


def worth(bench, nodes, mode="keep"):
    return bench.each([nodes], mode)[0].item()


def test_the_toy_by_hand(toy):
    bench, circuit = on_toy(toy)
    assert bench.ends == (-1, 6)                      # the errors alone say 2 · -0.5; 3 · 2 + 1 - 1 is everything
    assert worth(bench, circuit) == 5                 # all but what is copied
    assert [worth(bench, [node]) for node in circuit] == [-1, -1, -1]
    assert [worth(bench, [node], "remove") for node in circuit] == [0, 0, 0]
    assert worth(bench, circuit, "remove") == 0
    copied = [bench.number(0, 2, 5), bench.number(1, 2, 5)]
    assert worth(bench, copied) == 0 and worth(bench, copied[:1]) == worth(bench, copied[1:]) == -1
    table = bench.table()
    assert table.set_index("node").loc[circuit, "distance"].tolist() == [1, 1, 2]
    assert set(table["node"]) >= {*circuit, *copied} and len(table) == 7  # and two that are only passed by


def test_errors_of_the_toy(toy):
    """The error is computed at layer 0 and read at the end: kept, ablated, or a node at each of the two."""
    bench, circuit = on_toy(toy, errors="ablate")
    assert bench.ends == (0, 6) and worth(bench, bench.candidates) == 7  # no set says 6: the error spoke against it
    bench, circuit = on_toy(toy, errors="node")
    errors = [bench.number(0, None, 2), bench.number(1, None, 5)]
    assert bench.ends == (0, 6) and worth(bench, circuit) == 6 and worth(bench, [*circuit, *errors]) == 5
    assert worth(bench, [*circuit, errors[0]]) == worth(bench, [*circuit, errors[1]]) == 6  # it is a chain, too
    named = bench.table(errors)
    assert named["latent"].tolist() == [-1, -1] and named["distance"].tolist() == [0.5, 0.5]


def test_positions_may_share_a_node(toy):
    bench = LayerBench(toy, TOY_SAES, [EIFFEL], by_position=False)
    circuit = [bench.number(0, 0), bench.number(0, 1), bench.number(1, 0)]
    assert worth(bench, circuit) == 5 and bench.n_nodes == 8
    assert bench.table(circuit)["position"].tolist() == [-1] * 3


class Frozen(LayerBench):
    """Wrong: kept latents have the values of the untouched model."""

    def _splice(self, hook, ablated, facts, inside):
        clean = extract(self.model, self.asked.tokens, hook)[hook][facts]
        right = super()._splice(hook, ablated, facts, inside)
        return lambda acts, hook: right(clean, hook)


class NoError(LayerBench):
    """Wrong: what the SAE leaves out is lost."""

    def _splice(self, hook, ablated, facts, inside):
        sae = self.saes[hook]
        return lambda acts, hook: sae.decode(torch.where(ablated, 0.0, sae.encode(acts)))


class OneLayer(LayerBench):
    """Wrong: only the last layer's nodes are ablated."""

    def _splice(self, hook, ablated, facts, inside):
        return super()._splice(hook, ablated & (hook == self.hooks[-1]), facts, inside)


class LayersApart(LayerBench):
    """Wrong: a node is ablated at the same place of every layer."""

    def _splice(self, hook, ablated, facts, inside):
        self.seen = ablated if hook == self.hooks[0] else self.seen
        return super()._splice(hook, self.seen, facts, inside)


def says_what_it_should(bench, circuit):
    known = ((circuit, 5), (circuit[2:], -1), (circuit[:2], -1), ([], -1), (bench.candidates, 6))
    return all(worth(bench, nodes) == value for nodes, value in known)


def test_wrong_implementations_are_told_apart(toy):
    assert says_what_it_should(*on_toy(toy))
    for wrong in (Frozen, NoError, OneLayer, LayersApart):
        assert not says_what_it_should(*on_toy(toy, wrong)), wrong.__doc__


# ---- searches on the toy


def goal_of(bench, share):
    return lambda differences, correct: bench.share(differences.mean().item()) >= share


def test_attribution_ranks_the_toy(toy):
    bench, circuit = on_toy(toy)
    gap = answer_gap(toy, EIFFEL)
    found = {hook: gradient_times_activation(toy, sae, hook, EIFFEL.prompt, gap) for hook, sae in TOY_SAES.items()}
    scores = bench.pack({hook: shares.latents for hook, shares in found.items()})
    assert scores[circuit].tolist() == [6, 6, 6] and scores.sum() == 6 * 3 + 1 * 2
    order = scores.argsort(descending=True).tolist()
    first = shortest(bench, order[:8], goal=goal_of(bench, 0.8))
    assert first.reached and set(first.latents) == set(circuit)
    effects = single_effects(bench).set_index("latent")["effect"]
    assert effects[circuit].tolist() == [6, 6, 6] and effects.sum() == 20


def test_greedy_from_below_is_blind_and_from_above_is_not(toy):
    bench, circuit = on_toy(toy)
    goal = goal_of(bench, 0.8)
    decoys = [node for node in bench.candidates if node not in circuit]
    below = greedy(bench, "keep", [*decoys, *circuit], goal=goal, most=3)
    assert not below.reached                            # no first step is better than another
    assert below.path["logit_difference"].iloc[:2].tolist() == [-1, -1]
    above = prune(bench, [*decoys, *circuit], goal=goal)
    assert above.reached and above.latents == circuit
    assert above.path["n_latents"].iloc[[0, -1]].tolist() == [7, 3]
    assert set(minimal(bench, shortest(bench, [*circuit, *decoys], goal=goal), goal=goal)) == set(circuit)
    assert prune(bench, bench.candidates, goal=goal, share=1.0).latents == [n for n in bench.candidates if n in circuit]


def test_a_necessary_set_is_pruned_to_one_node(toy):
    bench, circuit = on_toy(toy)
    gone = prune(bench, bench.candidates, "remove", goal=lambda differences, correct: bool(differences.mean() <= 0))
    assert len(gone.latents) == 1 and gone.latents[0] in circuit   # any link of the chain will do


def test_prune_refuses(toy):
    bench, circuit = on_toy(toy)
    with pytest.raises(InputError, match="set of 2 latents does not do what is asked"):
        prune(bench, circuit[:2], goal=goal_of(bench, 0.8))
    with pytest.raises(InputError, match="share must be above 0"):
        prune(bench, circuit, goal=goal_of(bench, 0.8), share=0)


# ---- the model


def clean_difference(model, bench):
    with torch.no_grad():
        return bench.asked.difference(model(bench.asked.tokens.ids))


@pytest.mark.parametrize("by_position", [True, False])
def test_all_nodes_are_the_model_as_it_is(model, saes, by_position):
    facts = [EIFFEL] if by_position else [EIFFEL, COLOSSEUM]
    bench = LayerBench(model, saes, facts, by_position=by_position, baseline=mean_readings(model, saes, "A cat."))
    clean = clean_difference(model, bench)
    assert torch.equal(bench.each([[]], "remove")[0][0], clean)
    assert torch.equal(bench.each([range(bench.n_nodes)], "keep")[0][0], clean)
    assert bench.ends[1] == pytest.approx(clean.mean().item())


def test_no_node_is_every_layer_at_its_mean(model, saes):
    """By hand: at each layer in turn, decode(mean) and the error of what has come from the layers before."""
    usual = mean_readings(model, saes, ["The old man went to the market.", "Paris is the capital of France."])
    bench = LayerBench(model, saes, [EIFFEL], baseline=usual)

    def by_hand(acts, hook, sae, mean):
        acts = acts.clone()
        rest = acts[:, 1:]
        acts[:, 1:] = sae.decode(mean) + (rest - sae.decode(sae.encode(rest)))
        return acts

    hooks = [(hook, lambda acts, hook, sae=sae, mean=usual.latents[hook]: by_hand(acts, hook, sae, mean))
             for hook, sae in saes.items()]
    with torch.no_grad():
        expected = bench.asked.difference(model.run_with_hooks(bench.asked.tokens.ids, fwd_hooks=hooks))
    torch.testing.assert_close(bench.each([[]], "keep")[0][0], expected, atol=1e-4, rtol=1e-4)
    assert abs(expected - clean_difference(model, bench)).item() > 1


def test_one_layer_is_what_the_other_bench_says(model, saes, pair, target):
    hook, sae = target.hook, saes[target.hook]
    facts, there = other_readings(model, {hook: sae}, [pair])
    _, same = other_prompts(model, sae, hook, [pair])
    new = LayerBench(model, {hook: sae}, facts, baseline=there, by_position=False)
    old = Bench(model, sae, hook, facts, baseline=same)
    torch.testing.assert_close(new.activation, old.activation)
    assert new.candidates == old.candidates
    for mode in ("keep", "remove"):
        sets = [old.candidates[:3], old.candidates[2:9], []]
        torch.testing.assert_close(new.each(sets, mode)[0], old.each(sets, mode)[0], atol=1e-4, rtol=1e-4)
    assert new.ends == pytest.approx(old.ends, abs=1e-4)


def test_later_latents_take_their_values_from_the_run(model, saes, pair):
    """Everything kept but the first layer's nodes: as if it alone had an SAE. Frozen values would hide it."""
    hook = next(iter(saes))
    facts, there = other_readings(model, saes, [pair])
    alone = LayerBench(model, {hook: saes[hook]}, facts,
                       baseline=Readings({hook: there.latents[hook]}, {hook: there.errors[hook]}))
    expected = alone.each([[]], "keep")[0]
    found = {}
    for kind in (LayerBench, Frozen):
        bench = kind(model, saes, facts, baseline=there)
        later = range(bench.starts[1], bench.n_nodes)
        found[kind] = bench.each([later], "keep")[0]
    torch.testing.assert_close(found[LayerBench], expected, atol=1e-4, rtol=1e-4)
    assert (found[Frozen] - expected).item() > 5


def test_with_errors_ablated_nothing_is_left_but_the_other_prompt(model, saes, pair):
    facts, there = other_readings(model, saes, [pair])
    bench = LayerBench(model, saes, facts, baseline=there, errors="ablate")
    corrupt = ask(model, [Fact(pair.corrupt.prompt, pair.clean.answer, pair.corrupt.answer)])
    with torch.no_grad():
        expected = corrupt.difference(model(corrupt.tokens.ids)).item()
    assert bench.ends[0] == pytest.approx(expected, abs=1e-3)
    nodes = LayerBench(model, saes, facts, baseline=there, errors="node")
    assert nodes.ends[0] == pytest.approx(expected, abs=1e-3)
    torch.testing.assert_close(nodes.each([nodes.candidates])[0][0], clean_difference(model, nodes), atol=1e-3, rtol=0)


def test_keeping_a_set_is_removing_all_others(swapped):
    """All others, and not the candidates alone: a latent silent on both prompts may wake in a run that is disturbed."""
    some = swapped.candidates[::2]
    kept = worth(swapped, some)
    assert kept == pytest.approx(worth(swapped, set(range(swapped.n_nodes)) - set(some), "remove"), abs=1e-3)
    assert abs(kept - worth(swapped, swapped.candidates[1::2], "remove")) > 0.1


def test_the_circuit_of_a_fact_is_found_and_beats_its_controls(swapped, ranked):
    goal = goal_of(swapped, 0.9)
    found = shortest(swapped, ranked[:120], goal=goal)
    circuit = prune(swapped, found.latents, goal=goal, share=0.3).latents
    assert found.reached and 4 < len(circuit) <= len(found.latents) < len(swapped.candidates) / 2
    assert set(swapped.table(circuit)["layer"]) == set(range(len(swapped.hooks)))  # a chain: no layer can be spared
    sets = {"found": [circuit], "random": random_by_layer(swapped, circuit, 6),
            "there": random_by_layer(swapped, circuit, 6, by=("hook", "position")),
            "matched": matched_by_layer(swapped, circuit, 6)}
    keep = compare_sets(swapped, sets, "keep").set_index("set")["share"]
    gone = compare_sets(swapped, sets, "remove").set_index("set")["share"]
    assert keep["found"] >= 0.9 and gone["found"] < 0.2
    assert keep.drop("found").max() < 0.4 and gone["matched"] > 0.6
    curve = faithfulness_curve(swapped, ranked, [0, len(found.latents), len(ranked)])
    assert curve["faithfulness"].tolist()[::2] == pytest.approx([0, 1], abs=1e-3)
    assert curve["completeness"].tolist()[::2] == pytest.approx([1, 0], abs=0.05)  # what wakes is not removed


def test_more_of_the_order_is_closer_to_the_model(swapped, ranked):
    """Random orders of the same candidates climb later than that of attribution, at every size."""
    sizes = [0, 40, 80, 120, len(ranked)]
    curve = faithfulness_curve(swapped, ranked, sizes)["faithfulness"].tolist()
    dice = torch.Generator().manual_seed(0)
    shuffled = [[ranked[i] for i in torch.randperm(len(ranked), generator=dice).tolist()] for _ in range(6)]
    chance = [swapped.share(swapped.each([order[:n] for order in shuffled])[0].mean().item()) for n in sizes]
    assert curve[1] < curve[2] and chance[1] < chance[-1] == pytest.approx(1, abs=1e-3)
    assert all(ours > theirs + 0.1 for ours, theirs in zip(curve[1:-1], chance[1:-1], strict=True))


def test_controls_have_the_shape_of_the_set(swapped, ranked):
    nodes = ranked[:30]
    per_layer = swapped.table(nodes)["hook"].value_counts()
    per_place = swapped.table(nodes)[["hook", "position"]].value_counts()
    for chosen in [*random_by_layer(swapped, nodes, 4), *matched_by_layer(swapped, nodes, 4)]:
        assert len(set(chosen)) == 30 and swapped.table(chosen)["hook"].value_counts().eq(per_layer).all()
    assert all(not set(chosen) & set(nodes) for chosen in matched_by_layer(swapped, nodes, 4))
    for chosen in random_by_layer(swapped, nodes, 4, by=("hook", "position")):
        assert swapped.table(chosen)[["hook", "position"]].value_counts().eq(per_place).all()
    assert random_by_layer(swapped, nodes, 3, seed=1) == random_by_layer(swapped, nodes, 3, seed=1)
    assert random_by_layer(swapped, nodes, 3, seed=1) != random_by_layer(swapped, nodes, 3, seed=2)
    with pytest.raises(InputError, match="unknown column 'layers'.*'layer'"):
        random_by_layer(swapped, nodes, by=("layers",))


# ---- baselines


def test_mean_readings_are_means_over_real_tokens(model, saes, target):
    texts = ["Paris is in France.", "The dog sat."]
    usual = mean_readings(model, saes, texts)
    acts = [extract(model, text, target.hook)[target.hook][0, 1:] for text in texts]
    latents = encode(saes[target.hook], torch.cat(acts))
    torch.testing.assert_close(usual.latents[target.hook], latents.mean(0))
    error = torch.cat(acts) - saes[target.hook].decode(latents)
    torch.testing.assert_close(usual.errors[target.hook], error.mean(0), atol=1e-4, rtol=1e-4)


def test_resampled_readings_are_of_one_token_at_all_layers(model, saes):
    text = "Paris is in France, where people speak French."
    drawn = resampled_readings(model, saes, text, [EIFFEL], seed=3)
    first, last = list(saes)[0], list(saes)[-1]
    places = []
    for hook in (first, last):
        there = encode(saes[hook], extract(model, text, hook)[hook][0, 1:])
        same = torch.isclose(drawn.latents[hook][0, :, None], there[None], atol=1e-4).all(-1)
        assert same.any(1).all()
        places.append(same)
    assert (places[0] & places[1]).any(1).all()          # the same word at both
    again, other = (resampled_readings(model, saes, text, [EIFFEL], seed=seed) for seed in (3, 4))
    assert torch.equal(again.latents[first], drawn.latents[first])
    assert not torch.equal(other.latents[first], drawn.latents[first])
    bench = LayerBench(model, saes, [EIFFEL], baseline=drawn)
    assert bench.share(worth(bench, bench.candidates)) == pytest.approx(1, abs=1e-4)


# ---- safety


def test_hooks_come_down_and_weights_stay(model, saes, swapped, monkeypatch):
    def hung():
        return sum(len(point.fwd_hooks) for point in model.hook_dict.values())

    weights = [p.detach().clone() for p in model.original_model.parameters()]
    before = clean_difference(model, swapped)
    worth(swapped, swapped.candidates[:5])
    last = saes[swapped.hooks[-1]]
    with monkeypatch.context() as patch:
        patch.setattr(last, "encode", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            worth(swapped, swapped.candidates[:5])
    assert hung() == 0 and torch.equal(clean_difference(model, swapped), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.original_model.parameters(), strict=True))


def test_nodes_have_names(swapped):
    node = swapped.number(2, 17, -1)
    row = swapped.table([node]).iloc[0]
    assert (row["layer"], row["latent"], row["token"]) == (2, 17, " in") and row["position"] == swapped.places - 1
    assert node == swapped.number(row["hook"], 17, row["position"])
    every = swapped.table(range(0, swapped.n_nodes, 997))
    assert [swapped.number(r.hook, r.latent, r.position) for r in every.itertuples()] == every["node"].tolist()


def test_what_does_not_exist_is_refused_by_name(model, saes, swapped, target):
    with pytest.raises(InputError, match="no SAE at layer 9.*hook_resid_pre"):
        swapped.number(9, 0, 1)
    with pytest.raises(InputError, match="Did you mean 'blocks.2.hook_resid_pre'"):
        swapped.number("blocks.2.hook_resid_prae", 0, 1)
    with pytest.raises(InputError, match=f"0 to {target.d_sae - 1}, got {target.d_sae}"):
        swapped.number(0, target.d_sae, 1)
    with pytest.raises(InputError, match="position 6 does not exist"):
        swapped.number(0, 0, 6)
    with pytest.raises(InputError, match="name one"):
        swapped.number(0, 0)
    with pytest.raises(InputError, match="errors are no nodes"):
        swapped.number(0, None, 1)
    with pytest.raises(InputError, match=f"0 to {swapped.n_nodes - 1}"):
        swapped.each([[swapped.n_nodes]])
    with pytest.raises(InputError, match="blocks 0 to 3"):
        LayerBench(model, {"blocks.7.hook_resid_pre": saes[target.hook]}, [EIFFEL])
    with pytest.raises(InputError, match="width 128; those there have 512"):
        LayerBench(model, {"blocks.0.mlp.hook_post": saes[target.hook]}, [EIFFEL])
    with pytest.raises(InputError, match="must map hook points to SAEs"):
        LayerBench(model, saes[target.hook], [EIFFEL])
    with pytest.raises(InputError, match="unknown way with errors 'drop'"):
        LayerBench(model, saes, [EIFFEL], errors="drop")
    with pytest.raises(InputError, match="several lengths"):
        LayerBench(model, saes, [EIFFEL, COLOSSEUM])


def test_baselines_and_scores_of_another_shape_are_refused(model, saes, swapped, target):
    one = {target.hook: saes[target.hook]}
    with pytest.raises(InputError, match="has nothing for 'blocks.0"):
        LayerBench(model, saes, [EIFFEL], baseline=mean_readings(model, one, "A cat."))
    there = Readings({target.hook: torch.zeros(3, 2, target.d_sae)}, {target.hook: torch.zeros(target.d_in)})
    with pytest.raises(InputError, match=r"baseline.latents\['blocks.2.hook_resid_pre'\] must have shape \[1024\]"):
        LayerBench(model, one, [EIFFEL], baseline=there)
    scores = {hook: torch.zeros(swapped.places, target.d_sae) for hook in saes}
    assert swapped.pack(scores).shape == (swapped.n_nodes,)
    with pytest.raises(InputError, match="no scores for"):
        swapped.pack({target.hook: scores[target.hook]})
    with pytest.raises(InputError, match="must have 6 positions, got 2"):
        swapped.pack({hook: x[:2] for hook, x in scores.items()})
    with pytest.raises(InputError, match="where errors are nodes"):
        swapped.pack(scores, {hook: torch.zeros(swapped.places) for hook in saes})
