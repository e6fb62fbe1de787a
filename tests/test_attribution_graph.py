"""The attribution graph: its sums, its edges against the model, influence by hand arithmetic, and what it refuses."""

import pandas as pd
import pytest
import torch

from solutions.attribution import (
    AttributionGraph,
    ablate,
    alike,
    attribution_graph,
    carry,
    describe_latents,
    knock_out,
    load_transcoders,
    logits_without,
    mlp_latents,
    mlp_latents_edited,
    one_at_a_time,
    with_names,
)
from solutions.attribution.graph import carried as carrying
from solutions.attribution.graph.transcoders import MLP_IN, MLP_OUT
from solutions.data import Tokens, tokenize
from solutions.errors import InputError
from solutions.models import load_model
from solutions.sae import as_sae_lens, make_sae
from solutions.targets import get_target

PROMPT = "The Eiffel Tower is in"


def made_up(width, layer, n=48):
    """A transcoder that nobody has trained: what must add up must do so whatever it says."""
    made = make_sae("relu", width, n, d_out=width, seed=layer)
    dice = torch.Generator().manual_seed(layer)
    with torch.no_grad():
        made.W_dec.mul_(0.3)
        made.b_dec.copy_(0.1 * torch.randn(width, generator=dice))
        made.b_enc.copy_(0.1 * torch.randn(n, generator=dice))
    return as_sae_lens(made, hook_name=MLP_IN.format(layer), model_name="made up").requires_grad_(False)


@pytest.fixture(scope="module")
def transcoders():
    return load_transcoders(get_target("smallworld"), "cpu")


@pytest.fixture(scope="module")
def graph(model, transcoders):
    return attribution_graph(model, transcoders, PROMPT)


@pytest.fixture(scope="module")
def llama():
    return load_model(get_target("smallworld-llama"), "cpu")


def received(graph):
    """What the edges and the bias give to every node that reads."""
    reads = torch.tensor(graph.nodes["kind"].isin(("latent", "logit")).to_numpy())
    value = torch.tensor(graph.nodes["value"].to_numpy())
    return (graph.direct.sum(dim=1) + graph.bias)[reads], value[reads]


# ---- sums


def test_the_edges_into_a_node_and_its_bias_add_up_to_its_value(model, graph):
    total, value = received(graph)
    torch.testing.assert_close(total, value, atol=1e-4, rtol=1e-4)
    logits = model(tokenize(model, PROMPT).ids)[0, -1].detach()
    for node in graph.logits():
        row = graph.node(node)
        assert row["value"] == pytest.approx(float(logits[row["token"]] - logits.mean()), abs=1e-4)
        assert row["probability"] == pytest.approx(float(logits.softmax(-1)[row["token"]]), abs=1e-5)


@pytest.mark.parametrize("name", ["smallworld", "smallworld-llama"])
def test_they_add_up_whatever_the_transcoders_say_and_in_both_kinds_of_model(name, model, llama):
    chosen = {"smallworld": model, "smallworld-llama": llama}[name]
    untrained = {layer: made_up(128, layer) for layer in range(4)}
    made = attribution_graph(chosen, untrained, PROMPT)
    total, value = received(made)
    assert len(value) > 50 and made.error < 1e-4
    torch.testing.assert_close(total, value, atol=2e-4, rtol=1e-4)


def test_all_parts_together_are_the_residual_stream(model, transcoders):
    carried = carry(model, transcoders, PROMPT)
    ids = tokenize(model, PROMPT).ids
    _, cache = model.run_with_cache(ids)
    for layer, read in carried.at_mlp.items():
        torch.testing.assert_close(read.sum(0), cache[MLP_IN.format(layer)][0], atol=1e-4, rtol=1e-4)
    kinds = pd.Series(carried.parts.kind)
    assert set(kinds) == {"token", "latent", "error", "BOS"}
    # Each layer's parts and the decoder's bias are what its MLP wrote, at every position.
    for layer, transcoder in transcoders.items():
        rows = carried.parts.layer == layer
        written = torch.zeros(ids.shape[1], 128)
        written.index_add_(0, carried.parts.position[rows], carried.parts.written[rows])
        written[1:] += transcoder.b_dec
        torch.testing.assert_close(written, cache[MLP_OUT.format(layer)][0], atol=1e-4, rtol=1e-4)


