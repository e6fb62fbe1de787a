"""Exercises 4.8 and 4.10: dead latents, brought back by resampling or given a loss of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from labs.checks.compare import agree, plain
from labs.checks.exercise import Exercise, Property, Wrong, normal, whole
from labs.checks.lab04.small_sae import draw_params, keep_top, seen_in

# --- 4.8 ------------------------------------------------------------


class Pick:
    """`pick(weights, n)` draws n row numbers with chances in proportion to the weights; always the same draw."""

    def __init__(self, seed: int):
        self.seed = seed

    def __call__(self, weights: Tensor, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.multinomial(weights.detach().double(), n, replacement=True, generator=generator)


def draw_dead(generator) -> dict:
    """An SAE with dead latents of tiny weights, Adam's averages, and tokens of very unequal loss."""
    n, d_in, d_sae = whole(generator, 40, 60), whole(generator, 4, 7), whole(generator, 16, 24)
    params = draw_params(generator, d_in, d_sae, unit=True)
    dead = torch.zeros(d_sae, dtype=torch.bool)
    dead[torch.randperm(d_sae, generator=generator)[: whole(generator, 4, 7)]] = True
    params["W_enc"] = torch.where(dead, 0.1, 1.0) * params["W_enc"]
    return {
        "params": params,
        "moments": {name: normal(generator, *w.shape) for name, w in params.items()},
        "x": normal(generator, n, d_in) + params["b_dec"],
        "losses": normal(generator, n).abs() + 0.05,
        "dead": dead,
        "pick": Pick(whole(generator, 0, 10_000)),
    }


def resample(params, moments, x, losses, dead, pick) -> tuple[dict, dict]:
    return _resampled(params, moments, x, dead, pick(losses.pow(2), int(dead.sum())))


def _resampled(
    params, moments, x, dead, rows, *, centred=True, share=0.2, alive=True, unit=True, **kept
) -> tuple[dict, dict]:
    """Resampling, with each of the usual slips to be had by a switch. `kept` names what is left as it was."""
    found = x[rows] - (params["b_dec"] if centred else 0)
    directions = normalize(found, dim=1)
    lengths = params["W_enc"].norm(dim=0)
    length = lengths[~dead].mean() if alive else lengths.mean()
    if kept.get("rows_of_W_enc"):
        length = params["W_enc"][:, ~dead].norm(dim=1).mean()
    new, cleared = ({name: tensor.clone() for name, tensor in given.items()} for given in (params, moments))
    new["W_dec"][dead] = directions if unit else found
    new["W_enc"][:, dead] = share * length * directions.T
    if not kept.get("bias"):
        new["b_enc"][dead] = 0
    if not kept.get("memory"):
        cleared["W_dec"][dead] = 0
        cleared["W_enc"][:, dead] = 0
        cleared["b_enc"][dead] = 0
    return new, cleared


def _drawn(args: tuple) -> tuple:
    params, moments, x, losses, dead, pick = args
    return params, moments, x, dead, pick(losses.pow(2), int(dead.sum()))


def _all_moments(*args) -> tuple[dict, dict]:
    new, cleared = _resampled(*_drawn(args))
    return new, {name: torch.zeros_like(moment) for name, moment in cleared.items()}


#: The parts of an answer by which a mistake is recognised, so that two mistakes are told one after the other.
PARTS = {
    "W_dec": lambda output: output[0]["W_dec"],
    "b_enc": lambda output: output[0]["b_enc"],
    "lengths": lambda output: output[0]["W_enc"].norm(dim=0),
    "moments": lambda output: output[1],
}


def _in_part(part: str, name: str, message: str, answer: Callable) -> Wrong:
    """A mistake that shows in one part of the answer."""
    return Wrong(name, answer, message, recognise=seen_in(PARTS[part], answer, resample))


def _draws_again(answer, args, output) -> bool:
    calls, pick = [], args["pick"]
    answer(*(args | {"pick": lambda weights, n: (calls.append(1), pick(weights, n))[1]}).values())
    return len(calls) > 1


