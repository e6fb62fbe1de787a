"""The SAEs that are trained here: their arithmetic by hand, their gradients, their care of the decoder."""

import copy
import json
import math

import pytest
import torch

from solutions.errors import InputError
from solutions.sae import ARCHITECTURES, make_sae, resample
from solutions.sae.architectures import geometric_median
from solutions.sae.architectures.base import check_number
from solutions.sae.architectures.batchtopk import kth_largest

D, F, N = 6, 20, 32

#: One of each, with settings that suit so small a size.
EACH = [
    ("relu", {"l1": 0.5}),
    ("relu", {"l1": 0.5, "tied": True}),
    ("relu", {"l1": 0.5, "ghost": True}),
    ("topk", {"k": 4}),
    ("batchtopk", {"k": 3.5}),
    ("jumprelu", {"l0_penalty": 0.5}),
    ("gated", {"l1": 0.5}),
    ("matryoshka", {"k": 4, "prefixes": [5, 10, 20]}),
]


def data(n=N, d=D, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + 1.0


def by_hand(architecture, **hyper):
    """Two inputs, three latents, round numbers: the encoder reads x1, x2 and -x1; decoder rows have norm 1."""
    sae = make_sae(architecture, 2, 3, **hyper)
    with torch.no_grad():
        if not sae.tied:
            sae.W_enc.copy_(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]))
        sae.W_dec.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
        sae.b_dec.copy_(torch.tensor([1.0, 0.0]))
    return sae


#: Minus b_dec: [2, 1] and [-1, 3]. Pre-activations: [2, 1, -2] and [-1, 3, 1].
X = torch.tensor([[3.0, 1.0], [0.0, 3.0]])


# ---- known answers


def test_relu_by_hand():
    sae = by_hand("relu", l1=0.5)
    out = sae.losses(X, warm=0.5)
    assert torch.equal(out.z, torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]))
    # 2*row1 + 1*row2 + b_dec = [3, 1]: exact. 3*row2 + 1*row3 + b_dec = [1.6, 3.8], off by [1.6, 0.8].
    torch.testing.assert_close(out.x_hat, torch.tensor([[3.0, 1.0], [1.6, 3.8]]))
    torch.testing.assert_close(out.reconstruction, torch.tensor((0 + 1.6**2 + 0.8**2) / 2))
    torch.testing.assert_close(out.sparsity, torch.tensor(0.5 * 0.5 * (3 + 4) / 2))
    assert out.auxiliary == 0 and out.total == out.reconstruction + out.sparsity
    assert torch.equal(sae.encode(X), out.z) and torch.equal(sae(X), out.x_hat)


def test_without_unit_norm_the_penalty_counts_the_decoder_norms():
    """Halving the latents and doubling the decoder leaves every loss as it is, so the penalty cannot be cheated."""
    sae = by_hand("relu", l1=0.5, unit_norm=False)
    plain = sae.losses(X)
    with torch.no_grad():
        sae.W_dec.mul_(2), sae.W_enc.div_(2)
    cheated = sae.losses(X)
    torch.testing.assert_close(cheated.z, plain.z / 2)
    for name in ("reconstruction", "sparsity", "total"):
        torch.testing.assert_close(getattr(cheated, name), getattr(plain, name))


def test_tied_weights_are_one_matrix_seen_twice():
    sae = by_hand("relu", tied=True)
    assert [name for name, _ in sae.named_parameters()] == ["W_dec", "b_enc", "b_dec"]
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    # Row 3 is [0.6, 0.8]: 0.6*2 + 0.8*1 = 2 and 0.6*(-1) + 0.8*3 = 1.8.
    torch.testing.assert_close(sae.encode(X), torch.tensor([[2.0, 1.0, 2.0], [0.0, 3.0, 1.8]]))
    untied = make_sae("relu", 2, 3)
    untied.load_state_dict(sae.state_dict() | {"W_enc": sae.W_enc.detach()})
    sae.losses(X).total.backward(), untied.losses(X).total.backward()
    torch.testing.assert_close(sae.W_dec.grad, untied.W_dec.grad + untied.W_enc.grad.T)