def test_a_model_in_which_they_do_not_add_up_is_refused(model, transcoders, monkeypatch):
    attended = carrying._attended
    monkeypatch.setattr(carrying, "_attended", lambda *args: 0.9 * attended(*args))
    with pytest.raises(InputError, match="do not add up"):
        attribution_graph(model, transcoders, PROMPT)


# ---- edges against the model


@pytest.fixture(scope="module")
def held(model):
    """Runs the model on the prompt with everything bent held; `extra` {layer: [pos, d]} is added to what is written."""
    ids = tokenize(model, PROMPT).ids
    _, cache = model.run_with_cache(ids)
    fixed = [f"blocks.{i}.{part}" for i in range(4) for part in
             ("ln1.hook_scale", "ln2.hook_scale", "attn.hook_pattern", "hook_mlp_out")]

    @torch.no_grad()
    def run(extra):
        seen = {}

        def put(acts, hook, name):
            layer = int(name.split(".")[1])
            return cache[name] + (extra[layer] if name.endswith("mlp_out") and layer in extra else 0)

        def keep(acts, hook, layer):
            seen[layer] = acts

        def embed(acts, hook):
            return acts + extra.get(-1, 0)

        hooks = [(n, lambda acts, hook, n=n: put(acts, hook, n)) for n in [*fixed]]
        hooks += [(MLP_IN.format(i), lambda acts, hook, i=i: keep(acts, hook, i)) for i in range(4)]
        hooks += [("ln_final.hook_scale", lambda acts, hook: cache["ln_final.hook_scale"]),
                  ("blocks.0.hook_resid_pre", embed)]
        logits = model.run_with_hooks(ids, fwd_hooks=hooks)[0, -1]
        return seen, logits - logits.mean()

    return run


@pytest.mark.filterwarnings("ignore:A forward hook edited")
@pytest.mark.parametrize("kind", ["token", "latent", "error", "BOS"])
def test_twice_as_much_of_a_part_gives_its_readers_what_the_edge_says(kind, model, transcoders, graph, held):
    parts = carry(model, transcoders, PROMPT).parts
    node = [i for i in graph.nodes.index[graph.nodes["kind"] == kind] if graph.nodes.at[i, "layer"] < 2][-1]
    layer, position = int(parts.layer[node]), int(parts.position[node])
    extra = torch.zeros(len(graph.tokens), 128)
    extra[position] = parts.written[node]
    before, plain = held({})
    after, doubled = held({layer: extra})
    seen = 0
    for label, weight in zip(graph.nodes.index, graph.direct[:, node].tolist(), strict=True):
        reader = graph.nodes.loc[label]
        if reader["kind"] == "latent" and reader["layer"] > layer:
            where = int(reader["layer"])
            encoder = transcoders[where].W_enc[:, int(reader["latent"])].detach()
            change = (after[where] - before[where])[0, int(reader["position"])] @ encoder
        elif reader["kind"] == "logit":
            change = (doubled - plain)[int(reader["token"])]
        else:
            assert weight == 0
            continue
        assert float(change) == pytest.approx(weight, abs=2e-3)
        seen += abs(weight) > 0.01
    assert seen > 10


def test_a_node_gives_only_to_later_layers_and_positions(graph):
    target, source = graph.direct.nonzero(as_tuple=True)
    layer, position = (torch.tensor(graph.nodes[name].to_numpy()) for name in ("layer", "position"))
    assert (layer[target] > layer[source]).all()
    assert (position[target] >= position[source]).all()
    assert len(target) > 1000