def _one_by_one(params, moments, x, losses, dead, pick) -> tuple[dict, dict]:
    rows = torch.cat([pick(losses.pow(2), 1) for _ in range(int(dead.sum()))])
    return _resampled(params, moments, x, dead, rows)


def _living_untouched(answer, args, output) -> str | None:
    alive, before = ~args["dead"], args["params"]
    same = (
        torch.equal(output[0]["W_dec"][alive], before["W_dec"][alive])
        and torch.equal(output[0]["W_enc"][:, alive], before["W_enc"][:, alive])
        and torch.equal(output[0]["b_enc"][alive], before["b_enc"][alive])
        and torch.equal(output[0]["b_dec"], before["b_dec"])
    )
    return None if same else "Yours changes a weight of a living latent, or `b_dec`."


def _unit_rows(answer, args, output) -> str | None:
    lengths = output[0]["W_dec"][args["dead"]].norm(dim=1)
    worst = lengths[(lengths - 1).abs().argmax()]
    return None if abs(worst - 1) < 1e-3 else f"One of yours is {float(worst):.3g} long."


RESAMPLE = Exercise(
    number="4.8",
    name="resample",
    returns="tuple[dict[str, Tensor], dict[str, Tensor]]",
    draw=draw_dead,
    reference=resample,
    wrong=(
        Wrong(
            "drawn one by one",
            _one_by_one,
            "You call `pick` more than once. Draw for all the dead latents in one call, "
            "`pick(weights, n)` with their number for `n`: that gives one row number for each.",
            recognise=_draws_again,
        ),
        _in_part(
            "W_dec",
            "chances as the loss",
            "You drew tokens with chances in proportion to their loss. The recipe squares it, so that the "
            "worst tokens are drawn far more often than the middling ones.",
            lambda params, moments, x, losses, dead, pick: _resampled(
                params, moments, x, dead, pick(losses, int(dead.sum()))
            ),
        ),
        _in_part(
            "W_dec",
            "all alike",
            "You drew all tokens with equal chances. A dead latent is to be sent where help is needed: "
            "chances in proportion to the squared loss.",
            lambda params, moments, x, losses, dead, pick: _resampled(
                params, moments, x, dead, pick(torch.ones_like(losses), int(dead.sum()))
            ),
        ),
        _in_part(
            "W_dec",
            "the worst ones",
            "You took the tokens with the largest losses, without drawing. They are often alike, and then "
            "all the revived latents become one and the same: draw with `pick`.",
            lambda params, moments, x, losses, dead, pick: _resampled(
                params, moments, x, dead, losses.topk(int(dead.sum())).indices
            ),
        ),
        _in_part(
            "W_dec",
            "bias not taken off",
            "You used the tokens as they are. The encoder sees `x - b_dec`, so that is the direction to "
            "point at; otherwise every revived latent points at the mean.",
            lambda *args: _resampled(*_drawn(args), centred=False),
        ),
        _in_part(
            "W_dec",
            "decoder rows not of length 1",
            "Your new decoder rows have the length of the tokens. All others have length 1: normalise.",
            lambda *args: _resampled(*_drawn(args), unit=False),
        ),
        _in_part(
            "lengths",
            "encoder at full size",
            "Your new encoder columns are as long as those of the living. They are made `0.2` times as "
            "long on purpose, so that a revived latent does not upset the others at once.",
            lambda *args: _resampled(*_drawn(args), share=1.0),
        ),
        _in_part(
            "lengths",
            "mean of all",
            "You averaged the lengths of *all* encoder columns. The dead ones have often withered; the "
            "recipe takes the mean over the living.",
            lambda *args: _resampled(*_drawn(args), alive=False),
        ),
        _in_part(
            "lengths",
            "lengths of the rows",
            "You averaged the lengths of the *rows* of `W_enc`. A latent owns a column of it: "
            "`W_enc[:, ~dead].norm(dim=0)`.",
            lambda *args: _resampled(*_drawn(args), rows_of_W_enc=True),
        ),
        _in_part(
            "b_enc",
            "bias kept",
            "The encoder biases of the dead latents are as they were. A strongly negative one is often "
            "what killed the latent: set them to 0.",
            lambda *args: _resampled(*_drawn(args), bias=True),
        ),
        _in_part(
            "moments",
            "Adam not told",
            "Adam still remembers the gradients of the dead latents, and its next steps will push the new "
            "weights along them. Set the moments of everything you changed to 0.",
            lambda *args: _resampled(*_drawn(args), memory=True),
        ),
        _in_part(
            "moments",
            "all of Adam forgotten",
            "You cleared Adam's memory for all latents. The living ones have done nothing to deserve it: "
            "clear only what belongs to the dead.",
            _all_moments,
        ),
    ),
    properties=(
        Property("Living latents, and `b_dec`, must stay as they are.", _living_untouched),
        Property("A revived latent's decoder row must have length 1.", _unit_rows),
    ),
    look_at="the axes: latent j owns row j of `W_dec`, column j of `W_enc` and entry j of `b_enc`. Work "
    "on clones.",
    saw="dead latents sent to the tokens that the SAE explains worst. The optimiser's memory is part of a "
    "weight, and the easiest part to forget.",
)

