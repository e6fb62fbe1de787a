"""Exercise 7.8: gradient × activation. The stand-in for the model lets every token read the ones before it."""

from __future__ import annotations

import torch
from torch import Tensor

from labs.checks.compare import agree
from labs.checks.exercise import Exercise, Property, Wrong, whole
from labs.checks.lab07.mixing import MixingModel, SmallSAE


def draw_text(generator) -> dict:
    """One text after a BOS, an SAE at one of the hook points, and the difference of two logits at its end."""
    n_layers, d_model, d_vocab = whole(generator, 2, 4), whole(generator, 5, 9), whole(generator, 12, 20)
    ids = torch.randint(1, d_vocab, (1, whole(generator, 4, 8)), generator=generator)
    ids[:, 0] = 0
    sae = SmallSAE(d_model, 3 * d_model, generator)
    answer, foil = torch.randperm(d_vocab, generator=generator)[:2].tolist()
    return {
        "model": MixingModel(n_layers, d_model, d_vocab, seed=whole(generator, 0, 10_000)),
        "ids": ids,
        "hook": f"blocks.{whole(generator, 0, n_layers - 1)}.hook_resid_pre",
        "encode": sae.encode,
        "decode": sae.decode,
        "metric": lambda logits: logits[:, -1, answer] - logits[:, -1, foil],
    }


def try_it(answer: Callable, args: dict):
    """As in the lab, where gradients are off until somebody switches them on."""
    with torch.no_grad():
        return answer(*args.values())


def gradient_times_activation(model, ids: Tensor, hook: str, encode, decode, metric) -> Tensor:
    latents, error = _apart(model, ids, hook, encode, decode)
    return latents * _slope(model, ids, hook, metric, latents, lambda z: decode(z) + error)


def _apart(model, ids, hook, encode, decode) -> tuple[Tensor, Tensor]:
    """[pos, d_sae] latents, silent on BOS, and [pos, d_in] what they leave out."""
    with torch.no_grad():
        acts = model.run_with_cache(ids, names_filter=hook)[1][hook][0]
        latents = encode(acts)
        latents[0] = 0.0
        return latents, acts - decode(latents)


def _slope(model, ids, hook, metric, latents, rebuild) -> Tensor:
    with torch.enable_grad():
        moved = latents.clone().requires_grad_()
        logits = model.run_with_hooks(ids, fwd_hooks=[(hook, lambda acts, hook: rebuild(moved)[None])])
        return torch.autograd.grad(metric(logits).sum(), moved)[0]


# ---- what people do instead


def _without_error(model, ids, hook, encode, decode, metric, keep_bos=True) -> Tensor:
    latents, error = _apart(model, ids, hook, encode, decode)
    bos = torch.zeros(len(latents), 1)
    bos[0] = float(keep_bos)
    return latents * _slope(model, ids, hook, metric, latents, lambda z: decode(z) + bos * error)


def _with_bos(model, ids, hook, encode, decode, metric, keep_error=True) -> Tensor:
    with torch.no_grad():
        acts = model.run_with_cache(ids, names_filter=hook)[1][hook][0]
        latents = encode(acts)
        error = (acts - decode(latents)) * keep_error
    return latents * _slope(model, ids, hook, metric, latents, lambda z: decode(z) + error)


def _cancelled(model, ids, hook, encode, decode, metric) -> Tensor:
    latents, error = _apart(model, ids, hook, encode, decode)
    acts = decode(latents) + error
    return latents * _slope(model, ids, hook, metric, latents, lambda z: decode(z) + (acts - decode(z)))


def _slope_alone(model, ids, hook, encode, decode, metric) -> Tensor:
    latents, error = _apart(model, ids, hook, encode, decode)
    return _slope(model, ids, hook, metric, latents, lambda z: decode(z) + error)


def _last_token(*args) -> Tensor:
    right = gradient_times_activation(*args)
    return torch.cat([torch.zeros_like(right[:-1]), right[-1:]])


def _ablations(model, ids, hook, encode, decode, metric) -> Tensor:
    """What really happens without each latent: a run for each."""
    latents, error = _apart(model, ids, hook, encode, decode)
    effects = torch.zeros_like(latents)
    at, j = latents.nonzero().T
    row = torch.arange(len(at))
    left = latents.repeat(len(at), 1, 1)
    left[row, at, j] = 0.0
    hooks = [(hook, lambda acts, hook: decode(left) + error)]
    without = metric(model.run_with_hooks(ids.expand(len(at), -1), fwd_hooks=hooks))
    effects[at, j] = metric(model.run_with_hooks(ids)) - without
    return effects


def _switched_on(*args) -> Tensor:
    found = gradient_times_activation(*args)
    torch.set_grad_enabled(True)
    return found


# ---- recognising them


