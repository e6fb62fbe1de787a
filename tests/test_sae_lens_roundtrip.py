"""What is trained here opens in SAELens and encodes the same, and what SAELens trained opens here."""

import json

import pytest
import torch

from solutions.errors import InputError
from solutions.sae import (
    as_sae_lens,
    encode,
    from_sae_lens,
    load_sae_from_disk,
    make_sae,
    preflight,
    save_sae,
)
from solutions.sae.architectures import ARCHITECTURES

D, F, N = 12, 40, 256
ABOUT = dict(hook="blocks.1.hook_resid_pre", model_name="tiny", context_size=16, prepend_bos=True)
CLOSE = dict(atol=1e-5, rtol=1e-5)

#: Every architecture as an SAE, and what SAELens calls it.
SAES = [
    ("relu", {"l1": 0.3}, "standard"),
    ("relu", {"l1": 0.3, "tied": True}, "standard"),
    ("relu", {"l1": 0.3, "unit_norm": False}, "standard"),
    ("relu", {"l1": 0.3, "subtract_b_dec": False}, "standard"),
    ("topk", {"k": 5}, "topk"),
    ("batchtopk", {"k": 4.5}, "jumprelu"),
    ("jumprelu", {"l0_penalty": 0.3}, "jumprelu"),
    ("gated", {"l1": 0.3}, "gated"),
    ("matryoshka", {"k": 5, "prefixes": [10, 20, F]}, "jumprelu"),
]
#: And as a transcoder.
TRANSCODERS = [
    ("relu", {"l1": 0.3}, 7, "transcoder"),
    ("relu", {"l1": 0.3}, D, "transcoder"),
    ("jumprelu", {"l0_penalty": 0.3}, 7, "jumprelu_transcoder"),
    ("batchtopk", {"k": 5}, 7, "jumprelu_transcoder"),
    ("matryoshka", {"k": 5}, 7, "jumprelu_transcoder"),
    ("topk", {"k": 5}, D, "topk"),
    ("gated", {"l1": 0.3}, D, "gated"),
]