def test_topk_and_auxk_by_hand():
    sae = by_hand("topk", k=1, aux_weight=0.25, aux_k=1)
    dead = torch.tensor([False, False, True])
    out = sae.losses(X, dead=dead)
    assert torch.equal(out.z, torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
    # Missed: [0, 1] and [-1, 0]. Latent 3 has pre-activations -2 and 1: it writes 0 and [0.6, 0.8].
    torch.testing.assert_close(out.reconstruction, torch.tensor((1.0 + 1.0) / 2))
    torch.testing.assert_close(out.auxiliary, torch.tensor(0.25 * (1.0 + (1.6**2 + 0.8**2)) / 2))
    assert out.sparsity == 0 and out.total == out.reconstruction + out.auxiliary
    for none in (None, torch.zeros(3, dtype=torch.bool)):
        assert sae.losses(X, dead=none).auxiliary == 0
    assert by_hand("topk", k=1, aux_weight=0.0).losses(X, dead=dead).auxiliary == 0


def test_auxk_teaches_the_dead_and_only_them():
    sae = make_sae("topk", D, F, k=4)
    dead = torch.arange(F) < 5
    sae.losses(data(), dead=dead).auxiliary.backward()
    assert sae.W_dec.grad[dead].abs().sum() > 0 and sae.W_dec.grad[~dead].abs().sum() == 0
    assert sae.W_enc.grad[:, dead].abs().sum() > 0 and sae.W_enc.grad[:, ~dead].abs().sum() == 0
    sae.zero_grad()
    sae.losses(data(), dead=dead).reconstruction.backward()


def test_auxk_lets_only_so_many_dead_latents_take_part():
    sae = by_hand("topk", k=1, aux_weight=1.0, aux_k=1)
    everyone = torch.ones(3, dtype=torch.bool)
    # Token 1 misses [0, 1] and its largest is latent 1 with 2; token 2 misses [-1, 0], and latent 2 with 3.
    torch.testing.assert_close(
        sae.losses(X, dead=everyone).auxiliary, torch.tensor((2.0**2 + 1.0 + 1.0 + 3.0**2) / 2)
    )


def test_batchtopk_by_hand():
    sae = by_hand("batchtopk", k=1)
    out = sae.losses(X)
    # Positive pre-activations of the batch: 2, 1 and 3, 1. Two may stay: 2 and 3.
    assert torch.equal(out.z, torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
    assert sae.batch_threshold == 2.0
    sae = by_hand("batchtopk", k=0.5)
    assert torch.equal(sae.losses(X).z, torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
    quiet = torch.tensor([[1.0, -1.0], [1.0, -2.0]])
    assert torch.equal(sae.losses(quiet).z, torch.zeros(2, 3))  # nothing positive: nothing kept


def test_batchtopk_gives_a_hard_token_more():
    sae = make_sae("batchtopk", D, F, k=3)
    x = torch.cat([data(16) * 0.1, data(16) * 10])
    z = sae.losses(x).z
    assert int((z > 0).sum()) == 3 * 32 and (z[16:] > 0).sum() > 80
    assert torch.equal((z > 0).sum(), (sae.losses(x[torch.randperm(32)]).z > 0).sum())


def test_the_batchtopk_threshold_is_a_mean_that_does_not_lag():
    sae = make_sae("batchtopk", D, F, k=3, threshold_rate=0.1)
    assert sae.threshold == 0
    seen, mean, weight = [], 0.0, 0.0
    for seed in range(5):
        sae.losses(data(seed=seed))
        seen.append(float(sae.batch_threshold))
        sae.after_step()
        mean, weight = mean * 0.9 + seen[-1] * 0.1, weight * 0.9 + 0.1
        assert math.isclose(float(sae.threshold), mean / weight, rel_tol=1e-6)
        assert min(seen) - 1e-6 <= float(sae.threshold) <= max(seen) + 1e-6  # from the first batch on
    before = sae.threshold
    sae.encode(data()), sae.after_step()  # using the SAE moves nothing
    assert sae.threshold == before
    # As a threshold it keeps about k latents on new data.
    assert abs(float((sae.encode(data(400, seed=9)) > 0).sum(1).float().mean()) - 3) < 0.6


@pytest.mark.parametrize("k", [1, 2, 17, 60])
def test_the_kth_largest_is(k):
    values = torch.rand(6, 10)
    assert kth_largest(values, k) == values.flatten().sort(descending=True).values[k - 1]


def test_jumprelu_by_hand():
    sae = by_hand("jumprelu", l0_penalty=0.5, initial_threshold=1.5)
    out = sae.losses(X, warm=0.5)
    assert torch.equal(out.z, torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0]]))
    torch.testing.assert_close(out.reconstruction, torch.tensor(1.0))
    torch.testing.assert_close(out.sparsity, torch.tensor(0.5 * 0.5 * (1 + 1) / 2))
    assert out.total == out.reconstruction + out.sparsity


