"""Text, tokens, masks, and activations on disk."""

import json
from dataclasses import replace

import pytest
import torch
from hub_cache import tiny_model, tiny_target

from solutions.data import (
    DamagedFile,
    Tokens,
    load_activations,
    load_texts,
    save_activations,
    str_tokens,
    tokenize,
)
from solutions.errors import InputError
from solutions.models import extract

SENTENCES = ["The Eiffel Tower is in Paris.", "Hi", "def add(x, y):"]


def test_texts_are_the_same_every_time_and_differ_by_split():
    target = tiny_target()
    texts = load_texts(target, 5)
    assert len(texts) == 5 and texts == load_texts(target, 5)
    assert texts == load_texts(target, 8)[:5]
    assert texts != load_texts(target, 5, split="probe")
    assert all(text.text.strip() and text.kind for text in texts)


def test_texts_of_one_kind():
    assert {text.kind for text in load_texts(tiny_target(), 6, kinds=["french"])} == {"french"}


def test_bad_requests_for_texts():
    with pytest.raises(InputError, match="Did you mean 'french'"):
        load_texts(tiny_target(), 3, kinds=["frensh"])
    with pytest.raises(InputError, match="Known: train, probe, test"):
        load_texts(tiny_target(), 3, split="dev")
    for n in (0, -1, 2.5, "3", True):
        with pytest.raises(InputError, match="n must be a whole number"):
            load_texts(tiny_target(), n)


