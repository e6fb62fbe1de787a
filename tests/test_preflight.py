"""Every way of putting an SAE on the wrong activations is caught, each under its own name."""

from dataclasses import replace

import pytest
import torch
from hub_cache import make_sae, tiny_model, tiny_sae, tiny_target

from solutions.data import load_texts, tokenize
from solutions.errors import InputError
from solutions.models import extract, load_model
from solutions.sae import PreflightError, encode, explained_variance, l0, load_sae_from_disk, preflight

HOOK, WRONG = "blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out"


@pytest.fixture(scope="module")
def tokens():
    return tokenize(tiny_model(), load_texts(tiny_target(), 12))


@pytest.fixture(scope="module")
def acts(tokens):
    return extract(tiny_model(), tokens, [HOOK, WRONG])


def refused(code, *said, model=None, sae=None, target=None, **how):
    """Preflight must raise under this code, and the message must say these words; returns the error."""
    with pytest.raises(PreflightError) as caught:
        preflight(model or tiny_model(), sae or tiny_sae(), target or tiny_target(), **how)
    assert caught.value.code == code
    message = str(caught.value)
    assert "expected" in message and "found" in message
    assert all(word in message for word in said), message
    assert caught.value.report.checks.iloc[-1].tolist()[0::3] == [code, "MISMATCH"]
    return caught.value


def test_a_pair_that_fits():
    report = preflight(tiny_model(), tiny_sae(), tiny_target())
    assert report.ok and report.l0 == 8 and 0.5 < report.explained_variance < 1
    assert report.n_tokens > 100 and report.n_left_out >= 16
    assert {"width", "hook", "model", "processing", "bos", "context", "explained_variance"} <= set(
        report.checks["check"]
    )
    assert "all checks agree" in repr(report) and "explained variance" in repr(report)
    assert "<table" in report._repr_html_() and "left out" in report._repr_html_()


def test_given_activations_are_measured_without_bos(acts, tokens):
    kept = acts[HOOK][tokens.content]
    for given in ({"tokens": tokens}, {}):
        report = preflight(tiny_model(), tiny_sae(), tiny_target(), acts=acts[HOOK], **given)
        assert report.ok
    exact = preflight(tiny_model(), tiny_sae(), tiny_target(), acts=acts[HOOK], tokens=tokens)
    assert exact.n_tokens == len(kept)
    features = encode(tiny_sae(), kept)
    with torch.no_grad():
        assert exact.explained_variance == explained_variance(kept, tiny_sae().decode(features))
    assert exact.l0 == l0(features).float().mean()
    assert (
        preflight(tiny_model(), tiny_sae(), tiny_target(), acts=kept).explained_variance
        == exact.explained_variance
    )


def test_wrong_hook_declared():
    refused("hook", HOOK, WRONG, "allow={'hook'}", hook=WRONG)


def test_wrong_hook_not_declared(acts):
    """Activations that claim to be of the right place, and are recognised as those of another."""
    refused("hook", f"activations of {WRONG}", acts=acts[WRONG])


def test_a_deliberate_wrong_hook_says_so():
    report = preflight(tiny_model(), tiny_sae(), tiny_target(), hook=WRONG, allow={"hook"})
    assert not report.ok and report.hook == WRONG
    assert report.checks.set_index("check").loc["hook", "result"] == "allowed"
    assert "deliberate mismatch" in repr(report)


def test_wrong_width(tmp_path):
    other = load_sae_from_disk(make_sae(tmp_path, HOOK, d=24))
    refused("width", "24", "16", sae=other)
    refused("width", "16", "7", acts=torch.randn(2, 5, 7))


def test_missing_bos(acts, tokens):
    refused("bos", "prepend_bos=True", target=replace(tiny_target(), prepend_bos=False))
    without = tokenize(tiny_model(), load_texts(tiny_target(), 12), prepend_bos=False)
    x = extract(tiny_model(), without, HOOK)[HOOK]
    refused("bos", "texts without BOS", acts=x)
    refused("bos", "texts without BOS", acts=x, tokens=without)


def test_unprocessed_model(tmp_path, tokens):
    wants = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    sae = load_sae_from_disk(make_sae(tmp_path, HOOK, **wants))
    refused("processing", "center_writing_weights", "none", "load_model(target)", sae=sae)
    centred = load_model(replace(tiny_target(), processing={"center_writing_weights": True}), "cpu")
    assert preflight(centred, sae, tiny_target()).checks["result"].eq("ok").all()
    refused("processing", "no processing", "center_writing_weights", model=centred)
    foreign = extract(centred, tokens, HOOK)[HOOK]
    refused("processing", "differently loaded model", acts=foreign)


