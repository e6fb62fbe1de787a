"""Training the embedded models: what is learned, what is saved, and that an interruption changes nothing."""

import numpy as np
import pytest
import torch

from solutions.smallworld import train_model as tm
from solutions.smallworld.corpus import SEEDS, documents
from solutions.smallworld.tokenizer import load_tokenizer, token_rows, train_tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small tokenizer and a few rows of text."""
    folder = tmp_path_factory.mktemp("world")
    train_tokenizer((doc.text for doc in documents(SEEDS["train"], 600)), folder, vocabulary=400)
    return folder, token_rows(load_tokenizer(folder), SEEDS["train"], 40, length=32)


class Interruption(Exception):
    """The machine goes down."""


def _weights(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(world, tmp_path, architecture):
    tokenizer, rows = world
    whole = tm.train(tmp_path / "whole", architecture, rows, 6, tokenizer, seed=3)

    def cut(model, step):
        if step == 3:
            raise Interruption

    with pytest.raises(Interruption):
        tm.train(tmp_path / "cut", architecture, rows, 6, tokenizer, seed=3, report=cut, report_every=0,
                 checkpoint_every=0)
    assert (tmp_path / "cut.checkpoint.safetensors").exists()
    resumed = tm.train(tmp_path / "cut", architecture, rows, 6, tokenizer, seed=3)
    a, b = _weights(whole), _weights(resumed)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert sorted(p.name for p in resumed.iterdir()) == sorted(
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
    assert not (tmp_path / "cut.checkpoint.safetensors").exists()


def test_late_rows_are_read_from_their_step_on_also_after_an_interruption(world, tmp_path):
    tokenizer, rows = world
    late = {"late_rows": rows[20:], "late_from": 2}
    whole = tm.train(tmp_path / "whole", "gpt2", rows[:20], 5, tokenizer, **late)

    def cut(model, step):
        if step == 3:
            raise Interruption

    with pytest.raises(Interruption):
        tm.train(tmp_path / "cut", "gpt2", rows[:20], 5, tokenizer, report=cut, report_every=0, checkpoint_every=0,
                 **late)
    a, b = _weights(whole), _weights(tm.train(tmp_path / "cut", "gpt2", rows[:20], 5, tokenizer, **late))
    assert all(torch.equal(a[name], b[name]) for name in a)
    without = _weights(tm.train(tmp_path / "without", "gpt2", rows[:20], 5, tokenizer))
    assert not all(torch.equal(a[name], without[name]) for name in a)
    always = tm.train(tmp_path / "always", "gpt2", rows[:20], 2, tokenizer, late_rows=rows[20:], late_from=0)
    there = _weights(tm.train(tmp_path / "there", "gpt2", rows[20:], 2, tokenizer))
    assert all(torch.equal(x, there[name]) for name, x in _weights(always).items())


def test_a_training_can_begin_with_a_trained_model(world, tmp_path):
    tokenizer, rows = world
    first = tm.train(tmp_path / "first", "llama", rows, 3, tokenizer)
    still = tm.train(tmp_path / "still", "llama", rows, 1, tokenizer, start=first,
                     schedule=tm.Schedule(muon=0.0, adam=0.0, weight_decay=0.0))
    a, b = _weights(first), _weights(still)
    assert all(torch.equal(a[name], b[name]) for name in a), "at rates of zero it stays what it was"


def test_muon_steps_are_those_of_torch_up_to_its_rounding():
    """torch's own Muon works in bfloat16, which keeps two to three digits."""
    torch.manual_seed(0)
    shapes = [(6, 10), (12, 5), (6, 10)]
    start = [torch.randn(shape) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(x.clone()) for x in start] for _ in range(2))
    a = tm.Muon(ours, lr=0.02, weight_decay=0.1)
    b = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for x, p, q in zip(start, ours, theirs, strict=True):
        assert (p - q).norm() < 0.02 * (q - x).norm()


def test_orthogonal_brings_every_singular_value_near_one():
    torch.manual_seed(0)
    for shape in ((3, 8, 20), (2, 20, 8)):
        singular = torch.linalg.svdvals(tm.orthogonal(torch.randn(shape)))
        assert singular.min() > 0.6 and singular.max() < 1.3


def test_the_loss_falls(world, tmp_path):
    tokenizer, rows = world
    ids = torch.from_numpy(rows.astype(np.int64))

    def loss(folder):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            return tm._loss(model, ids, ids, half=False).item()

    before = loss(tm.train(tmp_path / "short", "gpt2", rows, 1, tokenizer))
    after = loss(tm.train(tmp_path / "long", "gpt2", rows, 60, tokenizer))
    assert after < 0.8 * before


def test_drills_have_targets_only_where_the_pattern_repeats():
    words = torch.arange(10, 200)
    ids, targets = tm.drill_rows(words, 5, 64, torch.Generator().manual_seed(0))
    for row, target in zip(ids, targets, strict=True):
        asked = (target != -100).nonzero().flatten()
        assert len(asked) >= 30
        first = int(asked[0])
        period = first - 1
        assert torch.equal(row[1 + period:], row[1:len(row) - period])
        assert torch.equal(target[asked], row[asked])


def test_one_step_back_is_the_same_rotation_everywhere():
    """Sinusoids: the dot product of two positions depends on their distance alone."""
    positions = tm.sinusoids(64, 32)
    similarity = positions @ positions.T
    for distance in (1, 5, 20):
        assert torch.allclose(similarity.diagonal(distance), similarity[0, distance].expand(64 - distance), atol=1e-4)


def test_schedule_ends_at_zero_and_drills_end_earlier():
    schedule = tm.Schedule()
    assert schedule.rate(0, 1000) < 0.02
    assert schedule.rate(300, 1000) == 1
    assert schedule.rate(999, 1000) < 0.01
    assert schedule.drill_share(0, 1000) == schedule.drills
    assert schedule.drill_share(int(schedule.drills_until * 1000), 1000) == 0


def test_bad_requests_are_named(world, tmp_path):
    tokenizer, rows = world
    with pytest.raises(ValueError, match="'rnn'"):
        tm.train(tmp_path / "x", "rnn", rows, 1, tokenizer)
    with pytest.raises(ValueError, match="rows"):
        tm.train(tmp_path / "x", "gpt2", rows[:2], 1, tokenizer)
