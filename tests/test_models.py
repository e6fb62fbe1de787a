"""Loading, looking inside, extracting, predicting and editing, on a tiny random model."""

import math
from dataclasses import replace

import pytest
import torch
from hub_cache import make_model, tiny_model, tiny_target
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from solutions.data import Tokens, tokenize
from solutions.errors import InputError, ModelNotAvailable
from solutions.models import (
    activation_statistics,
    describe_model,
    extract,
    generate,
    hook_points,
    load_model,
    loss,
    next_token_loss,
    next_tokens,
    pick_device,
    run_with_edit,
    unembedding,
)

SENTENCES = ["The Eiffel Tower is in Paris.", "Hi", "def add(x, y):"]
HOOK = "blocks.1.hook_resid_pre"
CENTRED = {"center_writing_weights": True}


@pytest.fixture(params=["gpt2", "llama"])
def model(request):
    return tiny_model(request.param)


def test_logits_are_hugging_faces_in_float32(model, request):
    """The files hold half precision; the model must not."""
    architecture = request.node.callspec.params["model"]
    theirs = AutoModelForCausalLM.from_pretrained(tiny_target(architecture).model, dtype=torch.float32)
    assert {p.dtype for p in model.original_model.parameters()} == {torch.float32}
    ids = tokenize(model, SENTENCES[0]).ids
    with torch.no_grad():
        torch.testing.assert_close(model(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)
        assert model(ids).dtype == torch.float32


def test_the_description_has_the_real_sizes(model):
    table = describe_model(model)["value"]
    assert table["layers"] == 3 and table["context (tokens)"] == 32 and table["dtype"] == "float32"
    assert table["weight processing"] == "none"


def test_parameters_are_counted_once():
    theirs = AutoModelForCausalLM.from_pretrained(tiny_target().model)
    assert describe_model(tiny_model())["value"]["parameters"] == sum(p.numel() for p in theirs.parameters())


def test_processing_is_applied_and_recorded():
    target = tiny_target()
    centred = load_model(replace(target, processing=CENTRED), "cpu")
    tokens = tokenize(centred, SENTENCES)
    raw, new = extract(tiny_model(), tokens, HOOK)[HOOK], extract(centred, tokens, HOOK)[HOOK]
    assert raw.mean(dim=-1).abs().max() > 1e-2
    torch.testing.assert_close(new, raw - raw.mean(dim=-1, keepdim=True), rtol=1e-3, atol=1e-4)
    assert describe_model(centred)["value"]["weight processing"] == "center_writing_weights"
    assert loss(centred, tokens) == pytest.approx(loss(tiny_model(), tokens), abs=1e-4)


def test_the_course_hook_points_are_listed_in_order(model):
    table = hook_points(model)
    assert {"embed", "resid_pre", "resid_post", "attn_out", "mlp_out", "pattern", "z"} <= set(table["kind"])
    assert table["name"].is_unique and table["layer"].tolist()[:-1] == sorted(table["layer"].tolist()[:-1])
    assert set(table[table["kind"] == "mlp_out"]["layer"]) == {0, 1, 2}
    assert "ln_final.hook_normalized" == table["name"].iloc[-1]
    assert (table["holds"] != "").all()


def test_every_listed_hook_point_fires(model):
    names = hook_points(model)["name"].tolist()
    acts = extract(model, SENTENCES[0], names)
    assert set(acts) == set(names) and all(x.isfinite().all() or "scores" in name for name, x in acts.items())


def test_hook_points_by_pattern(model):
    names = hook_points(model, r"blocks\.1\.hook_resid")["name"]
    assert set(names) == {f"blocks.1.hook_resid_{place}" for place in ("pre", "mid", "post")}
    with pytest.raises(InputError, match="not a regular expression"):
        hook_points(model, "(")


def test_activations_are_per_token_and_independent_of_batching(model):
    hooks = [HOOK, "blocks.0.hook_mlp_out", "ln_final.hook_normalized"]
    tokens = tokenize(model, SENTENCES)
    acts = extract(model, tokens, hooks)
    assert set(acts) == set(hooks) and acts[HOOK].shape == (*tokens.ids.shape, 16)
    for hook, x in extract(model, tokens, hooks, batch_size=1).items():
        torch.testing.assert_close(x[tokens.mask], acts[hook][tokens.mask], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(extract(model, SENTENCES, HOOK)[HOOK], acts[HOOK])


def test_stopping_early_changes_nothing(model):
    last = "blocks.2.hook_resid_post"
    together = extract(model, SENTENCES, [HOOK, last])
    torch.testing.assert_close(extract(model, SENTENCES, HOOK)[HOOK], together[HOOK])


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("blocks.1.hook_resid_pree", "Did you mean 'blocks.1.hook_resid_pre'"),
        ("block.1.hook_mlp_out", "Did you mean 'blocks.1.hook_mlp_out'"),
        ("blocks.7.hook_resid_pre", "blocks 0 to 2"),
        ("nonsense", "hook_points"),
        ("blocks.1.hook_mlp_in", "switched off"),
        (7, "unknown hook point 7"),
        ([], "no hook points given"),
    ],
)
def test_mistyped_hooks_are_never_ignored(hook, said):
    with pytest.raises(InputError, match=said):
        extract(tiny_model(), "Hi", hook)
    if hook:
        with pytest.raises(InputError, match=said):
            run_with_edit(tiny_model(), "Hi", hook, lambda x: x)