def _no_error_at_all(answer, args, output) -> bool:
    """The error is missing, whatever was done about BOS."""
    right = gradient_times_activation(**args)
    rivals = [
        _without_error(**args),
        _without_error(**args, keep_bos=False),
        _with_bos(**args, keep_error=False),
    ]
    return any(agree(output[1:], rival[1:]) and not agree(rival[1:], right[1:]) for rival in rivals)


def _where_silent(answer, args, output) -> bool:
    latents = _apart(*list(args.values())[:5])[0]
    return bool(output[1:][latents[1:] == 0].abs().max() > 1e-6)


def _leaves_gradients_on(answer, args, output) -> bool:
    with torch.no_grad():
        answer(*args.values())
        return torch.is_grad_enabled()


def _only_the_end(answer, args, output) -> bool:
    return bool((output[:-1] == 0).all()) and bool((output[-1] != 0).any())


def _small_step(answer, args, output: Tensor) -> str | None:
    """Turned down by a hundredth, the latent with the largest share must cost a hundredth of it."""
    model, ids, hook, encode, decode, metric = args.values()
    latents, error = _apart(model, ids, hook, encode, decode)
    at, j = divmod(int(gradient_times_activation(**args).abs().argmax()), latents.shape[1])
    less = latents.clone()
    less[at, j] *= 0.99
    both = decode(torch.stack([latents, less])) + error
    gap = metric(model.run_with_hooks(ids.expand(2, -1), fwd_hooks=[(hook, lambda acts, hook: both)]))
    share, found = 100 * (gap[0] - gap[1]).item(), output[at, j].item()
    if abs(found - share) < 0.02 + 0.05 * abs(share):
        return None
    return (
        f"A hundredth less of latent {j} at token {at} costs {share:.3g} hundredths of a logit. "
        f"Your share says {found:.3g}."
    )


GRADIENT = Exercise(
    number="7.8",
    name="gradient_times_activation",
    returns='Float[Tensor, "pos d_sae"]',
    draw=draw_text,
    reference=gradient_times_activation,
    run=try_it,
    wrong=(
        Wrong(
            "gradients left on",
            _switched_on,
            "After your function gradients are switched on for everybody. The next cell keeps every activation it "
            "computes, and memory runs out far from here. `with torch.enable_grad():` switches them off again.",
            recognise=_leaves_gradients_on,
        ),
        Wrong(
            "cancelled",
            _cancelled,
            "All your shares are 0. The error is computed from the same latents that ask for a gradient, so what "
            "`decode(latents)` puts in, the error takes out again. Compute the error first, and hold it fixed: it "
            "must not depend on the latents that move.",
            recognise=lambda answer, args, output: not bool(output.any()),
        ),
        Wrong(
            "slope alone",
            _slope_alone,
            "Latents that are silent have a share in yours. You return the slope, in logits per unit of activation. "
            "A latent that is 0 has nothing to lose: multiply by the activation.",
            recognise=_where_silent,
        ),
        Wrong(
            "error thrown away",
            _without_error,
            "You threw the error term away: the model read `decode(latents)` alone. That is another text than the "
            "one that was asked about, and its slopes are others. Add `acts - decode(latents)`, held fixed.",
            recognise=_no_error_at_all,
        ),
        Wrong(
            "BOS has shares, too",
            _with_bos,
            "BOS has shares in yours. It is no word, the SAE never saw one, and attention uses it as a resting "
            "place. Set its latents to 0 before you compute the error; then it is all error, and stays as it is.",
            recognise=lambda answer, args, output: bool(output[0].any()),
        ),
        Wrong(
            "the last token only",
            _last_token,
            "Only the last token has shares. The metric is read there, but later layers read every token before it. "
            "Let the latents of all tokens ask for a gradient.",
            recognise=_only_the_end,
        ),
        Wrong(
            "sizes",
            lambda *args: gradient_times_activation(*args).abs(),
            "You took the absolute value. A latent that speaks for the answer and one that speaks against it then "
            "look alike, and nothing can add up. Keep the sign.",
        ),
        Wrong(
            "sign",
            lambda *args: -gradient_times_activation(*args),
            "Your signs are the wrong way round. The share is what the metric would *lose* without the latent: "
            "activation times slope, without a minus.",
        ),
        Wrong(
            "the truth",
            _ablations,
            "These are true ablations: you ran the model again for each latent. It is right, slow, and another "
            "exercise. Here one backward pass guesses them all: `torch.autograd.grad(metric, latents)`.",
        ),
        Wrong(
            "activation squared",
            lambda *args: gradient_times_activation(*args) * _apart(*args[:5])[0],
            "You multiplied by the activation twice. Slope times activation is in logits; once more, and it is in "
            "nothing.",
        ),
    ),
    properties=(Property("A share is a slope times the whole activation.", _small_step),),
    look_at="gradients are off in this lab: compute inside `with torch.enable_grad():`, from a clone of the latents "
    "with `.requires_grad_()`.",
    saw="every latent at every token priced with one backward pass. It is a guess: 7.11 holds it against the truth.",
)

EXERCISES = (GRADIENT,)