def test_a_threshold_cannot_go_below_zero():
    sae = make_sae("jumprelu", D, F)
    sae.threshold.data[:2] = torch.tensor([-0.5, 0.3])
    sae.after_step()
    torch.testing.assert_close(sae.threshold[:3], torch.tensor([0.0, 0.3, 0.1]))


@pytest.mark.parametrize("bandwidth", [0.05, 0.4, 2.0])
def test_the_jumprelu_pseudo_derivative_is_the_papers(bandwidth):
    """In the threshold: -(threshold / bandwidth) K for the jump and -(1 / bandwidth) K for the step."""
    sae = make_sae("jumprelu", D, F, l0_penalty=0.7, bandwidth=bandwidth)
    with torch.no_grad():
        sae.threshold.copy_(torch.rand(F) + 0.1)
    x = data(200)
    out = sae.losses(x)
    out.total.backward()
    with torch.no_grad():
        pre, theta = sae.preactivations(x), sae.threshold
        kernel = (((pre - theta) / bandwidth).abs() < 0.5).float()
        by_z = 2 * (out.x_hat - x) @ sae.W_dec.T / len(x)  # d loss / d z
        expected = -(theta / bandwidth) * (kernel * by_z).sum(0) - (0.7 / bandwidth) * kernel.mean(0)
        by_pre = by_z * (pre > theta)  # the penalty does not reach the encoder
    assert kernel.sum() > 0
    torch.testing.assert_close(sae.threshold.grad, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sae.b_enc.grad, by_pre.sum(0), atol=1e-5, rtol=1e-4)


def test_the_pseudo_derivative_estimates_the_slope_of_the_expected_loss():
    """Over many tokens it agrees with finite differences of the mean loss, for which it stands in."""
    sae = make_sae("jumprelu", 4, 6, l0_penalty=2.0, bandwidth=0.1, initial_threshold=0.8).double()
    x = torch.randn(200_000, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sae.losses(x).total.backward()

    def loss_at(shift, latent):
        moved = copy.deepcopy(sae)
        moved.threshold.data[latent] += shift
        with torch.no_grad():
            return float(moved.losses(x).total)

    for latent in range(3):
        slope = (loss_at(0.05, latent) - loss_at(-0.05, latent)) / 0.1
        assert math.isclose(float(sae.threshold.grad[latent]), slope, rel_tol=0.1)


def test_gated_by_hand():
    sae = by_hand("gated", l1=0.5)
    with torch.no_grad():
        sae.r_mag.copy_(torch.tensor([2.0, 1.0, 1.0]).log())
        sae.b_mag.copy_(torch.tensor([-1.0, 0.5, 0.0]))
        sae.b_gate.copy_(torch.tensor([0.0, -2.0, 0.0]))
    out = sae.losses(X, warm=0.5)
    # The gate sees [2, -1, -2] and [-1, 1, 1]; magnitudes are 2*2-1 = 3, and 3+0.5 = 3.5 and 1.
    assert torch.equal(out.z, torch.tensor([[3.0, 0.0, 0.0], [0.0, 3.5, 1.0]]))
    torch.testing.assert_close(out.sparsity, torch.tensor(0.5 * 0.5 * (2 + 2) / 2))
    # By the gate alone: [2, 0] + b_dec against [3, 1], and [0.6, 1.8] + b_dec against [0, 3].
    torch.testing.assert_close(out.auxiliary, torch.tensor((1.0 + 1.6**2 + 1.2**2) / 2))
    torch.testing.assert_close(out.reconstruction, torch.tensor((1.0 + 1.0 + 1.6**2 + 1.3**2) / 2))
    torch.testing.assert_close(out.total, out.reconstruction + out.sparsity + out.auxiliary)


def test_the_gates_own_error_does_not_move_the_decoder():
    sae = make_sae("gated", D, F)
    sae.losses(data()).auxiliary.backward()
    assert sae.W_dec.grad is None and sae.W_enc.grad.abs().sum() > 0 and sae.b_gate.grad.abs().sum() > 0
    apart = make_sae("gated", D, F, subtract_b_dec=False)  # here b_dec belongs to the decoder alone
    apart.losses(data()).auxiliary.backward()
    assert apart.b_dec.grad is None
    sae.zero_grad()
    sae.losses(data()).reconstruction.backward()
    assert sae.b_gate.grad is None or sae.b_gate.grad.abs().max() < 1e-5  # the step has no derivative


def test_matryoshka_by_hand():
    sae = by_hand("matryoshka", k=1.5, prefixes=[1, 3])
    out = sae.losses(X)
    # Three entries may stay of 2, 1 and 3, 1: the two 1s tie, and a tie is kept.
    assert torch.equal(out.z, torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]))
    torch.testing.assert_close(out.reconstruction, torch.tensor((1.6**2 + 0.8**2) / 2))
    # The first latent alone gives [3, 0] and [1, 0].
    torch.testing.assert_close(out.auxiliary, torch.tensor((1.0 + 1.0 + 9.0) / 2))
    torch.testing.assert_close(out.x_hat, sae.decode(out.z))