def test_a_text_of_the_hub_that_cannot_be_reached_is_replaced_and_says_so(capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    far = replace(tiny_target(), text="someone/web-pages")
    assert load_texts(far, 4) == load_texts(tiny_target(), 4)
    said = capsys.readouterr().out
    assert (
        "the text 'someone/web-pages' has to be downloaded" in said
        and "Reading the embedded text instead" in said
    )


def test_a_text_of_the_hub_is_streamed(monkeypatch):
    rows = [{"text": " one\n"}, {"text": "  "}, {"text": "two"}, {"text": "three"}]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("solutions.hub.hub_answers", lambda: True)
    monkeypatch.setattr("datasets.load_dataset", lambda name, split, streaming: iter(rows))
    far = replace(tiny_target(), text="someone/web-pages")
    assert [tuple(text) for text in load_texts(far, 2)] == [("one", far.text), ("two", far.text)]
    assert load_texts(far, 2, kinds=["french"])[0].kind == "french"


def test_masks_come_from_lengths_not_from_ids():
    """Padding and BOS are the same token here, as in GPT-2."""
    model = tiny_model()
    assert model.tokenizer.pad_token_id == model.tokenizer.bos_token_id == 0
    tokens = tokenize(model, SENTENCES)
    lengths = [len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in SENTENCES]
    assert tokens.ids.shape == (3, max(lengths)) and tokens.ids.dtype == torch.int64
    assert tokens.mask.sum(dim=1).tolist() == lengths
    assert tokens.bos.sum(dim=1).tolist() == [1, 1, 1] and bool(tokens.bos[:, 0].all())
    assert tokens.n_content == sum(lengths) - 3
    assert not (tokens.content & tokens.bos).any()


def test_exactly_one_bos_and_none_when_not_wanted():
    model = tiny_model()
    assert tokenize(model, "Hi").ids[0].tolist().count(0) == 1
    without = tokenize(model, "Hi", prepend_bos=False)
    assert 0 not in without.ids[0].tolist() and not without.bos.any()
    assert torch.equal(tokenize(model, "Hi").ids[0, 1:], without.ids[0])


def test_a_bos_written_in_the_text_is_content():
    tokens = tokenize(tiny_model(), "Hi<|bos|>there")
    assert tokens.ids[0].tolist().count(0) == 2
    assert tokens.bos.sum() == 1


def test_long_texts_are_cut_and_counted():
    model = tiny_model()
    tokens = tokenize(model, ["word " * 100, "Hi"], context_size=10)
    full = len(model.tokenizer("word " * 100, add_special_tokens=False)["input_ids"]) + 1
    assert tokens.ids.shape[1] == 10 and tokens.n_cut == full - 10
    assert tokenize(model, "word " * 100).ids.shape[1] == tiny_target().context_size


def test_str_tokens_line_up_with_ids():
    model = tiny_model()
    tokens = tokenize(model, SENTENCES[0])
    words = str_tokens(model, SENTENCES[0])
    assert len(words) == tokens.ids.shape[1] and words[0] == "<|bos|>"
    assert "".join(words[1:]) == SENTENCES[0]
    assert str_tokens(model, tokens.ids[0]) == words
    assert str_tokens(model, SENTENCES[0], prepend_bos=False) == words[1:]


def test_padding_changes_nothing():
    model = tiny_model()
    together, alone = tokenize(model, SENTENCES), tokenize(model, SENTENCES[1])
    hook = "blocks.2.hook_resid_post"
    n = alone.ids.shape[1]
    torch.testing.assert_close(
        extract(model, together, hook)[hook][1, :n],
        extract(model, alone, hook)[hook][0],
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("texts", ["", "  \n", [], ["fine", ""], 3, None, [1], b"bytes", [None]])
def test_bad_texts_are_refused(texts):
    with pytest.raises(InputError, match="text"):
        tokenize(tiny_model(), texts)


def test_any_typed_text_works():
    assert tokenize(tiny_model(), "🙂 日本語 \x00 é").n_content > 0


def test_bad_contexts_are_refused():
    with pytest.raises(InputError, match="at most 32"):
        tokenize(tiny_model(), "Hi", context_size=33)
    with pytest.raises(InputError, match="whole number"):
        tokenize(tiny_model(), "Hi", context_size=0)


def test_tokens_of_the_wrong_form_are_refused():
    ids, mask = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool)
    assert len(Tokens(ids, mask, mask)[:1]) == 1
    with pytest.raises(InputError, match=r"\[batch, pos\]"):
        Tokens(ids[0], mask, mask)
    with pytest.raises(InputError, match="token ids"):
        Tokens(ids.float(), mask, mask)
    with pytest.raises(InputError, match="mask must be torch.bool"):
        Tokens(ids, mask.long(), mask)
    with pytest.raises(InputError, match="bos must be"):
        Tokens(ids, mask, mask[:, :2])
    with pytest.raises(InputError, match="range of rows"):
        Tokens(ids, mask, mask)[0]


def saved(tmp_path):
    target, model = tiny_target(), tiny_model()
    tokens = tokenize(model, SENTENCES)
    acts = extract(model, tokens, [target.hook, "blocks.0.attn.hook_pattern"])
    return save_activations(tmp_path / "acts", acts, tokens, target), acts, tokens


def test_activations_survive_the_disk(tmp_path):
    path, acts, tokens = saved(tmp_path)
    back = load_activations(path)
    assert back.acts.keys() == acts.keys()
    assert all(torch.equal(back.acts[hook], acts[hook]) for hook in acts)
    assert torch.equal(back.tokens.ids, tokens.ids) and torch.equal(back.tokens.mask, tokens.mask)
    assert back.manifest["hooks"][tiny_target().hook]["shape"] == list(acts[tiny_target().hook].shape)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["acts"]


def test_saving_again_replaces(tmp_path):
    path, acts, tokens = saved(tmp_path)
    hook = tiny_target().hook
    save_activations(path, {hook: acts[hook] * 2}, tokens, tiny_target())
    assert list(load_activations(path).acts) == [hook]
    assert torch.equal(load_activations(path).acts[hook], acts[hook] * 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["acts"]


def test_damage_is_named(tmp_path):
    path, _, _ = saved(tmp_path)
    file = path / "activations.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    expected = json.loads((path / "manifest.json").read_text())["files"][file.name]["sha256"]
    with pytest.raises(DamagedFile, match=f"activations.safetensors.*{expected[:16]}"):
        load_activations(path)
    file.unlink()
    with pytest.raises(DamagedFile, match="no file"):
        load_activations(path)
    with pytest.raises(InputError, match="no manifest.json"):
        load_activations(tmp_path / "elsewhere")


def test_a_failed_save_leaves_nothing(tmp_path):
    _, acts, tokens = saved(tmp_path)
    with pytest.raises(InputError, match="has 3 rows, the tokens have 2"):
        save_activations(tmp_path / "other", acts, tokens[:2], tiny_target())
    with pytest.raises(InputError, match="at least one hook"):
        save_activations(tmp_path / "other", {}, tokens, tiny_target())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["acts"]
