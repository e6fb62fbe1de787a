"""What a training run does, decided and checked before it begins."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from solutions.errors import InputError, check_count, unknown_name

#: In what the products of a step are computed. Weights, sums and the optimiser are float32 in both.
PRECISIONS = ("float32", "bfloat16")

#: How the gradients of a step are computed, see `solutions.sae.training.step`.
STEPS = ("auto", "dense", "sparse")


@dataclass(frozen=True)
class Plan:
    """A training run, the SAE and the data left out.

    Attributes:
        n_tokens: activations seen in training; more than the source holds means several epochs.
        batch_size: tokens in a step. Of several processes together.
        lr: Adam's learning rate at its height, for activations scaled to the mean length sqrt(d).
        betas: Adam's two decays.
        warmup: share of the steps in which the learning rate climbs in a line to `lr`.
        decay: share of the steps, at the end, in which it falls in a line to zero.
        l1_warmup: share of the steps in which the sparsity coefficient climbs from zero. Full at once, it kills
            latents before they have learned anything.
        clip: longest gradient, over all weights together; None does not clip.
        seed: draws the order of the data and the resampled latents. (The first weights are the SAE's own: give
            `make_sae` a seed.)
        precision: "float32", or "bfloat16" for mixed precision on a GPU.
        step: "auto" picks the faster way to the gradients, "dense" and "sparse" force one.
        normalise: scale the activations to the mean length sqrt(d) while training. The SAE that comes out takes
            and gives them as they are.
        initialise: begin with the data's mean in b_dec and so on; False fine-tunes the weights as given.
        dead_after: a latent is dead when it has not fired for so many tokens.
        resample_at: after these steps dead latents are drawn anew (Bricken et al. 2023, Appendix).
        checkpoint_every: steps between two checkpoints. What is lost when a run is killed.
        log_every: steps between two lines of the log.
        diverged_at: the run stops when the squared error stays above so many times that of predicting the mean;
            math.inf stops at nothing but numbers that are not finite.

    Raises:
        InputError: naming the value that cannot be.
    """

    n_tokens: int
    batch_size: int = 4096
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.02
    decay: float = 0.2
    l1_warmup: float = 0.05
    clip: float | None = 1.0
    seed: int = 0
    precision: str = "float32"
    step: str = "auto"
    normalise: bool = True
    initialise: bool = True
    dead_after: int = 500_000
    resample_at: tuple[int, ...] = ()
    checkpoint_every: int = 1000
    log_every: int = 50
    diverged_at: float = 10.0

    def __post_init__(self) -> None:
        for name in ("n_tokens", "batch_size", "dead_after", "checkpoint_every", "log_every"):
            check_count(getattr(self, name), name)
        check_count(self.seed, "seed", least=0)
        if self.batch_size > self.n_tokens:
            raise InputError(
                f"batch_size is {self.batch_size:,}, but the run sees only n_tokens = {self.n_tokens:,}: not one step. "
                "Lower batch_size or raise n_tokens."
            )
        self._check_numbers()
        for name, known in (("precision", PRECISIONS), ("step", STEPS)):
            if getattr(self, name) not in known:
                raise unknown_name(name, getattr(self, name), known)
        for name in ("normalise", "initialise"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        self._check_resampling()

    def _check_numbers(self) -> None:
        _positive("lr", self.lr)
        _positive("diverged_at", self.diverged_at, endless=True)
        if self.clip is not None:
            _positive("clip", self.clip, advice="None does not clip.")
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise InputError(f"betas must be two numbers, got {self.betas!r}.")
        object.__setattr__(self, "betas", tuple(self.betas))
        for name, value in (("betas[0]", self.betas[0]), ("betas[1]", self.betas[1])):
            if not _is_number(value) or not 0 <= value < 1:
                raise InputError(f"{name} must be a number from 0 up to 1, got {value!r}.")
        for name in ("warmup", "decay", "l1_warmup"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= 1:
                raise InputError(
                    f"{name} is a share of the run and must be a number from 0 to 1, got {value!r}."
                )
        if self.warmup + self.decay > 1:
            raise InputError(
                f"warmup + decay is {self.warmup + self.decay:g}: the learning rate would fall before it has climbed. "
                "Together they may be at most 1."
            )

    def _check_resampling(self) -> None:
        if not isinstance(self.resample_at, tuple | list):
            raise InputError(f"resample_at must be a tuple of steps, got {self.resample_at!r}.")
        object.__setattr__(self, "resample_at", tuple(self.resample_at))
        for step in self.resample_at:
            if check_count(step, "a step of resample_at") >= self.n_steps:
                raise InputError(f"resample_at has step {step:,}, but the run has only {self.n_steps:,} steps.")

    @property
    def n_steps(self) -> int:
        """Steps of the run. Tokens that do not fill a batch are left out."""
        return self.n_tokens // self.batch_size

    def replace(self, **changes: Any) -> Plan:
        """The same plan with some values changed.

        Args:
            **changes: value by name.

        Raises:
            InputError: for a value the plan does not have, or one that cannot be.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise unknown_name("value of a plan:", name, known)
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Every value by name, ready for JSON (which knows no infinity: it is the word "inf")."""
        values = dataclasses.asdict(self)
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = list(value)
            elif value == math.inf:
                values[name] = "inf"
        return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(name: str, value: object, endless: bool = False, advice: str = "") -> None:
    if not _is_number(value) or not value > 0 or (value == math.inf and not endless):
        raise InputError(f"{name} must be a number above 0, got {value!r}.{' ' + advice if advice else ''}")