# --- 4.10 -----------------------------------------------------------


def draw_aux(generator) -> dict:
    """A batch, its reconstruction, pre-activations, and dead latents: more than k, fewer than k, or none."""
    batch, d_in, d_sae = whole(generator, 9, 14), whole(generator, 4, 7), whole(generator, 16, 24)
    x = normal(generator, batch, d_in) + 1
    n_dead = (0, 2, 8, 9)[whole(generator, 0, 3)]
    dead = torch.zeros(d_sae, dtype=torch.bool)
    dead[torch.randperm(d_sae, generator=generator)[:n_dead]] = True
    return {
        "x": x,
        "x_hat": x + 0.5 * normal(generator, batch, d_in),
        "pre": normal(generator, batch, d_sae),
        "W_dec": normalize(normal(generator, d_sae, d_in), dim=1),
        "dead": dead,
        "k": whole(generator, 3, 5),
    }


def aux_loss(x, x_hat, pre, W_dec, dead, k) -> Tensor:
    return _aux(x - x_hat.detach(), pre.relu(), W_dec, dead, k)


def _aux(error: Tensor, values: Tensor, W_dec: Tensor, dead: Tensor, k: int) -> Tensor:
    if not dead.any():
        return torch.zeros(())
    z = keep_top(values[:, dead], min(k, int(dead.sum())))
    return (error - z @ W_dec[dead]).pow(2).sum(1).mean()


def _chosen_before_the_cut(x, x_hat, pre, W_dec, dead, k) -> Tensor:
    if not dead.any():
        return torch.zeros(())
    return (x - x_hat.detach() - (keep_top(pre.relu(), k) * dead) @ W_dec).pow(2).sum(1).mean()


def _pulls_at_the_living(answer, args, output) -> bool:
    if not agree(output, plain(aux_loss(*args.values()))):
        return False  # other mistakes come first
    x_hat = args["x_hat"].clone().requires_grad_()
    loss = answer(*(args | {"x_hat": x_hat}).values())
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return False
    loss.backward()
    return x_hat.grad is not None and bool(x_hat.grad.abs().max() > 0)


def _teaches_nobody(answer, args, output) -> bool:
    if not args["dead"].any() or not agree(output, plain(aux_loss(*args.values()))):
        return False
    pre, W_dec = args["pre"].clone().requires_grad_(), args["W_dec"].clone().requires_grad_()
    loss = answer(*(args | {"pre": pre, "W_dec": W_dec}).values())
    return not isinstance(loss, Tensor) or not loss.requires_grad