def test_token_averages(acts, tokens):
    x = acts[HOOK]
    mean = torch.stack([row[mask].mean(dim=0) for row, mask in zip(x, tokens.mask, strict=True)])
    refused("token_averaged", "function of one token", acts=mean)
    refused("token_averaged", "12 vectors", acts=mean, tokens=tokens)
    refused("token_averaged", "without a token axis", acts=mean[0])
    refused("token_averaged", acts=mean[:, None])
    report = preflight(tiny_model(), tiny_sae(), tiny_target(), acts=mean, allow={"token_averaged"})
    assert report.checks.set_index("check").loc["token_averaged", "result"] == "allowed"


def test_rows_of_single_tokens_are_not_taken_for_averages(acts, tokens):
    assert preflight(tiny_model(), tiny_sae(), tiny_target(), acts=acts[HOOK][tokens.content]).ok
    assert preflight(tiny_model(), tiny_sae(), tiny_target(), acts=acts[HOOK][0, 1:]).ok


def test_poor_and_negative_explained_variance(tmp_path):
    sae = load_sae_from_disk(make_sae(tmp_path, HOOK, k=1))
    refused("explained_variance", "at least 0.5", sae=sae)
    with torch.no_grad():
        sae.b_dec += 100
        sae.cfg.apply_b_dec_to_input = False
    refused("explained_variance", "worse than always predicting the mean", sae=sae)
    report = preflight(tiny_model(), sae, tiny_target(), allow="explained_variance")
    assert report.explained_variance < 0 and not report.ok


def test_bad_numbers_follow_from_an_allowed_mismatch(tmp_path):
    """Whoever allows the wrong hook need not allow what it does to the explained variance, too."""
    sae = load_sae_from_disk(make_sae(tmp_path, HOOK, k=1))
    report = preflight(tiny_model(), sae, tiny_target(), hook=WRONG, allow={"hook"})
    assert report.checks.set_index("check").loc["explained_variance", "result"] == "follows from the above"


def test_an_sae_in_which_nothing_fires(tmp_path):
    sae = load_sae_from_disk(make_sae(tmp_path, HOOK))
    with torch.no_grad():
        sae.W_enc.zero_()
    refused("l0", "more than 0 active latents", sae=sae)


def test_wrong_model(tmp_path):
    other = load_sae_from_disk(make_sae(tmp_path, HOOK, model_name="gpt2-small"))
    refused("model", "gpt2-small", "tiny", sae=other)


def test_rows_longer_than_in_training(tmp_path):
    short = load_sae_from_disk(make_sae(tmp_path, HOOK, context_size=8))
    refused("context", "at most 8 tokens", "rows of 32", "context_size=8", sae=short)


def test_other_device():
    refused("device", "cpu", "meta", acts=torch.randn(2, 5, 16, device="meta"))


@pytest.mark.parametrize("allow", ["hok", "width", "device", ["everything"]])
def test_only_real_mismatches_can_be_allowed(allow):
    with pytest.raises(InputError, match="unknown mismatch to allow"):
        preflight(tiny_model(), tiny_sae(), tiny_target(), allow=allow)


def test_a_refusal_carries_the_report():
    error = refused("hook", hook=WRONG)
    assert (
        "stopped at a mismatch" in repr(error.report) and error.report.checks["check"].tolist()[-1] == "hook"
    )


def test_arguments_in_the_wrong_order():
    for wrong, said in (
        ((tiny_sae(), tiny_model(), tiny_target()), "model must be a model from load_model, got TopKSAE"),
        ((tiny_model(), tiny_target(), tiny_sae()), "sae must be an SAE from load_sae, got Target"),
        ((tiny_model(), tiny_sae(), "tiny"), "target must be a Target"),
    ):
        with pytest.raises(InputError, match=said):
            preflight(*wrong)


def test_bad_input():
    with pytest.raises(InputError, match="Did you mean"):
        preflight(tiny_model(), tiny_sae(), tiny_target(), hook="blocks.1.hook_resid_prr")
    for wrong in ([1.0], torch.tensor(3.0)):
        with pytest.raises(InputError, match="acts must be a tensor"):
            preflight(tiny_model(), tiny_sae(), tiny_target(), acts=wrong)
    with pytest.raises(InputError, match="floating point"):
        preflight(tiny_model(), tiny_sae(), tiny_target(), acts=torch.ones(2, 5, 16, dtype=torch.long))