def data(seed=0, width=D):
    """Activations that are neither centred nor of norm sqrt(width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, width, generator=generator) * 4 + 3 * torch.randn(width, generator=generator)


def trained(architecture, hyper, d_out=None, steps=40):
    """An SAE after some steps on scaled activations, its scale folded back."""
    sae = make_sae(architecture, D, F, d_out=d_out, seed=1, **hyper)
    x, target = data(), None if d_out is None else data(5, d_out)
    scale = D**0.5 / float(x.norm(dim=1).mean())
    out = scale if d_out is None else d_out**0.5 / float(target.norm(dim=1).mean())
    sae.initialise(x * scale, None if target is None else target * out)
    optimiser = torch.optim.Adam(sae.parameters(), 1e-2)
    for _ in range(steps):
        loss = sae.losses(x * scale, None if target is None else target * out).total
        optimiser.zero_grad()
        loss.backward()
        sae.before_step()
        optimiser.step()
        sae.after_step()
    sae.fold_scale(scale, out)
    return sae


@torch.no_grad()
def assert_same(ours, theirs, x):
    """The same encodings and the same reconstructions, and not all of them empty or full."""
    z = ours.encode(x)
    assert 0 < (z > 0).float().mean() < 0.9
    torch.testing.assert_close(z, theirs.encode(x), **CLOSE)
    assert torch.equal(z > 0, theirs.encode(x) > 0)
    torch.testing.assert_close(ours(x), theirs(x), **CLOSE)
    torch.testing.assert_close(ours.decode(z), theirs.decode(z), **CLOSE)


@pytest.mark.parametrize(("architecture", "hyper", "name"), SAES)
def test_a_trained_sae_opens_in_sae_lens_and_comes_back(architecture, hyper, name, tmp_path):
    ours = trained(architecture, hyper)
    folder = save_sae(ours, tmp_path / "sae", **ABOUT, dataset_path="made up")
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sae"]  # no half-written folder is left beside it

    theirs = load_sae_from_disk(folder, "cpu")
    assert theirs.cfg.architecture() == name
    about = theirs.cfg.metadata
    assert (about.hook_name, about.model_name, about.prepend_bos) == (ABOUT["hook"], "tiny", True)
    assert (about.context_size, about.dataset_path) == (16, "made up")
    x = data(seed=2)
    assert_same(ours, theirs, x)
    assert torch.equal(encode(theirs, x), theirs.encode(x).detach())

    back = from_sae_lens(theirs)
    assert type(back) is type(ours) and back.recipe() == ours.recipe()
    with torch.no_grad():
        torch.testing.assert_close(back.encode(x), ours.encode(x), **CLOSE)
        torch.testing.assert_close(back(x), ours(x), **CLOSE)


@pytest.mark.parametrize(("architecture", "hyper", "d_out", "name"), TRANSCODERS)
def test_a_transcoder_opens_in_sae_lens_and_comes_back(architecture, hyper, d_out, name, tmp_path):
    ours = trained(architecture, hyper, d_out)
    theirs = load_sae_from_disk(save_sae(ours, tmp_path / "t", **ABOUT, hook_name_out="elsewhere"), "cpu")
    assert theirs.cfg.architecture() == name and not theirs.cfg.apply_b_dec_to_input
    assert theirs.cfg.metadata.hook_name_out == "elsewhere"
    x = data(seed=2)
    assert ours(x).shape == (N, d_out)
    assert_same(ours, theirs, x)
    back = from_sae_lens(theirs)
    assert back.recipe() == ours.recipe() and back.transcoder
    with torch.no_grad():
        torch.testing.assert_close(back(x), ours(x), **CLOSE)


def test_every_architecture_is_covered():
    assert {row[0] for row in SAES} == {row[0] for row in TRANSCODERS} == set(ARCHITECTURES)


# ---- the other way: SAELens trains, saves, and ours opens


def sae_lens_trained(architecture, steps=30):
    """One of SAELens's own training SAEs after some steps, with its coefficients."""
    import sae_lens
    from sae_lens.saes.sae import TrainStepInput

    names = {
        "standard": ("StandardTrainingSAE", {"l1_coefficient": 0.3}),
        "gated": ("GatedTrainingSAE", {"l1_coefficient": 0.3}),
        "topk": ("TopKTrainingSAE", {"k": 5}),
        "jumprelu": ("JumpReLUTrainingSAE", {"l0_coefficient": 0.3, "jumprelu_init_threshold": 0.3}),
        "batchtopk": ("BatchTopKTrainingSAE", {"k": 5, "topk_threshold_lr": 0.3}),
        "matryoshka_batchtopk": (
            "MatryoshkaBatchTopKTrainingSAE",
            {"k": 5, "matryoshka_widths": [10, F], "topk_threshold_lr": 0.3},
        ),
    }
    name, settings = names[architecture]
    torch.manual_seed(0)
    sae = getattr(sae_lens, name)(getattr(sae_lens, name + "Config")(d_in=D, d_sae=F, **settings))
    optimiser = torch.optim.Adam(sae.parameters(), 1e-2)
    x = data()
    for step in range(steps):
        out = sae.training_forward_pass(
            TrainStepInput(
                sae_in=x,
                coefficients={"l1": 0.3, "l0": 0.3},
                dead_neuron_mask=None,
                n_training_steps=step,
                is_logging_step=False,
            )
        )
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
    return sae


@pytest.mark.parametrize(
    ("architecture", "ours"),
    [
        ("standard", "relu"),
        ("gated", "gated"),
        ("topk", "topk"),
        ("jumprelu", "jumprelu"),
        ("batchtopk", "jumprelu"),
        ("matryoshka_batchtopk", "jumprelu"),
    ],
)
def test_an_sae_that_sae_lens_trained_opens_here(architecture, ours, tmp_path):
    in_training = sae_lens_trained(architecture)
    in_training.save_inference_model(tmp_path / "theirs")
    theirs = load_sae_from_disk(tmp_path / "theirs", "cpu")
    opened = from_sae_lens(theirs)
    assert opened.architecture == ours
    x = data(seed=2)
    assert_same(opened, theirs, x)
    assert opened.unit_norm == (architecture in ("topk", "batchtopk", "matryoshka_batchtopk"))  # SAELens folds it

    # It can be trained further here, and saved again.
    optimiser = torch.optim.Adam(opened.parameters(), 1e-3)
    before = opened.losses(x).reconstruction.detach()
    for _ in range(20):
        optimiser.zero_grad()
        opened.losses(x).reconstruction.backward()
        opened.before_step()
        optimiser.step()
        opened.after_step()
    assert opened.losses(x).reconstruction < before
    assert_same(opened, load_sae_from_disk(save_sae(opened, tmp_path / "ours", **ABOUT), "cpu"), x)