def test_statistics_leave_out_bos_and_padding():
    tokens = tokenize(tiny_model(), SENTENCES)
    acts = torch.ones(*tokens.ids.shape, 4)
    acts[tokens.bos] = 1000.0
    acts[~tokens.mask] = -1000.0
    kept = tokens.content.nonzero()
    acts[kept[0, 0], kept[0, 1]] = torch.tensor([0.0, 1.0, 2.0, 1.0])
    row = activation_statistics(acts, tokens).loc["activations"]
    n = tokens.n_content
    assert row["n_tokens"] == n and row["n_left_out"] == tokens.ids.numel() - n
    assert row["mean"] == pytest.approx(1.0) and (row["min"], row["max"]) == (0.0, 2.0)
    assert row["std"] == pytest.approx(math.sqrt(2 / (4 * n - 1)), rel=1e-5)
    assert row["mean_norm"] == pytest.approx((2 * (n - 1) + math.sqrt(6)) / n, rel=1e-5)
    assert row["bos_norm"] == pytest.approx(2000.0)
    assert row["near_zero"] == pytest.approx(1 / (4 * n))


def test_statistics_refuse_what_does_not_fit():
    tokens = tokenize(tiny_model(), SENTENCES)
    with pytest.raises(InputError, match="first two axes"):
        activation_statistics(torch.ones(1, 2, 4), tokens)
    with pytest.raises(InputError, match=r"\[batch, pos, d_model\]|\[batch, pos, d\]"):
        activation_statistics(torch.ones(2, 4), tokens)
    with pytest.raises(InputError, match="Tokens from `tokenize`"):
        activation_statistics(torch.ones(1, 2, 4), tokens.ids)
    bos = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(InputError, match="nothing but BOS"):
        activation_statistics(torch.ones(1, 1, 4), Tokens(torch.zeros(1, 1, dtype=torch.long), bos, bos))


def test_next_tokens_are_the_models_probabilities(model):
    table = next_tokens(model, SENTENCES[0], k=400)
    assert table["probability"].sum() == pytest.approx(1.0, abs=1e-4)
    assert table["probability"].is_monotonic_decreasing and table.index[0] == 1
    with torch.no_grad():
        best = model(tokenize(model, SENTENCES[0]).ids)[0, -1].argmax()
    assert table["token"].iloc[0] == model.tokenizer.decode([best])
    assert len(next_tokens(model, "Hi")) == 10 and len(next_tokens(model, "Hi", k=10**6)) == 400


def test_generation_is_seeded_and_goes_past_the_context(model):
    first = generate(model, "Hi", 40, seed=1)
    assert first == generate(model, "Hi", 40, seed=1) and first.startswith("Hi")
    assert first != generate(model, "Hi", 40, seed=2)
    greedy = generate(model, "Hi", 1, temperature=0)
    assert greedy in ("Hi" + next_tokens(model, "Hi", 1)["token"].iloc[0], "Hi")
    before = torch.get_rng_state()
    generate(model, "Hi", 3)
    assert torch.equal(before, torch.get_rng_state())


def test_loss_is_the_cross_entropy_of_real_tokens(model):
    tokens = tokenize(model, SENTENCES)
    with torch.no_grad():
        alone = [next_token_loss(model(t.ids), t) for t in (tokenize(model, s) for s in SENTENCES)]
    assert loss(model, tokens) == pytest.approx(torch.cat(alone).mean().item(), abs=1e-4)
    assert len(torch.cat(alone)) == tokens.n_content


def test_loss_of_known_predictions():
    ids = torch.tensor([[0, 1, 2]])
    yes = torch.ones(1, 3, dtype=torch.bool)
    tokens = Tokens(ids, yes, yes & False)
    assert next_token_loss(torch.zeros(1, 3, 5), tokens).tolist() == pytest.approx([math.log(5)] * 2)
    with pytest.raises(InputError, match="no next token"):
        next_token_loss(torch.zeros(1, 1, 5), Tokens(ids[:, :1], yes[:, :1], yes[:, :1]))