AUX = Exercise(
    number="4.10",
    name="aux_loss",
    returns='Float[Tensor, ""]',
    draw=draw_aux,
    reference=aux_loss,
    wrong=(
        Wrong(
            "pulls at the living",
            lambda x, x_hat, pre, W_dec, dead, k: _aux(x - x_hat, pre.relu(), W_dec, dead, k),
            "The number is right, and gradients flow back through `x_hat` into the *living* latents: they "
            "would be taught to leave something over for the dead. The error is a fixed target: "
            "`x_hat.detach()`.",
            recognise=_pulls_at_the_living,
        ),
        Wrong(
            "teaches nobody",
            lambda x, x_hat, pre, W_dec, dead, k: aux_loss(x, x_hat, pre, W_dec, dead, k).item(),
            "No gradient reaches the dead latents: the loss is cut off from `pre` and `W_dec`, by "
            "`.item()`, `.detach()` or `no_grad`. Only the error is a fixed target.",
            recognise=_teaches_nobody,
        ),
        Wrong(
            "x itself",
            lambda x, x_hat, pre, W_dec, dead, k: _aux(x, pre.relu(), W_dec, dead, k),
            "You let the dead latents rebuild `x`. The living do that already; the dead are to rebuild "
            "what is *left over*: `x - x_hat`.",
        ),
        Wrong(
            "the living too",
            lambda x, x_hat, pre, W_dec, dead, k: (
                torch.zeros(())
                if not dead.any()
                else _aux(x - x_hat.detach(), pre.relu(), W_dec, torch.ones_like(dead), k)
            ),
            "You chose the k largest among *all* latents. Those are mostly living ones. Cut `pre` and "
            "`W_dec` down to the dead first.",
        ),
        Wrong(
            "the living only",
            lambda x, x_hat, pre, W_dec, dead, k: _aux(x - x_hat.detach(), pre.relu(), W_dec, ~dead, k),
            "You chose among the living: `dead` is True where a latent is *dead*.",
        ),
        Wrong(
            "chosen before the cut",
            _chosen_before_the_cut,
            "You chose the k largest among *all* latents, and then kept the dead ones of them. Often none is "
            "left. Cut down to the dead first, and choose among them.",
        ),
        Wrong(
            "all of the dead",
            lambda x, x_hat, pre, W_dec, dead, k: _aux(
                x - x_hat.detach(), pre.relu(), W_dec, dead, len(dead)
            ),
            "All dead latents take part for every token. Only the k with the largest pre-activations are "
            "to, so that they specialise.",
        ),
        Wrong(
            "no ReLU",
            lambda x, x_hat, pre, W_dec, dead, k: _aux(x - x_hat.detach(), pre, W_dec, dead, k),
            "There is no ReLU on the pre-activations, so dead latents take part with negative strengths.",
        ),
        Wrong(
            "sign of the error",
            lambda x, x_hat, pre, W_dec, dead, k: _aux(x_hat.detach() - x, pre.relu(), W_dec, dead, k),
            "Your error has the wrong sign. What is left over is `x - x_hat`.",
        ),
        Wrong(
            "mean over d_in",
            lambda x, x_hat, pre, W_dec, dead, k: (
                _aux(x - x_hat.detach(), pre.relu(), W_dec, dead, k) / x.shape[1]
            ),
            "You averaged over the dimensions as well. The convention of this lab: sum over d_in, average "
            "over the batch.",
        ),
        Wrong(
            "summed over the batch",
            lambda x, x_hat, pre, W_dec, dead, k: (
                _aux(x - x_hat.detach(), pre.relu(), W_dec, dead, k) * len(x)
            ),
            "You summed over the batch. The convention of this lab: sum over d_in, average over the batch.",
        ),
        Wrong(
            "nobody dead",
            lambda x, x_hat, pre, W_dec, dead, k: (
                _aux(x - x_hat.detach(), pre.relu(), W_dec, dead, k)
                if dead.any()
                else (x - x_hat).pow(2).sum(1).mean()
            ),
            "Where no latent is dead you return the whole error. Nobody is there to learn from it: the "
            "loss is 0 then.",
        ),
    ),
    look_at="the cut: `pre[:, dead]` is [batch, n_dead] and `W_dec[dead]` is [n_dead, d_in]; there may be "
    "fewer than k.",
    saw="the dead get a job: rebuild the leftovers. Once they are good at it they are chosen, and are "
    "dead no longer.",
    cases=10,
)

EXERCISES_RESAMPLE, EXERCISES_AUX = (RESAMPLE,), (AUX,)
