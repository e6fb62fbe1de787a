"""Training: plans, schedules, where activations come from, and that an SAE learns what is there."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from stub_harvest import HOOKS, TEXTS, StubModel
from stub_training import HOOK, OTHER, PLAN, D, fresh, make_store, numbers

from solutions.data import tokenize
from solutions.errors import InputError
from solutions.models import extract
from solutions.sae import explained_variance, load_sae_from_disk
from solutions.sae.architectures import make_sae
from solutions.sae.training import (
    HarvestSource,
    Plan,
    StoreSource,
    TensorSource,
    learning_rate,
    read_log,
    sparsity_warmth,
    train,
)
from solutions.sae.training.live import LiveCurves
from solutions.sae.training.log import COLUMNS
from solutions.sae.training.run import Run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def run(sae, source, plan=PLAN, **settings):
    return train(sae, source, plan, progress=False, **settings)


def first(source, n, *args, **settings):
    """The first `n` batches of a source, put together."""
    batches = [batch for _, batch in zip(range(n), source.batches(*args, **settings), strict=False)]
    return torch.cat([batch.x for batch in batches])


# ---- plan and schedule


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"n_tokens": 0}, "n_tokens must be a whole number"),
        ({"n_tokens": 1.5}, "n_tokens"),
        ({"batch_size": 0}, "batch_size must"),
        ({"batch_size": 1001}, "batch_size is 1,001, but the run sees only n_tokens = 1,000"),
        ({"lr": 0}, "lr must be a number above 0"),
        ({"lr": -1e-3}, "lr"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"lr": "fast"}, "lr"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\]"),
        ({"betas": 0.9}, "betas must be two numbers"),
        ({"warmup": 1.5}, "warmup is a share of the run"),
        ({"warmup": -0.1}, "warmup"),
        ({"decay": True}, "decay"),
        ({"l1_warmup": 2}, "l1_warmup"),
        ({"warmup": 0.6, "decay": 0.6}, r"warmup \+ decay is 1.2"),
        ({"clip": 0}, "clip must be a number above 0.*None does not clip"),
        ({"seed": -1}, "seed"),
        ({"precision": "float8"}, "unknown precision 'float8'"),
        ({"step": "spars"}, "unknown step 'spars'. Did you mean 'sparse'"),
        ({"normalise": 1}, "normalise must be True or False"),
        ({"initialise": None}, "initialise"),
        ({"dead_after": 0}, "dead_after"),
        ({"resample_at": 10}, "resample_at must be a tuple"),
        ({"resample_at": (10,)}, "resample_at has step 10, but the run has only 10 steps"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"log_every": -1}, "log_every"),
        ({"diverged_at": 0}, "diverged_at"),
    ],
)
def test_a_bad_plan_is_refused_by_name(value, names):
    with pytest.raises(InputError, match=names):
        Plan(**{"n_tokens": 1000, "batch_size": 100} | value)


def test_a_plan_changes_only_what_it_has():
    assert Plan(n_tokens=1000, batch_size=100).replace(lr=0.5).lr == 0.5
    with pytest.raises(InputError, match="value of a plan: 'learning_rate'.*'lr'|learning_rate"):
        Plan(n_tokens=1000, batch_size=100).replace(learning_rate=0.5)


def test_the_learning_rate_climbs_stays_and_falls():
    plan = Plan(n_tokens=1000, batch_size=10, lr=2.0, warmup=0.1, decay=0.2)  # 100 steps
    rates = [learning_rate(plan, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0)
    assert rates[9:81] == pytest.approx([2.0] * 72)
    assert rates[90] == pytest.approx(1.0) and rates[99] == pytest.approx(0.1)
    constant = Plan(n_tokens=1000, batch_size=10, lr=2.0, warmup=0, decay=0)
    assert {learning_rate(constant, step) for step in range(100)} == {2.0}


def test_the_sparsity_coefficient_warms_up_from_zero():
    plan = Plan(n_tokens=1000, batch_size=10, l1_warmup=0.5)
    assert [sparsity_warmth(plan, step) for step in (0, 25, 50, 99)] == [0, 0.5, 1, 1]
    assert sparsity_warmth(plan.replace(l1_warmup=0.0), 0) == 1


def test_the_schedule_reaches_the_sae_and_the_optimiser(monkeypatch):
    seen = []
    losses = type(fresh("relu")).losses

    def spy(self, x, target=None, *, warm=1.0, dead=None):
        seen.append(warm)
        return losses(self, x, target, warm=warm, dead=dead)

    monkeypatch.setattr(type(fresh("relu")), "losses", spy)
    plan = PLAN.replace(l1_warmup=0.5, log_every=1, step="dense")
    log = run(fresh("relu"), TensorSource(numbers(1000)), plan).log
    assert seen == [sparsity_warmth(plan, step) for step in range(plan.n_steps)]
    assert log["lr"].tolist() == [learning_rate(plan, step) for step in range(plan.n_steps)]
    assert log["warm"].tolist() == seen


# ---- sources


def test_a_store_goes_on_at_any_step_with_the_same_batches(store):
    source = StoreSource(store, HOOK, buffer_tokens=256)
    whole = first(source, 80, 64, 3)  # about 28 steps to an epoch
    for start in (0, 1, 3, 4, 27, 28, 29, 57, 79):
        assert torch.equal(first(source, 80 - start, 64, 3, start), whole[start * 64 :]), start
    assert not torch.equal(first(source, 5, 64, 4), whole[: 5 * 64])


def test_an_epoch_of_a_store_holds_every_training_token_once(store):
    source = StoreSource(store, HOOK, buffer_tokens=256)
    steps = source.n_tokens // 64
    wanted = store.read(HOOK, 0, store.n_tokens)[~store.is_bos & ~store.test]
    assert source.n_tokens == len(wanted)
    known = {tuple(row.tolist()) for row in wanted}
    for epoch in range(2):
        rows = {tuple(row.tolist()) for row in first(source, steps, 64, 0, epoch * steps)}
        assert len(rows) == steps * 64 and rows <= known
    assert not torch.equal(first(source, 3, 64), first(source, 3, 64, 0, steps))  # another order


@pytest.mark.parametrize("kind", ["store", "tensor"])
def test_processes_share_the_rows_of_every_batch(store, kind):
    source = StoreSource(store, HOOK, buffer_tokens=256) if kind == "store" else TensorSource(numbers(500))
    whole = first(source, 40, 60, 1, 2)
    parts = [first(source, 40, 60, 1, 2, (rank, 3)) for rank in range(3)]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)
    with pytest.raises(InputError, match="which 7 processes cannot share evenly"):
        source.batches(60, stripe=(0, 7))


def test_a_store_without_shuffling_starts_and_shares_too(store):
    whole = torch.cat([batch.index for batch in store.batches(HOOK, 64)])
    late = torch.cat([batch.index for batch in store.batches(HOOK, 64, start=3, stripe=(1, 2))])
    assert torch.equal(late, torch.cat([part[1::2] for part in whole[3 * 64 :].split(64)]))


def test_pairs_of_hook_points_belong_together(store):
    source = StoreSource(store, HOOK, target_hook=OTHER, buffer_tokens=256)
    x = store.read(HOOK, 0, store.n_tokens)
    y = store.read(OTHER, 0, store.n_tokens)
    partner = {tuple(a.tolist()): tuple(b.tolist()) for a, b in zip(x, y, strict=True)}
    batches = [batch for _, batch in zip(range(40), source.batches(64), strict=False)] + [source.sample(100)]
    batches.append(source.held_out(50))
    assert (source.d_in, source.d_out) == (D, 2 * D)
    for batch in batches:
        assert all(partner[tuple(a.tolist())] == tuple(b.tolist()) for a, b in zip(*batch, strict=True))


def test_a_tensor_goes_on_at_any_step(store):
    source = TensorSource(numbers(300), numbers(300, seed=9))
    whole = first(source, 20, 64, 5)
    assert all(torch.equal(first(source, 20 - k, 64, 5, k), whole[k * 64 :]) for k in (1, 3, 4, 5, 17))
    assert len({tuple(row.tolist()) for row in whole[: 4 * 64]}) == 4 * 64


def test_what_is_held_out_is_never_trained_on(store):
    source = StoreSource(store, HOOK)
    held_out = {tuple(row.tolist()) for row in source.held_out(10**6).x}
    assert len(held_out) == int((store.test & ~store.is_bos).sum())
    assert not held_out & {tuple(row.tolist()) for row in first(source, 60, 64)}
    assert StoreSource(store, HOOK, split=None).held_out(10) is None
    assert TensorSource(numbers(10)).held_out(5) is None
    assert TensorSource(numbers(10), held_out=numbers(8, 1)).held_out(5).x.shape == (5, D)


def test_the_scale_brings_vectors_to_length_sqrt_d(store):
    source = StoreSource(store, HOOK, target_hook=OTHER)
    x, y = source.sample()
    assert (x * source.scale()).norm(dim=1).mean().item() == pytest.approx(D**0.5, rel=1e-5)
    assert (y * source.target_scale()).norm(dim=1).mean().item() == pytest.approx((2 * D) ** 0.5, rel=1e-5)
    with pytest.raises(InputError, match="mean length 0"):
        TensorSource(torch.zeros(10, 3)).scale()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda store: StoreSource(store), "several hook points: choose one of"),
        (lambda store: StoreSource(store, "blocks.9.hook_x"), "unknown hook point"),
        (lambda store: StoreSource(store, HOOK, split="dev"), "split"),
        (lambda store: StoreSource("store"), "must be an ActivationStore, got str"),
        (lambda store: TensorSource([1.0]), "x must be a torch.Tensor"),
        (lambda store: TensorSource(numbers(10), numbers(9)), "x has 10 rows, target 9"),
        (lambda store: HarvestSource(StubModel(), "one text", HOOKS[0]), "texts must be a list or a function"),
        (lambda store: HarvestSource(StubModel(), iter(TEXTS), HOOKS[0]), "lambda: open_texts"),
        (lambda store: HarvestSource(StubModel(), [], HOOKS[0]), "has no text"),
        (lambda store: HarvestSource(StubModel(), TEXTS, "blocks.7.hook_x"), "blocks.7.hook_x"),
    ],
)
def test_a_bad_source_is_refused(store, make, says):
    with pytest.raises(InputError, match=says):
        make(store)


# ---- a model that runs as training goes on


def rows_of(x):
    return sorted(tuple(row.tolist()) for row in x)


def test_harvesting_as_it_trains_gives_the_models_activations():
    model = StubModel()
    source = HarvestSource(model, TEXTS, HOOKS[0], target_hook=HOOKS[1], buffer_tokens=96, rows=4)
    tokens = tokenize(model, TEXTS)
    stream = extract(model, tokens, HOOKS[0])[HOOKS[0]][tokens.content]
    batches = [batch for _, batch in zip(range(3 * (len(stream) // 96)), source.batches(32), strict=False)]
    for k in range(0, len(batches), 3):  # a buffer of three batches is a stretch of the text
        dealt = torch.cat([batch.x for batch in batches[k : k + 3]])
        wanted = stream[k * 32 : k * 32 + 96]
        assert np.allclose(rows_of(dealt), rows_of(wanted), atol=1e-5)
        assert not torch.allclose(dealt, wanted)  # mixed
    assert all(torch.allclose(batch.target, batch.x.square()) for batch in batches)
    assert torch.allclose(source.sample(50).x, stream[:50])


def test_harvesting_goes_on_at_any_step_and_over_the_end_of_the_text():
    calls = []
    model = StubModel(tick=lambda: calls.append(1))
    source = HarvestSource(model, lambda: iter(TEXTS), HOOKS[0], buffer_tokens=96, rows=4)
    n_steps = 2 * sum(min(len(text), 31) for text in TEXTS) // 32  # two times through the text
    whole = first(source, n_steps, 32, 7)
    for start in (0, 1, 2, 3, 10, n_steps - 4):
        calls.clear()
        assert torch.equal(first(source, n_steps - start, 32, 7, start), whole[start * 32 :]), start
    assert len(calls) < 20  # what is passed over does not go through the model


def test_each_process_harvests_its_own_texts():
    model = StubModel()
    source = HarvestSource(model, TEXTS, HOOKS[0], buffer_tokens=96, rows=4)
    for rank in range(2):
        mine = HarvestSource(model, TEXTS[rank::2], HOOKS[0], buffer_tokens=96, rows=4)
        dealt = first(source, 12, 32, 0, 0, (rank, 2))
        assert len(dealt) == 12 * 16
        assert np.allclose(rows_of(dealt[:48]), rows_of(mine.sample(48).x), atol=1e-5)


def test_an_sae_trains_on_a_running_model():
    source = HarvestSource(StubModel(), TEXTS, HOOKS[0], buffer_tokens=512)
    trained = run(make_sae("topk", 8, 32, k=4), source, Plan(n_tokens=6400, batch_size=64, lr=1e-2, log_every=10))
    x = source.sample(400).x
    assert explained_variance(x, trained.sae(x)) > 0.8


# ---- what comes out


def test_an_sae_learns_takes_raw_activations_and_leaves_its_argument_alone():
    x = 100 * numbers(3000)  # far from the length sqrt(d) that it is trained at
    sae = fresh("topk", k=5)
    before = {name: tensor.clone() for name, tensor in sae.state_dict().items()}
    trained = run(sae, TensorSource(x), PLAN.replace(n_tokens=64 * 300, resample_at=()))
    test = 100 * numbers(1000, seed=5)
    reached = explained_variance(test, trained.sae(test))
    assert reached > 0.75
    assert reached == pytest.approx(trained.log["ev"].iloc[-1], abs=0.1)
    untrained = fresh("topk", k=5)
    assert explained_variance(test, untrained(test)) < 0.5
    assert all(torch.equal(tensor, before[name]) for name, tensor in sae.state_dict().items())
    assert torch.allclose(trained.sae.W_dec.norm(dim=1), torch.ones(40), atol=1e-5)


def test_the_length_of_the_data_does_not_matter_when_it_is_scaled():
    x = numbers(2000)
    small, large = (run(fresh(), TensorSource(c * x)).log for c in (1.0, 1000.0))
    assert np.allclose(small["loss"], large["loss"], rtol=1e-3)
    raw = run(fresh(), TensorSource(1000 * x), PLAN.replace(normalise=False, diverged_at=math.inf)).log
    assert not np.allclose(raw["loss"], large["loss"], rtol=0.5)


def test_the_same_seed_gives_the_same_sae_and_another_seed_another():
    source = TensorSource(numbers(1000))
    a, b, c = (run(fresh("relu"), source, PLAN.replace(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(a.sae.W_enc, b.sae.W_enc) and not torch.equal(a.sae.W_enc, c.sae.W_enc)


def test_training_leaves_the_readers_dice_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    run(fresh(), TensorSource(numbers(1000)))
    assert torch.equal(torch.rand(3), wanted)


def test_a_saved_run_opens_in_sae_lens(store, tmp_path):
    trained = run(fresh("batchtopk"), StoreSource(store, HOOK), path=tmp_path / "run")
    opened = load_sae_from_disk(tmp_path / "run" / "sae", device="cpu")
    x = numbers(200, seed=3)
    assert torch.allclose(opened.encode(x), trained.sae.encode(x), atol=1e-5)
    assert torch.allclose(opened.decode(opened.encode(x)), trained.sae(x), atol=1e-5)
    about = opened.cfg.metadata
    assert (about.hook_name, about.model_name, about.context_size, about.prepend_bos) == (HOOK, "none", 20, True)


def test_a_target_names_the_model_in_the_saved_sae(tmp_path, target):
    run(fresh(), TensorSource(numbers(1000)), path=tmp_path / "run", target=target)
    about = load_sae_from_disk(tmp_path / "run" / "sae").cfg.metadata
    assert (about.hook_name, about.model_name) == (target.hook, target.model)


def test_how_the_models_weights_were_processed_is_saved_too(tmp_path, target):
    """`preflight` compares it with the model that an SAE is used on."""
    about = {"processing": ["center_writing_weights"]}
    centred = {"center_writing_weights": True, "fold_ln": False}
    for name, source, of in (
        ("source", TensorSource(numbers(1000), about=about), None),
        ("target", TensorSource(numbers(1000)), dataclasses.replace(target, processing=centred)),
    ):
        run(fresh(), source, path=tmp_path / name, target=of)
        saved = load_sae_from_disk(tmp_path / name / "sae").cfg.metadata.model_from_pretrained_kwargs
        assert [step for step, applied in saved.items() if applied] == ["center_writing_weights"]


def test_a_transcoder_learns_to_predict_another_place(store):
    source = StoreSource(store, HOOK, target_hook=OTHER)
    plan = PLAN.replace(n_tokens=64 * 300, resample_at=(), lr=1e-2)
    trained = run(make_sae("relu", D, 40, d_out=2 * D, l1=0.05), source, plan)
    x, y = source.held_out(400)
    assert explained_variance(y, trained.sae(x)) > 0.7
    strangers = TensorSource(source.sample(1000, seed=1).x, source.sample(1000, seed=2).target)  # pairs torn apart
    unrelated = run(make_sae("relu", D, 40, d_out=2 * D, l1=0.05), strangers, plan)
    assert explained_variance(y, unrelated.sae(x)) < 0.2


def test_fine_tuning_begins_where_it_is_told_to():
    source = TensorSource(50 * numbers(2000))
    trained = run(fresh("topk", k=5), source, PLAN.replace(n_tokens=64 * 200, resample_at=()))
    plan = PLAN.replace(n_tokens=64 * 10, resample_at=(), log_every=1, lr=1e-5)
    again = run(trained.sae, source, plan.replace(initialise=False)).log["ev"]
    anew = run(trained.sae, source, plan).log["ev"]
    assert again.iloc[0] == pytest.approx(trained.log["ev"].iloc[-1], abs=0.08)
    assert anew.iloc[0] < again.iloc[0] - 0.05


def test_gradients_that_lie_in_memory_in_another_way_give_the_same_sae(monkeypatch):
    """The fused optimiser pairs numbers by their place in memory. A transposed gradient must not mislead it."""
    source = TensorSource(numbers(1000))
    wanted = run(fresh("topk"), source)
    from solutions.sae.training import run as module

    plain = module.step_gradients

    def transposed(sae, *args, **settings):
        found = plain(sae, *args, **settings)
        for weight in (sae.W_enc, sae.W_dec):
            other = weight.grad.T.clone(memory_format=torch.contiguous_format).T
            weight.grad = other if other.stride() != weight.stride() else weight.grad.contiguous()
        return found

    monkeypatch.setattr(module, "step_gradients", transposed)
    found = run(fresh("topk"), source)
    assert torch.allclose(found.sae.W_enc, wanted.sae.W_enc, atol=1e-6)
    assert torch.allclose(found.sae.W_dec, wanted.sae.W_dec, atol=1e-6)


def test_clipping_holds_the_weights_back():
    source, plan = TensorSource(numbers(1000)), PLAN.replace(resample_at=(), log_every=1)
    still = Run(fresh("topk"), source, plan.replace(clip=1e-14))
    before = still.sae.W_enc.detach().clone()
    for _, batch in zip(range(5), still.batches(), strict=False):
        still.advance(batch)
    assert torch.allclose(still.sae.W_enc, before, atol=1e-5)
    moved = Run(fresh("topk"), source, plan.replace(clip=None))
    for _, batch in zip(range(5), moved.batches(), strict=False):
        moved.advance(batch)
    assert not torch.allclose(moved.sae.W_enc, before, atol=1e-3)


def test_mixed_precision_learns_as_well_and_keeps_full_weights():
    source, plan = TensorSource(numbers(2000)), PLAN.replace(n_tokens=64 * 200, resample_at=())
    full, mixed = (run(fresh("topk"), source, plan.replace(precision=p)) for p in ("float32", "bfloat16"))
    assert mixed.sae.W_enc.dtype == torch.float32
    assert mixed.log["ev"].iloc[-1] == pytest.approx(full.log["ev"].iloc[-1], abs=0.05)
    assert not torch.equal(full.sae.W_enc, mixed.sae.W_enc)


# ---- dead latents


def with_a_dead_latent():
    """An SAE whose latent 7 cannot fire."""
    sae = fresh("relu", l1=0.1)
    with torch.no_grad():
        sae.b_enc[7] = -1000.0
    return sae


def test_dead_latents_are_counted_in_tokens():
    plan = Plan(n_tokens=64 * 30, batch_size=64, initialise=False, dead_after=640, log_every=1)
    dead = run(with_a_dead_latent(), TensorSource(numbers(1000)), plan).log["dead"]
    assert dead.iloc[8] == 0  # 9 steps, 576 tokens
    assert dead.iloc[9] >= 1 / 40 and dead.iloc[-1] >= 1 / 40


def test_resampling_brings_a_dead_latent_back_to_life():
    plan = Plan(n_tokens=64 * 60, batch_size=64, initialise=False, dead_after=640, log_every=1)
    source = TensorSource(numbers(1000))
    assert run(with_a_dead_latent(), source, plan).sae.b_enc[7] < -100
    revived = run(with_a_dead_latent(), source, plan.replace(resample_at=(20,)))
    x = numbers(1000)
    assert (revived.sae.encode(x)[:, 7] > 0).any()
    assert revived.log["dead"].iloc[20] == 0


def test_the_dead_are_shown_to_the_loss(monkeypatch):
    seen = []
    kind = type(fresh("relu"))
    losses = kind.losses

    def spy(self, x, target=None, *, warm=1.0, dead=None):
        seen.append(None if dead is None else dead.clone())
        return losses(self, x, target, warm=warm, dead=dead)

    monkeypatch.setattr(kind, "losses", spy)
    plan = Plan(n_tokens=64 * 15, batch_size=64, initialise=False, dead_after=640, step="dense")
    run(with_a_dead_latent(), TensorSource(numbers(1000)), plan)
    assert all(dead is None for dead in seen[:10])
    assert all(dead is not None and dead[7] for dead in seen[10:])


# ---- the log


def test_the_log_is_a_table_in_memory_and_on_disk(tmp_path):
    trained = run(fresh(), TensorSource(numbers(1000)), path=tmp_path / "run")
    log = trained.log
    assert list(log) == list(COLUMNS) and log["step"].tolist() == [1, *range(4, 61, 4)]
    assert log["tokens"].tolist() == [64 * step for step in log["step"]]
    pd.testing.assert_frame_equal(read_log(tmp_path / "run"), log)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "log.csv", float_precision="round_trip"), log)
    total = log["reconstruction"] + log["sparsity"] + log["auxiliary"]
    assert np.allclose(log["loss"], total, rtol=1e-5)
    with pytest.raises(InputError, match="no log at"):
        read_log(tmp_path / "elsewhere")


def test_a_row_that_is_being_written_is_not_read(tmp_path):
    run(fresh(), TensorSource(numbers(1000)), path=tmp_path)
    path = tmp_path / "log.csv"
    path.write_text(path.read_text()[:-5])
    assert read_log(tmp_path)["step"].iloc[-1] == 56


def test_explained_variance_in_the_log_is_that_of_the_batch():
    x = numbers(640)
    job = Run(fresh("topk"), TensorSource(x), PLAN.replace(log_every=1, resample_at=()))
    for _, batch in zip(range(5), job.batches(), strict=False):
        wanted = explained_variance(batch.x, job.sae(batch.x * job.scale) / job.scale)
        active = (job.sae.encode(batch.x * job.scale) != 0).sum(dim=1).float().mean().item()
        job.advance(batch)
        assert job.log.rows[-1]["ev"] == pytest.approx(wanted, abs=1e-4)
        assert job.log.rows[-1]["l0"] == pytest.approx(active)


def test_whoever_wants_to_watch_sees_the_log_grow():
    sizes = []
    run(fresh(), TensorSource(numbers(1000)), live=lambda table: sizes.append(len(table)))
    assert sizes == list(range(1, 17))


def test_curves_grow_in_the_same_place(monkeypatch):
    shown = []

    class Place:
        def update(self, figure):
            shown.append(("update", figure))

    def display(figure, display_id):
        shown.append(("first", figure))
        return Place()

    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", display)
    curves = LiveCurves(figure=len, pause=0.0)
    for n in (1, 2, 3):
        curves(pd.DataFrame({"step": range(n)}))
    assert shown == [("first", 2), ("update", 3)]
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    run(fresh(), TensorSource(numbers(1000)), live=True)  # no notebook: nothing to draw in
    assert len(shown) == 2


# ---- arguments that do not fit


@pytest.mark.parametrize(
    ("sae", "source", "plan", "says"),
    [
        (lambda: "sae", lambda: TensorSource(numbers(100)), PLAN, "sae must be an SAE of make_sae, got str"),
        (fresh, lambda: numbers(100), PLAN, r"got Tensor. Of a tensor: TensorSource\(x\)"),
        (fresh, lambda: TensorSource(numbers(100)), {"n_tokens": 5}, "plan must be a Plan, got dict"),
        (lambda: make_sae("relu", 5, 10), lambda: TensorSource(numbers(100)), PLAN, "source gives 12 .* SAE reads 5"),
        (fresh, lambda: TensorSource(numbers(100), numbers(100)), PLAN, "source gives pairs, for a transcoder"),
        (lambda: make_sae("relu", D, 10, d_out=D), lambda: TensorSource(numbers(100)), PLAN, "this is a transcoder"),
        (fresh, lambda: TensorSource(numbers(50)), PLAN, "takes 64 tokens from a source that holds only 50"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_any_work(tmp_path, sae, source, plan, says):
    with pytest.raises(InputError, match=says):
        train(sae(), source(), plan, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
