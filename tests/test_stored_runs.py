"""The runs of chapter 4: each setting is one row, the stored files are what was written, and the controls control."""

import json
import shutil

import pandas as pd
import pytest
import torch
from torch import nn

from solutions.analysis import by_sae_lens, sweeps
from solutions.errors import InputError
from solutions.sae import Plan, TensorSource, encode, train
from solutions.targets import get_target


def test_every_setting_is_another_row_and_has_three_seeds():
    settings = sweeps.settings()
    keys = [s.key for s in settings]
    assert len(set(keys)) == len(keys)
    without_seed = pd.Series([k[:4] for k in keys]).value_counts()
    assert set(without_seed) == {len(sweeps.SEEDS)} and len(sweeps.SEEDS) >= 3
    assert all(s.plan.seed == s.seed for s in settings)
    base = [s for s in settings if s.key[:4] == ("sparsity", "topk", "k", str(sweeps.K))]
    assert len(base) == len(sweeps.SEEDS)


def test_a_knob_moves_one_thing_only():
    for setting in sweeps.settings():
        if setting.group == "knob":
            changed = {n for n, v in setting.plan.as_dict().items() if v != sweeps.BASE.as_dict()[n]} - {"seed"}
            changed |= {"width"} if setting.width != sweeps.WIDTH else set()
            assert changed == {setting.knob} and setting.hyper == {"k": sweeps.K}


def test_the_stored_table_is_whole_and_has_a_row_for_every_setting():
    runs = sweeps.stored_runs()
    known = {s.key for s in sweeps.settings()}
    rows = [(r.group, r.architecture, r.knob, r.value, r.seed) for r in runs.table.itertuples()]
    assert len(set(rows)) == len(rows) and set(rows) == known
    assert runs.about["target"] == get_target("smallworld").name and set(runs.about["baselines"]) >= {"token lookup"}
    measures = runs.table[["l0", "ev", "delta_ce", "concept_f1", "bias", "silent"]]
    assert measures.notna().all().all() and (measures["ev"] < 1).all() and (measures["l0"] > 0).all()
    topk = runs.sparsity().query("architecture == 'topk'")
    assert (topk["l0"] <= topk["value"] + 1e-6).all()


def test_the_base_stands_among_the_values_of_every_knob():
    runs = sweeps.stored_runs()
    knobs, n = runs.knobs(), len(runs.base())
    for knob, value in sweeps.AT_BASE.items():
        here = knobs[knobs["knob"] == knob]
        assert (here["value"] == value).sum() == n
        assert here["value"].is_unique or here["value"].nunique() > 1


def test_what_is_written_is_read_and_what_was_changed_is_named(tmp_path):
    shared = {"architecture": "topk", "seed": 0}
    rows = [shared | {"group": "control", "knob": "control", "value": "frozen decoder", "ev": 0.5},
            shared | {"group": "sparsity", "knob": "k", "value": "16", "ev": 0.123456789}]
    sweeps.write_runs(rows, {"target": "x"}, tmp_path)
    runs = sweeps.stored_runs(tmp_path)
    assert runs.about["target"] == "x" and list(runs.controls()["value"]) == ["frozen decoder"]
    assert list(runs.sparsity()["value"]) == [16.0] and list(runs.sparsity()["ev"]) == [0.12346]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs.csv", "runs.json"]
    table = tmp_path / "runs.csv"
    table.write_text(table.read_text().replace("0.5", "0.9"))
    with pytest.raises(InputError, match=r"runs.csv is not the table"):
        sweeps.stored_runs(tmp_path)
    table.unlink()
    with pytest.raises(InputError, match="cannot read the stored runs.*solutions.analysis.sweeps"):
        sweeps.stored_runs(tmp_path)


def small_source(n=2000, d=12):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    return TensorSource(x, hook="somewhere", about={"model_name": "none", "context_size": 8, "prepend_bos": True})


def test_a_frozen_decoder_stays_and_the_encoder_moves():
    sae = sweeps.FrozenDecoder(12, 24, k=3, seed=0)
    trained = train(sae, small_source(), Plan(n_tokens=1500, batch_size=100, lr=1e-2), progress=False).sae
    assert torch.allclose(trained.W_dec, sae.W_dec, atol=1e-6)
    assert (trained.W_enc - sae.W_enc).abs().max() > 0.01


def test_shuffled_weights_are_the_same_numbers_elsewhere():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    sweeps.shuffle_weights(model, seed=3)
    weight = model[0].weight
    assert not torch.equal(weight, before["0.weight"])
    assert torch.equal(weight.flatten().sort().values, before["0.weight"].flatten().sort().values)
    assert torch.equal(model[0].bias, before["0.bias"]) and torch.equal(model[1].weight, before["1.weight"])


def test_sae_lens_trains_on_our_batches_and_opens_here(tmp_path):
    torch.manual_seed(5)
    source, plan = small_source(), Plan(n_tokens=3000, batch_size=100, lr=1e-2)
    sae = by_sae_lens.train_with_sae_lens(source, plan, d_sae=24, k=3, folder=tmp_path)
    assert (sae.cfg.d_in, sae.cfg.d_sae, sae.cfg.metadata.hook_name) == (12, 24, "somewhere")
    z = encode(sae, source.x[:50])
    assert (z > 0).sum(1).max() <= 3
    error = (sae.decode(z) - source.x[:50]).square().sum()
    assert error < (source.x[:50] - source.x.mean(0)).square().sum()  # it takes the activations as they are


def test_the_stored_sae_opens_and_a_changed_one_is_named(tmp_path):
    sae = by_sae_lens.stored_sae()
    assert sae.cfg.architecture() == "topk" and sae.cfg.d_in == get_target("smallworld").d_in
    assert sae.cfg.metadata.hook_name == get_target("smallworld").hook
    copy = tmp_path / "copy"
    shutil.copytree(by_sae_lens.STORED, copy)
    config = json.loads((copy / "cfg.json").read_text())
    (copy / "cfg.json").write_text(json.dumps(config | {"k": 1}))
    with pytest.raises(InputError, match="cfg.json in 'copy' was changed"):
        by_sae_lens.stored_sae(copy)
    (copy / "checksums.json").unlink()
    with pytest.raises(InputError, match="cannot read the SAE in 'copy'"):
        by_sae_lens.stored_sae(copy)