def test_editing(model):
    tokens = tokenize(model, SENTENCES)
    with torch.no_grad():
        clean = model(tokens.ids)
        torch.testing.assert_close(run_with_edit(model, tokens, HOOK, lambda x: x), clean)
        zeroed = run_with_edit(model, tokens, HOOK, torch.zeros_like)
        assert (zeroed - clean).abs().max() > 1e-2
        assert torch.equal(model(tokens.ids), clean), "the edit must not stay behind"
    for wrong in (lambda x: x[:, :1], lambda x: None):
        with pytest.raises(InputError, match="edit must return a tensor of shape"):
            run_with_edit(model, tokens, HOOK, wrong)
    with torch.no_grad():
        assert torch.equal(model(tokens.ids), clean), "nor after an error"


@pytest.mark.parametrize("prompt", ["", "   ", None, 3])
def test_empty_prompts_are_refused(prompt):
    for ask in (next_tokens, generate):
        with pytest.raises(InputError, match="prompt"):
            ask(tiny_model(), prompt)


def test_numbers_out_of_range_are_refused():
    model = tiny_model()
    with pytest.raises(InputError, match="temperature"):
        generate(model, "Hi", temperature=-1)
    with pytest.raises(InputError, match="max_new_tokens"):
        generate(model, "Hi", 0)
    with pytest.raises(InputError, match="k must be"):
        next_tokens(model, "Hi", 0)
    with pytest.raises(InputError, match="batch_size"):
        extract(model, "Hi", HOOK, batch_size=0)
    ones = torch.ones(1, 40, dtype=torch.bool)
    with pytest.raises(InputError, match="0 to 399"):
        extract(model, Tokens(torch.full((1, 40), 400), ones, ones), HOOK)
    with pytest.raises(InputError, match="at most 32"):
        extract(model, Tokens(torch.full((1, 40), 3), ones, ones), HOOK)


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    for wrong in ("gpu", "cuda:99", "meta", 3.5):
        with pytest.raises(InputError):
            pick_device(wrong)
    with pytest.raises(InputError, match="must be a Target .*str: 'smallworld'"):
        load_model("smallworld")


def test_a_folder_that_is_no_model(tmp_path):
    target = replace(tiny_target(), model=str(tmp_path))
    with pytest.raises(ModelNotAvailable, match="config.json"):
        load_model(target)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(ModelNotAvailable, match="expected model.safetensors.*Pickles are not loaded"):
        load_model(target)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelNotAvailable, match="not a model TransformerLens can open"):
        load_model(target)


def test_a_truncated_model_is_named(tmp_path):
    make_model(tmp_path)
    file = tmp_path / "model.safetensors"
    size = file.stat().st_size
    with open(file, "r+b") as content:
        content.truncate(size - 100)
    with pytest.raises(
        ModelNotAvailable, match=f"model.safetensors: expected {size:,} bytes, found {size - 100:,}"
    ):
        load_model(replace(tiny_target(), model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "gp')
    with pytest.raises(ModelNotAvailable, match="config.json: it is not valid JSON"):
        load_model(replace(tiny_target(), model=str(tmp_path)))


# ------------------------------------------------------------------ unembedding

def test_unembedding_is_what_the_model_does_to_a_small_step_in_the_last_stream(model):
    """Up to one factor, the length of the stream. The step keeps that length, and here the weights are random."""
    hook = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = model.ln_final.weight
        was = weight.clone()
        weight.copy_(1 + torch.rand(len(weight), generator=dice))
    try:
        tokens = tokenize(model, SENTENCES[:1])
        stream = extract(model, tokens, hook)[hook][0, -1]
        layer_norm = str(model.cfg.normalization_type).startswith("LN")
        centred = stream - stream.mean() if layer_norm else stream
        step = torch.randn(len(stream), generator=dice)
        step = step - centred * (step @ centred) / (centred @ centred)
        size = 0.003 * stream.norm() / step.norm()
        before = run_with_edit(model, tokens, hook, lambda x: x)[0, -1]
        after = run_with_edit(model, tokens, hook, lambda x: x + size * step)[0, -1]
        promised = step @ unembedding(model)
        assert torch.cosine_similarity(after - before, promised, dim=0) > 0.999
        constant = (torch.ones(len(stream)) @ unembedding(model)).abs().max()
        assert (constant < 1e-4) == layer_norm, "LayerNorm takes off what all dimensions share, RMSNorm does not"
    finally:
        with torch.no_grad():
            weight.copy_(was)
