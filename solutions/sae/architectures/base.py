"""What every SAE of this course shares: four weights, the way in and out, and the care of the decoder.

    pre = (x - b_dec) W_enc + b_enc        z = activate(pre)        x_hat = z W_dec + b_dec

The architectures differ in `activate` and in what they are trained on (`losses`). Names and shapes are SAELens's.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from solutions.errors import InputError, check_count, check_tensor


class Losses(NamedTuple):
    """What one training batch gives. `total` is what is minimised: the sum of the three after it."""

    total: Tensor
    """The loss, a 0-d tensor that can be sent backward."""
    reconstruction: Tensor
    """Squared error, summed over d_out, averaged over the batch; the same for every architecture."""
    sparsity: Tensor
    """The penalty for being active, coefficient and warm-up included; 0 where the architecture needs none."""
    auxiliary: Tensor
    """What keeps latents alive or in order (AuxK, ghost gradients, the gate's own error, shorter prefixes)."""
    z: Tensor
    """[batch, d_sae] latents as they were in training."""
    x_hat: Tensor
    """[batch, d_out] reconstructions."""


class TrainableSAE(nn.Module):
    """A sparse autoencoder that can be trained, saved for SAELens and read from it.

    Args:
        d_in: width of the activations.
        d_sae: number of latents.
        d_out: width of what is predicted. Leave it out for an SAE, which predicts its own input. Given, it makes
            a transcoder (Dunefsky et al. 2024, section 3): it reads one hook point and predicts another.
        seed: of the random directions that the decoder starts from.
        unit_norm: hold every decoder row at norm 1 while training (Bricken et al. 2023, appendix on training).
        subtract_b_dec: take `b_dec` off the input first. A transcoder does not: its `b_dec` lives in the output.
        tied: have no encoder weights of its own, but the decoder's transpose (`ReluSAE` only).

    Raises:
        InputError: a width below 1, or a setting that cannot be.
    """

    architecture: ClassVar[str]
    #: Parameters with one entry per latent, besides the two weight matrices.
    per_latent: ClassVar[tuple[str, ...]] = ("b_enc",)
    #: Those of them that are measured in the units of a latent, and so scale with it.
    in_latent_units: ClassVar[tuple[str, ...]] = ("b_enc",)
    #: The settings of the architecture; `hyper` collects them.
    settings: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        d_out: int | None = None,
        seed: int = 0,
        unit_norm: bool = True,
        subtract_b_dec: bool | None = None,
        tied: bool = False,
    ):
        super().__init__()
        self.d_in, self.d_sae = check_count(d_in, "d_in"), check_count(d_sae, "d_sae")
        self.d_out = self.d_in if d_out is None else check_count(d_out, "d_out")
        self.unit_norm = check_switch(unit_norm, "unit_norm")
        centre = d_out is None if subtract_b_dec is None else check_switch(subtract_b_dec, "subtract_b_dec")
        if centre and self.d_out != self.d_in:
            raise InputError(
                f"b_dec has the width of the output ({self.d_out}) and cannot be taken off an input of width "
                f"{self.d_in}. A transcoder needs subtract_b_dec=False."
            )
        self.subtract_b_dec = centre
        self.transcoder = d_out is not None and not centre
        self.tied = tied

        generator = torch.Generator().manual_seed(check_count(seed, "seed", least=0))
        self.W_dec = nn.Parameter(unit_rows(torch.randn(self.d_sae, self.d_out, generator=generator)))
        if not self.tied:
            rows = self.W_dec.detach().clone()
            if self.transcoder:
                rows = unit_rows(torch.randn(self.d_sae, self.d_in, generator=generator))
            # A transposed view: the weights into one latent lie side by side in memory, as those out of it do.
            self.W_enc = nn.Parameter(rows.T)
        for name in self.per_latent:
            self.register_parameter(name, nn.Parameter(torch.zeros(self.d_sae)))
        self.b_dec = nn.Parameter(torch.zeros(self.d_out))

    # ---- the SAE as it is used

    def preactivations(self, x: Tensor) -> Tensor:
        """What the encoder's product gives, before anything is set to zero: [..., d_in] to [..., d_sae].

        Args:
            x: [..., d_in] activations.
        """
        if self.subtract_b_dec:
            x = x - self.b_dec
        return x @ self.W_enc + self.b_enc

    @abstractmethod
    def activate(self, pre: Tensor) -> Tensor:
        """Latents of pre-activations, as used after training: [..., d_sae] to the same shape.

        Args:
            pre: [..., d_sae], from `preactivations`.
        """

    def activate_in_training(self, pre: Tensor) -> Tensor:
        """Latents of a training batch [batch, d_sae]. It differs only where a batch competes with itself.

        Args:
            pre: [batch, d_sae], from `preactivations`.
        """
        return self.activate(pre)

    def encode(self, x: Tensor) -> Tensor:
        """Latents of activations, [..., d_in] to [..., d_sae], most of them exactly zero.

        Args:
            x: [..., d_in] activations.
        """
        return self.activate(self.preactivations(x))

    def decode(self, z: Tensor) -> Tensor:
        """Activations rebuilt from latents: [..., d_sae] to [..., d_out].

        Args:
            z: [..., d_sae] latents.
        """
        return z @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """Activations after a way through the SAE: [..., d_in] to [..., d_out].

        Args:
            x: [..., d_in] activations.
        """
        return self.decode(self.encode(x))

    # ---- the SAE as it is trained

    @abstractmethod
    def losses(
        self, x: Tensor, target: Tensor | None = None, *, warm: float = 1.0, dead: Tensor | None = None
    ) -> Losses:
        """The loss of one batch, written as the paper writes it: plain dense products, nothing skipped.

        Args:
            x: [batch, d_in] activations, scaled to a mean norm of sqrt(d_in).
            target: [batch, d_out] what is to be predicted; None for an SAE, which predicts `x`.
            warm: in [0, 1], scales the sparsity coefficient while it is being warmed up.
            dead: [d_sae] bool, the latents that have not fired for long; None for none.

        Returns:
            The losses, 0-d tensors to be differentiated.
        """

    @torch.no_grad()
    def initialise(
        self, sample: Tensor, target_sample: Tensor | None = None, *, centre: str = "mean"
    ) -> None:
        """Start well: `b_dec` in the middle of the data, the encoder as the decoder's transpose, biases zero.

        Starting as the transpose, a latent reads the direction that it writes, and few are born dead (Gao et
        al. 2024, appendix A.1). `first_gain` makes it as long as the first reconstructions need it to be. With
        `b_dec` in the middle, the latents need not spend themselves on the mean.

        Args:
            sample: [n, d_in] activations, scaled as in training; a few thousand do.
            target_sample: [n, d_out] what a transcoder is to predict for them.
            centre: "mean", or "geometric median" as in Bricken et al. 2023, which outliers pull at less.

        Raises:
            InputError: a shape that does not fit, or values that are not finite.
        """
        check_finite(check_tensor(sample, "sample", shape="n d_in", last=self.d_in), "sample")
        if self.transcoder and target_sample is None:
            raise InputError("a transcoder starts from its target too: give target_sample [n, d_out].")
        goal = sample if target_sample is None else target_sample
        check_finite(check_tensor(goal, "target_sample", shape="n d_out", last=self.d_out), "target_sample")
        if centre not in CENTRES:
            raise InputError(f"centre must be one of {', '.join(map(repr, CENTRES))}, got {centre!r}.")
        self.b_dec.copy_(CENTRES[centre](goal.float()))
        self.W_dec.copy_(unit_rows(self.W_dec))
        self.reset_latents(torch.arange(self.d_sae, device=self.W_dec.device))
        if not (self.tied or self.transcoder):
            self.W_enc.copy_(self.W_dec.T)
            self.W_enc.mul_(self.first_gain(sample[: max(64, 2**23 // self.d_sae)].float()))
        if not self.subtract_b_dec:  # what subtracting the middle of the input does for an SAE
            middle = CENTRES[centre](sample.float()).to(self.W_enc) @ self.W_enc
            for name in self.per_latent:
                if name in ("b_enc", "b_gate", "b_mag"):
                    getattr(self, name).sub_(middle)

    def first_gain(self, sample: Tensor) -> Tensor:
        """The factor that makes the first reconstructions of `sample` as long as they should be: a 0-d tensor.

        Half of all latents are active at the start, and together they write back what they read many times
        over. By least squares of what they write on what there was to write, they stop. Where only k of them are
        to write, the same factor is too small: the reconstructions begin short. From there training goes faster,
        at any learning rate that we tried, than from a factor that fits k, or from none.
        """
        centred = sample - sample.mean(dim=0)
        written = torch.relu(centred @ self.W_enc) @ self.W_dec
        return (written * centred).sum() / written.pow(2).sum().clamp_min(1e-12)

    @torch.no_grad()
    def reset_latents(self, which: Tensor) -> None:
        """Put what belongs to the latents `which` (indices), other than their weights, back to its start."""
        for name in self.per_latent:
            getattr(self, name)[which] = 0.0

    @torch.no_grad()
    def before_step(self) -> None:
        """After `backward`, before the optimiser: take out of the decoder's gradient what runs along its rows.

        A step along a row changes only its norm, which `after_step` undoes; but the part would stay in Adam's
        running averages and spoil the steps that follow (Bricken et al. 2023, appendix on training).
        """
        if self.unit_norm and self.W_dec.grad is not None:
            n_rows = 2048 if self.W_dec.device.type == "cpu" else self.d_sae  # so many stay in a processor's cache
            for grad, rows in zip(self.W_dec.grad.split(n_rows), self.W_dec.split(n_rows), strict=True):
                grad.addcmul_(rows, (grad * rows).sum(dim=1, keepdim=True), value=-1)

    @torch.no_grad()
    def after_step(self) -> None:
        """After the optimiser: bring the decoder rows back to norm 1."""
        if self.unit_norm:
            self.W_dec.div_(self.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-8))

    def decoder_norms(self) -> Tensor:
        """[d_sae] norms of the decoder rows; all 1 where they are held there."""
        return self.W_dec.norm(dim=1)

    @torch.no_grad()
    def fold_scale(self, scale: float, target_scale: float | None = None) -> None:
        """Make an SAE that was trained on `x * scale` take and give raw `x`. In place.

        Biases and thresholds shrink by `scale`, and with them the latents; the weights stay, so decoder rows
        keep norm 1.

        Args:
            scale: what the input was multiplied with in training.
            target_scale: what a transcoder's target was multiplied with; the same as `scale` by default.

        Raises:
            InputError: a factor that is not above 0, or two different ones for an SAE that predicts its own
                input.
        """
        scale = check_number(scale, "scale", above=0.0)
        out = scale if target_scale is None else check_number(target_scale, "target_scale", above=0.0)
        if out != scale:
            if not self.transcoder:
                raise InputError("an SAE predicts its own input: target_scale must equal scale.")
            self.W_enc.mul_(scale / out)
        for name in (*self.in_latent_units, "b_dec"):
            getattr(self, name).div_(out)

    # ---- what it is

    @property
    def hyper(self) -> dict[str, Any]:
        """The settings, ready for JSON. `make_sae(**sae.recipe())` makes another of the same kind."""
        return {name: getattr(self, name) for name in (*self.settings, "unit_norm", "subtract_b_dec")}

    def recipe(self) -> dict[str, Any]:
        """Everything `make_sae` needs to make an SAE of the same kind, weights aside."""
        shape = {"d_in": self.d_in, "d_sae": self.d_sae, "d_out": self.d_out if self.transcoder else None}
        return {"architecture": self.architecture, **shape, **self.hyper}

    def latent_axes(self) -> dict[str, int]:
        """For every parameter that has one, the axis that counts latents."""
        axes = {"W_dec": 0, **dict.fromkeys(self.per_latent, 0)}
        return axes if self.tied else {"W_enc": 1, **axes}

    def to_sae_lens(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """This SAE in SAELens's format: what goes into cfg.json, and the weights. BatchTopK becomes JumpReLU."""
        from solutions.sae.architectures.saving import to_sae_lens

        return to_sae_lens(self)

    def extra_repr(self) -> str:
        """What `print(sae)` shows."""
        shape = f"d_in={self.d_in}, d_sae={self.d_sae}" + (f", d_out={self.d_out}" if self.transcoder else "")
        return ", ".join([shape, *(f"{name}={value}" for name, value in self.hyper.items())])


# ---- small parts that several architectures use


def squared_error(x_hat: Tensor, target: Tensor) -> Tensor:
    """Squared error, summed over the last axis and averaged over the batch: a 0-d tensor."""
    return (x_hat - target).pow(2).sum(dim=-1).mean()


def unit_rows(rows: Tensor) -> Tensor:
    """`rows` [n, d], each divided by its norm."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-8)


def geometric_median(x: Tensor, n_steps: int = 50) -> Tensor:
    """The point with the smallest sum of distances to the rows of `x` [n, d], by Weiszfeld's iteration."""
    middle = x.mean(dim=0)
    for _ in range(n_steps):
        weights = 1.0 / (x - middle).norm(dim=1, keepdim=True).clamp_min(1e-6)
        middle = (weights * x).sum(dim=0) / weights.sum()
    return middle


CENTRES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(dim=0),
    "geometric median": geometric_median,
}


# ---- checks of settings


def check_number(
    value: object,
    name: str,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> float:
    """Return `value` as a float if it is finite and within the bounds."""
    bounds = [f"at least {least:g}" if least is not None else "", f"above {above:g}" if above is not None else ""]
    bounds.append(f"at most {most:g}" if most is not None else "")
    wanted = " and ".join(["a finite number", *filter(None, bounds)]).replace(" and ", " ", 1)
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    too_low = (least is not None and number < least) or (above is not None and number <= above)
    if not math.isfinite(number) or too_low or (most is not None and number > most):
        raise InputError(f"{name} must be {wanted}, got {value!r}.")
    return number


def check_switch(value: object, name: str) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be True or False, got {value!r}.")
    return value


def check_finite(x: Tensor, name: str) -> None:
    """Refuse NaN and infinity, saying in how many rows they are."""
    bad = ~torch.isfinite(x).reshape(len(x), -1).all(dim=1)
    if bad.any():
        raise InputError(
            f"{name} holds NaN or infinity in {int(bad.sum()):,} of {len(x):,} rows. "
            "Leave those tokens out, or look for the step that made them."
        )