def test_the_nodes_are_the_active_latents(model, transcoders, graph):
    latents = mlp_latents(model, transcoders, PROMPT)
    found = graph.nodes[graph.nodes["kind"] == "latent"]
    assert len(found) == sum(int((z > 0).sum()) for z in latents.values())
    row = found.iloc[len(found) // 2]
    assert row["value"] == pytest.approx(float(latents[row["layer"]][0, row["position"], row["latent"]]), rel=1e-5)
    assert (graph.nodes["kind"] == "error").sum() == 4 * (len(graph.tokens) - 1)  # none at BOS, no transcoder saw it


# ---- what follows from the edges, by hand


@pytest.fixture
def small():
    """a → 3, b → -1 → latent (2) → 2 → logit, which also gets 1 from a and 1 from an error."""
    nodes = pd.DataFrame({
        "kind": ["token", "token", "error", "latent", "logit"], "layer": [-1, -1, 0, 0, 1],
        "position": [0, 1, 1, 1, 1], "latent": [-1, -1, -1, 7, -1], "token": [5, 6, -1, -1, 9],
        "value": [1.0, 1.0, 1.0, 2.0, 4.0], "probability": [0.0, 0.0, 0.0, 0.0, 1.0],
        "name": ["a", "b", "missed", "0/7", "c"],
    })
    direct = torch.zeros(5, 5, dtype=torch.float64)
    direct[3, 0], direct[3, 1] = 3, -1
    direct[4, 3], direct[4, 0], direct[4, 2] = 2, 1, 1
    return AttributionGraph(["a", "b"], torch.tensor([[5, 6]]), nodes, direct, torch.zeros(5, dtype=torch.float64))


def test_influence_by_hand(small):
    # Into the latent 3/4 and 1/4, into the logit 1/2 from the latent and 1/4 each from a and the error.
    assert small.influence().tolist() == pytest.approx([0.25 + 0.5 * 0.75, 0.5 * 0.25, 0.25, 0.5, 0.0])


def test_influence_is_the_sum_over_all_paths(graph):
    shares, weight = graph.normalised(), torch.tensor(graph.nodes["probability"].to_numpy())
    total, step = torch.zeros_like(weight), weight
    for _ in range(10):
        step = step @ shares
        total += step
    assert not step.any()  # no path is longer than there are layers
    assert graph.influence().tolist() == pytest.approx(total.tolist(), abs=1e-12)


def test_effects_by_hand(small):
    # a gives 1 itself, and 3/2 of the 2 that the latent passes on; b takes away half of it.
    assert small.effects().tolist() == pytest.approx([4.0, -1.0, 1.0, 2.0, 0.0])


def test_the_effects_of_all_beginnings_add_up_to_the_logit(graph):
    effects, nodes = graph.effects(), graph.nodes
    begins = nodes["kind"].isin(("token", "error", "BOS"))
    reads = nodes["kind"] == "latent"
    bias = torch.tensor(graph.bias.numpy())
    by_bias = sum(float(bias[i]) * effects[i] / nodes.at[i, "value"] for i in nodes.index[reads])
    logit = graph.logits()[0]
    total = effects[begins].sum() + by_bias + float(bias[graph._row(logit)])
    assert total == pytest.approx(nodes.at[logit, "value"], abs=1e-3)


def test_scores_by_hand(small):
    scores = small.scores()
    assert scores["replacement"] == pytest.approx(0.75 / (0.75 + 0.25))
    # The logit (weight 1) gets 3/4 of its edges from what is no error, the latent (weight 1/2) all of them.
    assert scores["completeness"] == pytest.approx((1 * 0.75 + 0.5 * 1) / 1.5)


def test_without_errors_both_scores_are_one(small):
    direct = small.direct.clone()
    direct[4, 2] = 0
    perfect = AttributionGraph(small.tokens, small.ids, small.nodes, direct, small.bias)
    assert perfect.scores() == {"replacement": 1.0, "completeness": 1.0}


def test_pruning_by_hand(small):
    # In order of influence: a 0.625, the latent 0.5, the error 0.25, b 0.125. Of 1.5, 70 % are there after the latent.
    kept = small.prune(0.7, 1.0)
    assert kept.nodes.index.tolist() == [0, 1, 3, 4]  # tokens and logits stay in any case
    assert kept.direct[kept._row(3), kept._row(1)] == -1
    assert small.prune(1.0, 1.0).nodes.equals(small.nodes)
    # All that matters most passes along one edge each: the last one to go is b's.
    fewer = small.prune(1.0, 0.8)
    assert fewer.direct[fewer._row(3), fewer._row(1)] == 0 and len(fewer.edges()) < 5


def test_nothing_hangs_in_the_air_after_pruning(graph):
    pruned = graph.prune(0.6, 0.8)
    kind = pruned.nodes["kind"]
    latents = torch.tensor((kind == "latent").to_numpy())
    assert latents.any() and len(pruned) < len(graph)
    assert (pruned.direct[latents] != 0).any(dim=1).all() and (pruned.direct[:, latents] != 0).any(dim=0).all()
    assert (kind == "token").sum() == len(graph.tokens)
    assert graph.prune(0.0, 1.0).nodes["kind"].isin(("token", "logit")).all()


def test_inputs_and_outputs_by_hand(small):
    into = small.inputs(4)
    assert into["name"].tolist()[0] == "0/7" and into["weight"].tolist() == [2, 1, 1]
    assert into["share"].tolist() == [0.5, 0.25, 0.25]
    out = small.outputs(0)
    assert out["name"].tolist() == ["0/7", "c"] and out["share"].tolist() == [0.75, 0.25]
    assert small.outputs(4).empty and len(small.inputs(4, k=1)) == 1
    assert small.edges().iloc[0].tolist() == [0, 3, 3.0]
    assert small.strongest(1) == [3] and small.strongest(5, "token") == [0, 1]


def test_names_are_put_where_they_belong(small):
    named = small.named({(0, 7): "sevens", (1, 1): "nobody"})
    assert named.node(3)["name"] == "sevens" and small.node(3)["name"] == "0/7"
    assert "1 latent" in repr(small) and "'ab'" in repr(small)


# ---- asking the model


def test_taking_nothing_out_changes_nothing_and_each_run_has_its_own_set(model, transcoders, graph):
    chosen = graph.strongest(6)
    rows = logits_without(model, transcoders, graph, [[], chosen[:1], chosen])
    ids = tokenize(model, PROMPT).ids
    torch.testing.assert_close(rows[0], model(ids)[0, -1], atol=1e-4, rtol=1e-4)
    for row, nodes in ((1, chosen[:1]), (2, chosen)):
        places = [tuple(int(graph.node(n)[c]) for c in ("layer", "position", "latent")) for n in nodes]
        with mlp_latents_edited(model, transcoders, ablate(places, transcoders)):
            torch.testing.assert_close(rows[row], model(ids)[0, -1], atol=1e-4, rtol=1e-4)
    assert (rows[2] - rows[0]).abs().max() > 0.1


def test_controls_are_others_of_about_the_same_activation(graph):
    chosen = graph.strongest(10)
    drawn = alike(graph, chosen, seed=1)
    assert len(set(drawn)) == 10 and not set(drawn) & set(chosen)
    assert drawn == alike(graph, chosen, seed=1) and drawn != alike(graph, chosen, seed=2)
    latents = graph.nodes.loc[[*chosen, *drawn], "value"]
    ratio = latents[drawn].sum() / latents[chosen].sum()
    assert 0.7 < ratio < 1.4


def test_knocking_out_by_influence_hurts_more_than_at_random(model, transcoders, graph):
    table = knock_out(model, transcoders, graph, sizes=(2, 16), seeds=range(3))
    assert table["chosen"].tolist() == ["by influence", "by influence", *["at random"] * 3, "by influence",
                                        *["at random"] * 3]
    answer = graph.node(graph.logits()[0])
    assert table["probability"][0] == pytest.approx(answer["probability"], abs=1e-4)
    sixteen = table[table["nodes"] == 16].groupby("chosen")["logit"].mean()
    assert sixteen["by influence"] < sixteen["at random"] - 0.5


def test_one_at_a_time_measures_what_a_run_says(model, transcoders, graph):
    nodes = graph.strongest(3)
    table = one_at_a_time(model, transcoders, graph, nodes)
    rows = logits_without(model, transcoders, graph, [[], [nodes[1]]])
    answer = int(graph.node(graph.logits()[0])["token"])
    centred = rows[:, answer] - rows.mean(dim=1)
    assert table.loc[nodes[1], "measured"] == pytest.approx(float(centred[0] - centred[1]), abs=1e-4)
    assert table.loc[nodes[1], "predicted"] == pytest.approx(graph.effects()[nodes[1]])


def last_latents(graph):
    nodes = graph.nodes[(graph.nodes["kind"] == "latent") & (graph.nodes["layer"] == 3)]
    return nodes.index[nodes["position"] == len(graph.tokens) - 1].tolist()


def test_a_last_latents_effect_is_exact_when_the_scale_is_held_and_not_otherwise(model, transcoders, graph):
    """What the last MLP writes at the last position is read by the unembedding alone: nothing else can answer."""
    nodes = last_latents(graph)
    held = one_at_a_time(model, transcoders, graph, nodes, hold=("scales",))
    assert len(held) > 5
    assert held["measured"].tolist() == pytest.approx(held["predicted"].tolist(), abs=2e-3)
    free = one_at_a_time(model, transcoders, graph, nodes)
    assert (free["measured"] - free["predicted"]).abs().max() > 0.1


def test_with_everything_held_only_later_latents_are_free(model, transcoders, graph):
    nodes = graph.strongest(30)
    both = one_at_a_time(model, transcoders, graph, nodes, hold=("scales", "patterns"))
    free = one_at_a_time(model, transcoders, graph, nodes)
    agree = [table["predicted"].corr(table["measured"], method="spearman") for table in (both, free)]
    assert agree[0] > 0.85 and agree[0] > agree[1]


def test_holding_changes_nothing_where_nothing_is_taken_out(model, transcoders, graph):
    rows = logits_without(model, transcoders, graph, [[]], hold=("scales", "patterns"))
    torch.testing.assert_close(rows[0], model(graph.ids)[0, -1], atol=1e-3, rtol=1e-4)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    with pytest.raises(InputError, match="part to hold"):
        logits_without(model, transcoders, graph, [[]], hold=("weights",))


def test_names_say_where_a_latent_is_active_and_what_it_writes_for(model, transcoders, graph):
    texts = ["The Eiffel Tower is in Paris.", "The Colosseum is in Rome.", "The people of Paris speak French."]
    latents = mlp_latents(model, transcoders, texts)
    tokens = tokenize(model, texts)
    layer, latent = 1, int(latents[1].sum(dim=(0, 1)).argmax())
    row = describe_latents(model, transcoders, [(layer, latent)], texts, k=2).iloc[0]
    acts = latents[layer][..., latent]
    assert row["density"] == pytest.approx(float((acts > 0).sum() / tokens.n_content))
    strongest = tokens.ids.flatten()[acts.argmax()]
    assert row["example"].endswith(model.tokenizer.decode([int(strongest)]))
    effect = transcoders[layer].W_dec[latent] @ (model.W_U * model.ln_final.weight[:, None])
    assert model.tokenizer.decode([int(effect.argmax())]) in row["promotes"]
    assert row["name"].startswith(f"1/{latent} on ") and 0 < row["share"] <= 1
    named = with_names(model, transcoders, graph.prune(0.3), texts)
    assert named.nodes.loc[named.nodes["kind"] == "latent", "name"].str.contains(" → ").all()


def test_a_latent_that_is_never_active_is_named_so(model, transcoders):
    latents = mlp_latents(model, transcoders, ["London"])
    silent = int((latents[2].sum(dim=(0, 1)) == 0).nonzero()[0])
    row = describe_latents(model, transcoders, [(2, silent)], ["London"]).iloc[0]
    assert row["density"] == 0 and row["tokens"] == [] and "nothing here" in row["name"]


# ---- refusals


def test_odd_requests_are_refused_by_name(model, transcoders, graph):
    fewer = {layer: transcoders[layer] for layer in (0, 1, 3)}
    with pytest.raises(InputError, match=r"every layer; there is none for \[2\]"):
        attribution_graph(model, fewer, PROMPT)
    two = tokenize(model, ["Paris", "Rome"])
    with pytest.raises(InputError, match="one prompt"):
        attribution_graph(model, transcoders, two)
    padded = Tokens(two.ids[:1], torch.zeros_like(two.mask[:1]), two.bos[:1])
    with pytest.raises(InputError, match="without padding"):
        attribution_graph(model, transcoders, padded)
    with pytest.raises(InputError, match="one token of this model"):
        attribution_graph(model, transcoders, PROMPT, answers=[" Paris and Rome"])
    with pytest.raises(InputError, match="no node 99999"):
        graph.inputs(99_999)
    with pytest.raises(InputError, match="no node"):
        graph.outputs(1.5)
    with pytest.raises(InputError, match="is no logit"):
        graph.effects(0)
    for share in (1.5, -0.1, "most", True):
        with pytest.raises(InputError, match="a share from 0 to 1"):
            graph.prune(share)
    with pytest.raises(InputError, match="kind of node"):
        graph.strongest(3, "neuron")
    token = int(graph.nodes.index[graph.nodes["kind"] == "token"][0])
    with pytest.raises(InputError, match="only latents"):
        logits_without(model, transcoders, graph, [[token]])
    everything = graph.nodes.index[graph.nodes["kind"] == "latent"].tolist()
    with pytest.raises(InputError, match="only 0 other latents"):
        alike(graph, everything)
    with pytest.raises(InputError, match="no latent 5000"):
        describe_latents(model, transcoders, [(0, 5000)], ["Paris"])


def test_answers_can_be_chosen(model, transcoders):
    made = attribution_graph(model, transcoders, PROMPT, answers=[" Paris", " Rome"])
    logits = made.nodes[made.nodes["kind"] == "logit"]
    assert logits["name"].tolist() == [" Paris", " Rome"]
    assert logits["value"].tolist() == sorted(logits["value"], reverse=True)