def test_a_batchtopk_of_sae_lens_can_go_on_as_one(tmp_path):
    sae_lens_trained("batchtopk").save_inference_model(tmp_path)
    theirs = load_sae_from_disk(tmp_path, "cpu")
    opened = from_sae_lens(theirs, architecture="batchtopk", k=5)
    assert opened.architecture == "batchtopk" and opened.k == 5
    assert_same(opened, theirs, data(seed=2))
    with pytest.raises(InputError, match="'jumprelu' cannot become 'relu'.*batchtopk, jumprelu, matryoshka"):
        from_sae_lens(theirs, architecture="relu")
    theirs.threshold.data[0] += 1
    assert_same(from_sae_lens(theirs), theirs, data(seed=2))
    with pytest.raises(InputError, match="a threshold for each latent"):
        from_sae_lens(theirs, architecture="batchtopk", k=5)


def test_what_was_saved_here_can_be_opened_as_something_else_that_encodes_the_same(tmp_path):
    ours = trained("batchtopk", {"k": 4, "aux_weight": 0.5}, steps=5)
    theirs = load_sae_from_disk(save_sae(ours, tmp_path / "sae", **ABOUT), "cpu")
    as_jumprelu = from_sae_lens(theirs, architecture="jumprelu", l0_penalty=0.2)
    assert as_jumprelu.architecture == "jumprelu" and as_jumprelu.l0_penalty == 0.2
    assert_same(as_jumprelu, theirs, data(seed=2))
    again = from_sae_lens(theirs, k=6)
    assert (again.architecture, again.k, again.aux_weight) == ("batchtopk", 6, 0.5)


def test_a_topk_that_rescales_by_decoder_norms_keeps_its_encodings():
    import sae_lens

    torch.manual_seed(0)
    config = sae_lens.TopKSAEConfig(d_in=D, d_sae=F, k=5, rescale_acts_by_decoder_norm=True)
    theirs = sae_lens.TopKSAE(config)
    theirs.W_dec.data *= torch.rand(F, 1) * 3 + 0.2
    assert_same(from_sae_lens(theirs), theirs, data())


def test_training_settings_that_weights_do_not_show_can_be_named(tmp_path):
    sae_lens_trained("standard", steps=2).save_inference_model(tmp_path)
    opened = from_sae_lens(load_sae_from_disk(tmp_path, "cpu"), l1=0.7, ghost=True)
    assert (opened.l1, opened.ghost) == (0.7, True)
    with pytest.raises(InputError, match="unknown setting of 'relu': 'k'"):
        from_sae_lens(load_sae_from_disk(tmp_path, "cpu"), k=3)


def test_what_ours_cannot_do_is_refused_by_name(tmp_path):
    import sae_lens

    with pytest.raises(InputError, match="save_inference_model"):
        from_sae_lens(sae_lens_trained("topk", steps=1))
    with pytest.raises(InputError, match="skip_transcoder"):
        skip = sae_lens.SkipTranscoderConfig(d_in=D, d_sae=F, d_out=D, apply_b_dec_to_input=False)
        from_sae_lens(sae_lens.SkipTranscoder(skip))
    with pytest.raises(InputError, match="layer_norm"):
        config = sae_lens.StandardSAEConfig(d_in=D, d_sae=F, normalize_activations="layer_norm")
        from_sae_lens(sae_lens.StandardSAE(config))
    with pytest.raises(InputError, match="SAELens SAE, got Linear"):
        from_sae_lens(torch.nn.Linear(2, 2))


# ---- in memory, and with the rest of the course