def test_a_matryoshka_of_one_prefix_is_a_batchtopk():
    one, plain = make_sae("matryoshka", D, F, k=3, prefixes=[F]), make_sae("batchtopk", D, F, k=3)
    dead = torch.arange(F) < 4
    for a, b in zip(one.losses(data(), dead=dead), plain.losses(data(), dead=dead), strict=True):
        torch.testing.assert_close(a, b)


def test_ghost_gradients_by_hand():
    sae = by_hand("relu", l1=0.0, ghost=True)
    dead = torch.tensor([True, False, False])
    out = sae.losses(X, dead=dead)
    # Weighed to equal the reconstruction error, token by token.
    torch.testing.assert_close(out.auxiliary, out.reconstruction)
    out.auxiliary.backward()
    # Residual of token 2: [-1.6, -0.8]; ghost exp(-1)*[1, 0], shrunk to half its length, r/2 with r^2 = 3.2.
    r = math.sqrt(3.2)
    error = [r / 2 + 1.6, 0.8]
    weigh = 3.2 / (error[0] ** 2 + error[1] ** 2)
    by_pre = weigh * 2 * error[0] * (r / 2) / 2  # d exp(p)/dp * shrink = r/2; mean over two tokens
    torch.testing.assert_close(sae.b_enc.grad, torch.tensor([by_pre, 0.0, 0.0]))
    assert sae.losses(X).auxiliary == 0


# ---- what holds for all of them


@pytest.mark.parametrize(("architecture", "hyper"), EACH)
def test_training_lowers_the_error_and_keeps_the_decoder_at_norm_one(architecture, hyper):
    sae = make_sae(architecture, D, F, seed=3, **hyper)
    x = data(256) * math.sqrt(D) / data(256).norm(dim=1).mean()
    sae.initialise(x)
    optimiser = torch.optim.Adam(sae.parameters(), 5e-3)
    first = sae.losses(x).total.item()
    dead = torch.arange(F) < 3
    for _ in range(60):
        optimiser.zero_grad()
        sae.losses(x, dead=dead).total.backward()
        sae.before_step()
        parallel = (sae.W_dec.grad * sae.W_dec).sum(1)
        assert parallel.abs().max() < 1e-4 * sae.W_dec.grad.norm(dim=1).max() + 1e-6
        assert sae.W_dec.grad.norm() > 0
        optimiser.step()
        sae.after_step()
        torch.testing.assert_close(sae.decoder_norms(), torch.ones(F))
    assert sae.losses(x).total.item() < 0.9 * first
    out = sae.losses(x, dead=dead)
    torch.testing.assert_close(out.total, out.reconstruction + out.sparsity + out.auxiliary)
    torch.testing.assert_close(out.reconstruction, (out.x_hat - x).pow(2).sum(1).mean())
    assert (out.z >= 0).all() and out.z.shape == (256, F) and out.x_hat.shape == x.shape


def test_the_projection_takes_only_what_is_parallel():
    sae = make_sae("relu", D, F)
    grad = torch.randn(F, D)
    sae.W_dec.grad = grad.clone()
    sae.before_step()
    removed = grad - sae.W_dec.grad
    rows = sae.W_dec.detach()
    torch.testing.assert_close(removed, (removed * rows).sum(1, keepdim=True) * rows)
    free = make_sae("relu", D, F, unit_norm=False)
    free.W_dec.grad = grad.clone()
    free.before_step()
    free.W_dec.data.mul_(3)
    free.after_step()
    assert torch.equal(free.W_dec.grad, grad) and free.decoder_norms().min() > 2.9