def test_the_same_sae_without_a_detour_over_the_disk():
    for architecture, hyper, _ in SAES:
        ours = trained(architecture, hyper, steps=5)
        theirs = as_sae_lens(ours, hook_name=ABOUT["hook"])
        assert_same(ours, theirs, data(seed=2))
        assert theirs.cfg.metadata.hook_name == ABOUT["hook"]
    with pytest.raises(InputError, match="as_sae_lens"):
        encode(ours, data())


def test_a_saved_sae_passes_the_preflight(model, sae, target, tmp_path):
    """The embedded SAE, opened here and saved by us, fits its model as well as before."""
    about = sae.cfg.metadata
    ours = from_sae_lens(sae)
    folder = save_sae(
        ours,
        tmp_path / "again",
        hook=about.hook_name,
        model_name=about.model_name,
        context_size=about.context_size,
        prepend_bos=about.prepend_bos,
        processing=about.processing,
    )
    opened = load_sae_from_disk(folder, "cpu")
    x = torch.randn(64, ours.d_in) * 5
    torch.testing.assert_close(encode(opened, x), encode(sae, x), **CLOSE)
    assert all(preflight(model, opened, target).checks)


# ---- the folder


def test_the_folder_is_replaced_only_when_asked_and_only_if_it_is_an_saes(tmp_path):
    first, second = make_sae("relu", D, F, seed=0), make_sae("relu", D, F, seed=1)
    save_sae(first, tmp_path / "a" / "sae", **ABOUT)
    with pytest.raises(InputError, match="overwrite=True"):
        save_sae(second, tmp_path / "a" / "sae", **ABOUT)
    save_sae(second, tmp_path / "a" / "sae", overwrite=True, **ABOUT)
    assert torch.equal(load_sae_from_disk(tmp_path / "a" / "sae", "cpu").W_dec, second.W_dec)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["sae"]
    (tmp_path / "a" / "sae" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="notes.txt"):
        save_sae(first, tmp_path / "a" / "sae", overwrite=True, **ABOUT)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not an SAE's folder"):
        save_sae(first, tmp_path / "file", overwrite=True, **ABOUT)


def test_a_failed_write_leaves_the_old_sae_and_nothing_else(tmp_path, monkeypatch):
    import solutions.sae.architectures.saving as saving

    first, second = make_sae("relu", D, F, seed=0), make_sae("relu", D, F, seed=1)
    save_sae(first, tmp_path / "sae", **ABOUT)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(saving.os, "fsync", full)
        with pytest.raises(saving.DiskFull, match="no room for the SAE"):
            save_sae(second, tmp_path / "sae", overwrite=True, **ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]
    assert torch.equal(load_sae_from_disk(tmp_path / "sae", "cpu").W_dec, first.W_dec)

    really = saving.os.replace

    def stuck(source, goal):  # the old folder is out of the way, and the new one does not get there
        if str(source).endswith("new"):
            raise OSError(5, "Input/output error")
        really(source, goal)

    with monkeypatch.context() as m:
        m.setattr(saving.os, "replace", stuck)
        with pytest.raises(OSError, match="Input/output"):
            save_sae(second, tmp_path / "sae", overwrite=True, **ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ["sae"]
    assert torch.equal(load_sae_from_disk(tmp_path / "sae", "cpu").W_dec, first.W_dec)


def test_bad_descriptions_and_broken_saes_are_not_saved(tmp_path):
    sae = make_sae("relu", D, F)
    for change, message in [
        ({"hook": ""}, "hook is empty"),
        ({"prepend_bos": "yes"}, "prepend_bos must be True or False"),
        ({"context_size": 0}, "context_size must be"),
        ({"extra": {1, 2}}, "ready for JSON"),
        ({"extra": float("nan")}, "ready for JSON"),
    ]:
        with pytest.raises(InputError, match=message):
            save_sae(sae, tmp_path / "sae", **ABOUT | change)
    sae.b_enc.data[3] = float("nan")
    with pytest.raises(InputError, match="b_enc holds NaN"):
        save_sae(sae, tmp_path / "sae", **ABOUT)
    assert not any(tmp_path.iterdir())


def test_the_configuration_holds_nothing_of_this_machine(tmp_path):
    folder = save_sae(make_sae("topk", D, F, k=3), tmp_path / "sae", **ABOUT)
    text = (folder / "cfg.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["metadata"]["make_sae"]["k"] == 3