@pytest.mark.parametrize(("architecture", "hyper"), EACH)
@pytest.mark.parametrize("scale", [0.07, 5.0])
def test_folding_the_scale_gives_the_same_sae_for_raw_inputs(architecture, hyper, scale):
    sae = make_sae(architecture, D, F, **hyper)
    x = data()
    sae.initialise(x * scale)
    jiggle(sae)
    scaled_z, scaled_hat = sae.encode(x * scale), sae(x * scale)
    sae.fold_scale(scale)
    torch.testing.assert_close(sae.encode(x) * scale, scaled_z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sae(x) * scale, scaled_hat, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(sae.decoder_norms(), torch.ones(F))


@pytest.mark.parametrize("architecture", ["relu", "batchtopk", "jumprelu", "matryoshka"])
def test_folding_two_scales_into_a_transcoder(architecture):
    hyper = {"k": 4} if "k" in ARCHITECTURES[architecture].settings else {}
    sae = make_sae(architecture, D, F, d_out=4, **hyper)
    x, target = data(), data(d=4, seed=1)
    sae.initialise(x * 3.0, target * 0.2)
    jiggle(sae)
    before = sae(x * 3.0)
    fired = sae.encode(x * 3.0) > 0
    sae.fold_scale(3.0, 0.2)
    torch.testing.assert_close(sae(x), before / 0.2, atol=1e-4, rtol=1e-4)
    assert torch.equal(sae.encode(x) > 0, fired)


def jiggle(sae):
    """Move every parameter and the threshold off their round starts, and give the decoder norm 1 again."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.add_(0.1 * torch.rand(parameter.shape, generator=generator))
    if hasattr(sae, "set_threshold"):
        sae.set_threshold(0.6)
    sae.after_step()


@pytest.mark.parametrize(("architecture", "hyper"), EACH)
def test_encoding_takes_one_token_or_many_and_they_do_not_meet(architecture, hyper):
    sae = make_sae(architecture, D, F, **hyper)
    jiggle(sae)
    x = data(12).reshape(3, 4, D)
    z = sae.encode(x)
    assert z.shape == (3, 4, F) and sae(x).shape == x.shape
    torch.testing.assert_close(sae.encode(x[1, 2]), z[1, 2])
    torch.testing.assert_close(z, sae.activate(sae.preactivations(x)))


@pytest.mark.parametrize(("architecture", "hyper"), EACH)
def test_a_recipe_makes_another_of_the_same_kind_and_a_seed_the_same_one(architecture, hyper):
    sae = make_sae(architecture, D, F, seed=4, **hyper)
    recipe = json.loads(json.dumps(sae.recipe()))
    state = torch.random.get_rng_state()
    again = make_sae(**recipe, seed=4)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers are touched
    assert type(again) is type(sae) and again.recipe() == sae.recipe()
    assert all(torch.equal(a, b) for a, b in zip(sae.parameters(), again.parameters(), strict=True))
    assert not torch.equal(make_sae(**recipe, seed=5).W_dec, sae.W_dec)
    again.load_state_dict(sae.state_dict())
    for name, value in hyper.items():
        assert getattr(sae, name) == value and repr(value) in repr(sae)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_state_brings_back_everything_in_the_middle_of_training(architecture):
    hyper = {"k": 4} if "k" in ARCHITECTURES[architecture].settings else {}
    sae, other = make_sae(architecture, D, F, seed=1, **hyper), make_sae(architecture, D, F, seed=2, **hyper)
    jiggle(sae)
    other.load_state_dict(sae.state_dict())
    assert torch.equal(sae.encode(data()), other.encode(data()))
    assert torch.equal(sae.losses(data()).total, other.losses(data()).total)


def test_initialise_puts_b_dec_in_the_middle_and_the_encoder_opposite_the_decoder():
    for architecture, hyper in EACH:
        sae = make_sae(architecture, D, F, **hyper)
        jiggle(sae)
        sae.initialise(data(500))
        torch.testing.assert_close(sae.b_dec, data(500).mean(0))
        gain = sae.W_enc.norm(dim=0)
        torch.testing.assert_close(sae.W_enc, sae.W_dec.T * gain)
        torch.testing.assert_close(gain, gain[0].expand(F))
        assert sae.tied != (gain[0] < 0.9)
        torch.testing.assert_close(sae.decoder_norms(), torch.ones(F))
        start = {"threshold": getattr(sae, "initial_threshold", 0.0)}
        for name in sae.per_latent:
            torch.testing.assert_close(getattr(sae, name), torch.full((F,), start.get(name, 0.0)))


def test_the_first_reconstructions_are_as_long_as_they_should_be():
    """A wide SAE whose encoder is the bare transpose begins with many times what it read."""
    x = data(500, 16)
    for width in (32, 512):
        sae = make_sae("relu", 16, width)
        sae.initialise(x)
        centred, written = x - sae.b_dec, sae(x) - sae.b_dec
        share = (written * centred).sum() / written.pow(2).sum()
        torch.testing.assert_close(share, torch.tensor(1.0), atol=1e-3, rtol=0)
        assert (sae(x) - x).pow(2).sum() < centred.pow(2).sum()
        with torch.no_grad():
            sae.W_enc.copy_(sae.W_dec.T)
        too_much = (sae(x) - x).pow(2).sum() / centred.pow(2).sum()
        assert width < 100 or too_much > 50


def test_a_transcoder_starts_as_if_its_input_were_centred():
    for architecture in ("relu", "jumprelu", "batchtopk"):
        sae = make_sae(architecture, D, F, d_out=4, **({"k": 3} if architecture == "batchtopk" else {}))
        x, target = data(400) + 50, data(400, 4, seed=1)
        sae.initialise(x, target)
        torch.testing.assert_close(sae.b_dec, target.mean(0))
        assert sae.preactivations(x).mean(0).abs().max() < 1e-3
    gated = make_sae("gated", D, F, d_out=D)
    gated.initialise(x, data(400, seed=2))
    assert gated.preactivations(x).mean(0).abs().max() < 1e-3
    torch.testing.assert_close(gated.b_mag, gated.b_gate)
    with pytest.raises(InputError, match="target_sample"):
        sae.initialise(x)


def test_the_geometric_median_does_not_follow_an_outlier():
    x = torch.cat([torch.randn(200, 3), torch.full((2, 3), 1e4)])
    assert x.mean(0).norm() > 100 and geometric_median(x).norm() < 0.5
    corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    torch.testing.assert_close(geometric_median(corners), torch.tensor([2.0, 2.0]))
    sae = make_sae("relu", 3, 5)
    sae.initialise(x, centre="geometric median")
    torch.testing.assert_close(sae.b_dec, geometric_median(x))


def test_half_precision_under_autocast_gives_float32_losses():
    for architecture, hyper in EACH:
        sae = make_sae(architecture, D, F, **hyper)
        with torch.autocast("cpu", torch.bfloat16):
            out = sae.losses(data(), dead=torch.arange(F) < 3)
        assert out.total.dtype == torch.float32, architecture
        out.total.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in sae.parameters())


# ---- resampling


@pytest.mark.parametrize(("architecture", "hyper"), EACH)
def test_resampling_replaces_the_dead_and_leaves_the_living(architecture, hyper):
    sae = make_sae(architecture, D, F, **hyper)
    optimiser = torch.optim.Adam(sae.parameters(), 1e-3, amsgrad=True)
    sae.losses(data()).total.backward()
    optimiser.step()
    before = {name: p.detach().clone() for name, p in sae.named_parameters()}
    dead = torch.zeros(F, dtype=torch.bool)
    dead[[2, 7, 11]] = True
    x, losses = data(50), torch.zeros(50)
    losses[17] = 3.0  # the only input that is rebuilt badly: all three get its direction
    assert resample(sae, optimiser, dead, x, losses) == 3

    direction = torch.nn.functional.normalize(x[17] - sae.b_dec, dim=0)
    torch.testing.assert_close(sae.W_dec[dead], direction.expand(3, D))
    if not sae.tied:
        alive = before["W_enc"][:, ~dead].norm(dim=0).mean()
        torch.testing.assert_close(sae.W_enc[:, dead], (0.2 * alive * direction)[:, None].expand(D, 3))
    for name, axis in sae.latent_axes().items():
        now, then = getattr(sae, name).movedim(axis, 0), before[name].movedim(axis, 0)
        assert torch.equal(now[~dead], then[~dead])
        if name in sae.per_latent:
            assert (now[dead] == (sae.initial_threshold if name == "threshold" else 0.0)).all()
        state = optimiser.state[getattr(sae, name)]
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            if key in state:
                rows = state[key].movedim(axis, 0)
                assert (rows[dead] == 0).all()
        assert state == {} or state["step"] == 1
    assert (optimiser.state[sae.W_dec]["exp_avg"][~dead] != 0).any()


def test_resampling_draws_by_the_square_of_the_loss():
    sae = make_sae("relu", 2, 4000)
    optimiser = torch.optim.Adam(sae.parameters())
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    generator = torch.Generator().manual_seed(0)
    resample(sae, optimiser, torch.ones(4000, dtype=torch.bool), x, torch.tensor([1.0, 2.0]), generator=generator)
    assert abs(sae.W_dec[:, 1].mean().item() - 0.8) < 0.03  # 4 / (1 + 4)


def test_resampling_gives_dead_latents_a_use():
    sae = make_sae("relu", D, F, l1=0.1)
    x = data(512)
    sae.initialise(x)
    with torch.no_grad():
        sae.b_enc[:10] = -100.0
    optimiser = torch.optim.Adam(sae.parameters(), 5e-3)

    def train(steps):
        for _ in range(steps):
            optimiser.zero_grad()
            sae.losses(x).total.backward()
            optimiser.step()
        return (sae.encode(x)[:, :10] > 0).any(0)

    assert not train(30).any()  # without a gradient they stay dead
    losses = (sae(x) - x).pow(2).sum(1).detach()
    assert resample(sae, optimiser, ~(sae.encode(x) > 0).any(0), x, losses) >= 10
    assert train(30).sum() >= 8


def test_a_transcoder_is_resampled_in_both_its_spaces():
    sae = make_sae("relu", D, F, d_out=3)
    optimiser = torch.optim.Adam(sae.parameters())
    dead = torch.arange(F) == 5
    x, target, losses = data(4), data(4, 3, seed=1), torch.tensor([0.0, 1.0, 0.0, 0.0])
    with pytest.raises(InputError, match="target"):
        resample(sae, optimiser, dead, x, losses)
    resample(sae, optimiser, dead, x, losses, target=target)
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(sae.W_dec[5], torch.nn.functional.normalize(target[1] - sae.b_dec, dim=0))
    torch.testing.assert_close(cosine(sae.W_enc[:, 5], x[1], dim=0), torch.tensor(1.0))


def test_resampling_refuses_what_does_not_fit():
    sae = make_sae("relu", D, F)
    optimiser = torch.optim.Adam(sae.parameters())
    dead, x, losses = torch.arange(F) < 2, data(8), torch.rand(8)
    assert resample(sae, optimiser, dead & False, x, losses) == 0
    for arguments, message in [
        ((dead.float(), x, losses), "dead must be a bool tensor"),
        ((dead[:3], x, losses), "dead must be a bool tensor"),
        ((dead, data(8, 3), losses), "last axis"),
        ((dead, x, losses[:3]), "last axis"),
        ((dead, x, losses - 2), "finite and not negative"),
        ((dead, x, losses * torch.nan), "finite and not negative"),
    ]:
        with pytest.raises(InputError, match=message):
            resample(sae, optimiser, *arguments)


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "hyper", "message"),
    [
        (("topk", D, F), {"k": F + 1}, "k must be at most d_sae, got k = 21 with d_sae = 20"),
        (("topk", D, F), {"k": 0}, "k must be a whole number of at least 1, got 0"),
        (("topk", D, F), {"k": 2.5}, "k must be a whole number"),
        (("topk", D, F), {}, "k must be at most d_sae, got k = 32"),
        (("batchtopk", D, F), {"k": F + 0.5}, "k must be at most d_sae"),
        (("batchtopk", D, F), {"k": 0.0}, "k must be a finite number above 0, got 0.0"),
        (("batchtopk", D, F), {"k": 2, "threshold_rate": 1.5}, "threshold_rate must be a finite number above 0"),
        (("topk", D, F), {"k": 2, "aux_weight": -1}, "aux_weight must be a finite number at least 0, got -1"),
        (("topk", D, F), {"k": 2, "aux_k": 0}, "aux_k must be a whole number"),
        (("relu", D, F), {"l1": -0.1}, "l1 must be a finite number at least 0, got -0.1"),
        (("relu", D, F), {"l1": math.nan}, "l1 must be a finite number at least 0, got nan"),
        (("relu", D, F), {"l1": "1"}, "l1 must be a finite number"),
        (("relu", D, F), {"l1": None}, "l1 must be a finite number"),
        (("relu", D, F), {"l1": True}, "l1 must be a finite number"),
        (("gated", D, F), {"l1": math.inf}, "l1 must be a finite number"),
        (("relu", D, F), {"tied": 1}, "tied must be True or False, got 1"),
        (("relu", D, F), {"tied": True, "d_out": 3}, "tied must be False"),
        (("relu", D, F), {"ghost": "no"}, "ghost must be True or False"),
        (("jumprelu", D, F), {"bandwidth": 0.0}, "bandwidth must be a finite number above 0, got 0.0"),
        (("jumprelu", D, F), {"bandwidth": -1}, "bandwidth must be a finite number above 0, got -1"),
        (("jumprelu", D, F), {"l0_penalty": -1}, "l0_penalty must be a finite number at least 0"),
        (("jumprelu", D, F), {"initial_threshold": -1}, "initial_threshold must be"),
        (("matryoshka", D, F), {"k": 2, "prefixes": [10, 5, 20]}, r"grow and end at d_sae = 20.*got \[10, 5, 20\]"),
        (("matryoshka", D, F), {"k": 2, "prefixes": [5, 5, 20]}, "prefixes must be whole numbers that grow"),
        (("matryoshka", D, F), {"k": 2, "prefixes": [5, 10]}, "end at d_sae = 20"),
        (("matryoshka", D, F), {"k": 2, "prefixes": [0, 20]}, "prefixes must be"),
        (("matryoshka", D, F), {"k": 2, "prefixes": [2.5, 20]}, "prefixes must be"),
        (("matryoshka", D, F), {"k": 2, "prefixes": []}, "prefixes must be"),
        (("matryoshka", D, F), {"k": 2, "prefixes": 20}, "prefixes must be"),
        (("relu", D, 0), {}, "d_sae must be a whole number of at least 1, got 0"),
        (("relu", 0, F), {}, "d_in must be a whole number of at least 1, got 0"),
        (("relu", D, F), {"d_out": 0}, "d_out must be a whole number of at least 1"),
        (("relu", D, F), {"seed": -1}, "seed must be a whole number of at least 0"),
        (("relu", D, F), {"d_out": 3, "subtract_b_dec": True}, "subtract_b_dec=False"),
        (("relu", D, F), {"unit_norm": None}, "unit_norm must be True or False"),
        (("topk", D, F), {"k": 2, "d_out": 3}, "SAELens has no topk transcoder"),
        (("gated", D, F), {"d_out": 3}, "SAELens has no gated transcoder"),
        (("rellu", D, F), {}, "unknown architecture 'rellu'. Did you mean 'relu'"),
        (("standard", D, F), {}, "unknown architecture 'standard'.*Known: relu, topk"),
        (("relu", D, F), {"k": 3}, "unknown setting of 'relu': 'k'.*Known: l1, tied, ghost"),
        (("topk", D, F), {"k": 2, "tied": True}, "unknown setting of 'topk': 'tied'"),
        (("jumprelu", D, F), {"band_width": 1}, "Did you mean 'bandwidth'"),
    ],
)
def test_bad_settings_are_refused_by_name(arguments, hyper, message):
    with pytest.raises(InputError, match=message):
        make_sae(*arguments, **hyper)


def test_bad_data_and_scales_are_refused():
    sae = make_sae("relu", D, F)
    bad = data()
    bad[3, 1] = torch.inf
    for sample, message in [
        (bad, "sample holds NaN or infinity in 1 of 32 rows"),
        (data(d=4), "sample must have 6 as its last axis"),
        (data()[0], "sample must have shape"),
        (data().long(), "floating point"),
    ]:
        with pytest.raises(InputError, match=message):
            sae.initialise(sample)
    with pytest.raises(InputError, match="centre must be one of 'mean', 'geometric median'"):
        sae.initialise(data(), centre="median")
    for scale in (0, -1, math.nan):
        with pytest.raises(InputError, match="scale must be a finite number above 0"):
            sae.fold_scale(scale)
    with pytest.raises(InputError, match="target_scale must equal scale"):
        sae.fold_scale(2.0, 3.0)


def test_numbers_of_every_kind_are_numbers():
    assert check_number(torch.tensor(2.0), "n") == 2.0 and check_number(3, "n", most=3) == 3.0
    with pytest.raises(InputError, match="n must be a finite number at most 3, got 4"):
        check_number(4, "n", most=3)
    with pytest.raises(InputError, match="at least 0 and at most 1"):
        check_number(4, "n", least=0, most=1)


def test_the_default_prefixes_double():
    assert make_sae("matryoshka", D, 64, k=2).prefixes == [4, 8, 16, 32, 64]
    assert make_sae("matryoshka", D, 5, k=2).prefixes == [1, 2, 5]
