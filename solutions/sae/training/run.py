"""One run: the SAE in training and all that changes from step to step."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from solutions.errors import InputError
from solutions.sae.training import checkpoint as files
from solutions.sae.training.folder import prepared, save_trained
from solutions.sae.training.log import RunLog
from solutions.sae.training.plan import Plan
from solutions.sae.training.repeat import Repeater, can_be_repeated
from solutions.sae.training.schedule import learning_rate, sparsity_warmth
from solutions.sae.training.sources import Batch, Source, fingerprint
from solutions.sae.training.step import StepResult, Way, fastest_way, gradients_by, step_gradients
from solutions.sae.training.team import Team
from solutions.sae.training.trouble import all_finite, check_course, not_finite

if TYPE_CHECKING:
    from solutions.sae.architectures import TrainableSAE
    from solutions.targets import Target


#: Tokens that resampled latents are drawn from, and how many of them go through the SAE at once.
RESAMPLE_FROM, AT_ONCE = 65_536, 4096


class Run:
    """A run in its folder: begun, or gone on with from its last checkpoint.

    Attributes:
        sae: the SAE in training; it lives on scaled activations.
        step: steps done.
        log: rows of the log.
        silent: [d_sae] int64, tokens since each latent last fired.
    """

    def __init__(
        self,
        sae: TrainableSAE,
        source: Source,
        plan: Plan,
        path: str | os.PathLike[str] | None = None,
        *,
        resume: bool = True,
    ):
        _check(sae, source, plan)
        self.team = Team()
        self.sae, self.source, self.plan = copy.deepcopy(sae), source, plan
        self.device = next(self.sae.parameters()).device
        self.folder = None if path is None else Path(path)
        self.identity = {"plan": plan.as_dict(), "source": source.identity(), "sae": _describe(sae)}
        if source.own and self.team.size > 1:  # each process has data of its own: another number is another run
            self.identity["processes"] = self.team.size
        self.share = (self.team.rank, self.team.size)
        source.batches(plan.batch_size, plan.seed, 0, self.share)  # refuses a batch that cannot be, before any work
        self.step = self.seconds = self._none_dead_until = 0
        self.kept: int | None = None  # step of the last checkpoint
        self.finished = False
        self.silent = torch.zeros(sae.d_sae, dtype=torch.int64, device=self.device)
        self.optimiser = torch.optim.Adam(
            self.sae.parameters(), lr=plan.lr, betas=plan.betas, fused=self.device.type in ("cpu", "cuda"),
            capturable=self.device.type == "cuda",
        )
        self._repeater = Repeater()
        with contextlib.ExitStack() as held:  # the folder's lock: given back at once when what follows fails
            found = self._open(resume, held)
            if found is None:
                self._begin()
            else:
                self._restore(found)
            self.log = RunLog(self.folder if self.team.leads else None, until=self.step)
            held.callback(self.log.close)
            self._held = held.pop_all()

    # ---- one step

    def advance(self, batch: Batch) -> None:
        """One step of training: `_taken` picks the way, `_update` changes the weights, and `_after` looks at it."""
        started = time.monotonic()
        x, target = self._scaled(batch)
        warm, lr = sparsity_warmth(self.plan, self.step), learning_rate(self.plan, self.step)
        with self._dice():
            result, length = self._taken(x, target, warm, lr)
        self.step += 1
        self.seconds += time.monotonic() - started
        self._after(x, target, result, {"lr": lr, "warm": warm, "grad_norm": length})

    def _taken(self, x: Tensor, target: Tensor | None, warm: float, lr: float) -> tuple[StepResult, Tensor]:
        """Take the step, on a GPU as the repetition of an earlier one where that is possible."""
        dead, path = self._dead_if_any(), self.plan.step
        nothing_special = self.team.size == 1 and (dead is None or not _heeds_dead(self.sae))
        if self.device.type == "cuda" and nothing_special:
            with self._precision():
                way = fastest_way(self.sae, x) if path == "auto" else Way(path)
            if can_be_repeated(self.sae, way):
                return self._repeater(self._update, x, target, warm, lr, way)
        return self._update(x, target, warm, lr, dead=dead)

    def _update(
        self,
        x: Tensor,
        target: Tensor | None,
        warm: float | Tensor,
        lr: float | Tensor,
        way: Way | None = None,
        dead: Tensor | None = None,
    ) -> tuple[StepResult, Tensor]:
        """Change weights, optimiser and `silent` by one batch; gives the losses, and the gradient's length."""
        with self._precision():
            if way is None:
                result = step_gradients(self.sae, x, target, warm=warm, dead=dead, path=self.plan.step)
            else:
                result = gradients_by(way, self.sae, x, target, warm=warm, dead=dead)
        _lay_out_alike(self.sae)
        self.team.average_gradients(self.sae)
        self.sae.before_step()  # no gradient along a decoder row
        length = self._clip()
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.sae.after_step()  # decoder rows back to unit norm
        self.team.average_estimates(self.sae)
        self.silent += self.plan.batch_size
        self.silent.masked_fill_(self.team.any(result.fired), 0)
        return result, length

    def _clip(self) -> Tensor:
        """Shorten the gradient to `clip` if it is longer; gives its length before."""
        gradients = [parameter.grad for parameter in self.sae.parameters() if parameter.grad is not None]
        length = nn.utils.get_total_norm(gradients)
        limit = self.plan.clip
        # Multiplying by one takes as long as by anything else. To ask a GPU first would take longer.
        if limit is not None and (self.device.type == "cuda" or bool(length > limit)):
            nn.utils.clip_grads_with_norm_(self.sae.parameters(), limit, length)
        return length

    @property
    def dead(self) -> Tensor:
        """[d_sae] bool: latents that have not fired for `dead_after` tokens."""
        return self.silent >= self.plan.dead_after

    def _dead_if_any(self) -> Tensor | None:
        """`dead`, or None for none. It asks the tensor only when that is possible: asking makes a GPU wait."""
        if self.step < self._none_dead_until:
            return None
        dead = self.dead
        if bool(dead.any()):
            return dead
        left = self.plan.dead_after - int(self.silent.max())
        self._none_dead_until = self.step + math.ceil(left / self.plan.batch_size)
        return None

    def batches(self) -> Iterator[Batch]:
        """What is left of the run's batches, this process's share of each."""
        if self.finished:
            return
        batches = self.source.batches(self.plan.batch_size, self.plan.seed, self.step, self.share)
        for _ in range(self.step, self.plan.n_steps):
            yield next(batches)

    def _scaled(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        x = batch.x.to(self.device, non_blocking=True) * self.scale
        if batch.target is None:
            return x, None
        return x, batch.target.to(self.device, non_blocking=True) * self.target_scale

    @contextlib.contextmanager
    def _dice(self) -> Iterator[None]:
        """Randomness that depends on the seed and the step alone, and leaves everybody else's dice where they were."""
        dice = [torch.default_generator]
        if self.device.type == "cuda":
            dice.append(torch.cuda.default_generators[self.device.index or 0])
        before = [one.get_state() for one in dice]
        for one in dice:
            one.manual_seed(self._seed())
        try:
            yield
        finally:
            for one, state in zip(dice, before, strict=True):
                one.set_state(state)

    def _seed(self) -> int:
        return int(np.random.SeedSequence([self.plan.seed, self.step]).generate_state(1)[0])

    def _precision(self) -> Any:
        mixed = self.plan.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    # ---- what is kept of it

    def _after(self, x: Tensor, target: Tensor | None, result: StepResult, facts: dict[str, Any]) -> None:
        """Look at the step, write it down, resample, keep a checkpoint: whatever is due."""
        plan = self.plan
        last = self.step == plan.n_steps
        logs = last or self.step == 1 or self.step % plan.log_every == 0
        keeps = self.folder is not None and not last and self.step % plan.checkpoint_every == 0
        # Asking a GPU for a number makes it wait, so there the loss is looked at only when somebody needs it.
        looks = logs or keeps or self.device.type == "cpu"
        if looks and not bool(result.total.isfinite()):
            raise not_finite(plan, self.step, x, self.kept, self.folder)
        if logs:
            self.log.add(self._row(x if target is None else target, result, facts))
            check_course(plan, self.log.rows, self.kept, self.folder)
        if self.step in plan.resample_at:
            self._resample()
        if keeps or last:
            if not all_finite(self.sae):
                raise not_finite(plan, self.step, x, self.kept, self.folder)
        if keeps:
            self._keep()

    def _row(self, goal: Tensor, result: StepResult, facts: dict[str, Any]) -> dict[str, Any]:
        """A row of the log, over the whole batch."""
        numbers = torch.stack([torch.as_tensor(part).detach().float() for part in result[:5]])
        wide = goal.float() if goal.device.type == "mps" else goal.double()
        mean, square = wide.mean(dim=0), wide.square().sum(dim=1).mean()
        error = torch.as_tensor(result.error).to(wide) / len(goal)
        self.team.average([numbers, mean, square, error])
        variance = (square - mean.square().sum()).item()
        names = ("loss", "reconstruction", "sparsity", "auxiliary", "l0")
        return {
            "step": self.step,
            "tokens": self.step * self.plan.batch_size,
            **dict(zip(names, numbers.tolist(), strict=True)),
            "ev": 1 - error.item() / variance if variance > 0 else math.nan,
            "dead": self.dead.float().mean().item(),
            **{name: float(value) for name, value in facts.items()},
            "path": result.used,
            "seconds": self.seconds,
        }

    def _resample(self) -> None:
        """Give dead latents a new start, see `solutions.sae.architectures.resample`."""
        from solutions.sae.architectures.resample import resample

        x, target = self._scaled(self.source.sample(RESAMPLE_FROM, seed=self._seed()))
        goal = x if target is None else target
        errors = [self._errors(*parts) for parts in zip(x.split(AT_ONCE), goal.split(AT_ONCE), strict=True)]
        with self._dice():
            resample(self.sae, self.optimiser, self.dead, x, torch.cat(errors), target=target)
        self.silent[self.dead] = 0
        self.team.share(self.sae.state_dict().values())

    @torch.no_grad()
    def _errors(self, x: Tensor, goal: Tensor) -> Tensor:
        return (self.sae(x) - goal).square().sum(dim=1)

    # ---- beginning, going on, ending

    def _begin(self) -> None:
        """Scale and first weights, from a sample."""
        plan, source = self.plan, self.source
        scales = [source.scale(), source.target_scale()] if plan.normalise else [1.0, 1.0]
        both = torch.tensor(scales, dtype=torch.float64).to(self.device if self.device.type == "cuda" else "cpu")
        self.team.share([both])
        self.scale, self.target_scale = both.tolist()
        if plan.initialise:
            with self._dice():
                self.sae.initialise(*self._scaled(source.sample()))
        else:
            rescale(self.sae, 1 / self.scale, 1 / self.target_scale)
        self.team.share(self.sae.state_dict().values())

    def _open(self, resume: bool, held: contextlib.ExitStack) -> files.Checkpoint | None:
        """The folder's last checkpoint, if it is this run's."""
        if self.folder is None:
            return None
        if self.team.leads:
            held.enter_context(prepared(self.folder, self.identity, resume))
        self.team.wait()
        found = files.last_checkpoint(self.folder)
        step = 0 if found is None else found.step
        if self.team.least(step) != step:
            raise InputError(f"the processes see different checkpoints in {self.folder}: it must be one shared folder.")
        return found

    def _keep(self, finished: bool = False) -> None:
        """Write a checkpoint; of a finished run without the optimiser, which nobody needs any more."""
        self.kept = self.step
        if not self.team.leads:
            return
        self.log.sync()
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        if not finished:
            tensors |= {"silent": self.silent} | files.optimiser_tensors(self.optimiser, self.sae)
        facts = {"identity": self.identity, "finished": finished, "seconds": self.seconds}
        facts["processes"] = self.team.size
        facts |= {"scale": self.scale, "target_scale": self.target_scale}
        files.write_checkpoint(self.folder, self.step, facts, tensors)

    def _restore(self, found: files.Checkpoint) -> None:
        self.step = self.kept = found.step
        self.finished, self.seconds = found.facts["finished"], found.facts["seconds"]
        self.scale, self.target_scale = found.facts["scale"], found.facts["target_scale"]
        weights = {n.removeprefix("sae."): t for n, t in found.tensors.items() if n.startswith("sae.")}
        self.sae.load_state_dict(weights)
        if not self.finished:
            self.silent.copy_(found.tensors["silent"])
            files.restore_optimiser(self.optimiser, self.sae, found.tensors)

    def finish(self, target: Target | None = None) -> TrainableSAE:
        """The SAE for activations as they are; saved, when the run has a folder."""
        sae = copy.deepcopy(self.sae)
        rescale(sae, self.scale, self.target_scale)
        if self.folder is not None and self.team.leads and not (self.finished and (self.folder / "sae").is_dir()):
            save_trained(sae, self.folder / "sae", self.source, self.plan, target)
        if self.folder is not None and not self.finished:
            self._keep(finished=True)
        self.finished = True
        self.team.wait()
        return sae

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        self._held.close()


def _lay_out_alike(module: nn.Module) -> None:
    """Put each gradient into memory as its weight lies there. The fused Adam walks through both side by side, and
    would pair a transposed weight's numbers with those of other places, without a word."""
    for weight in module.parameters():
        if weight.grad is not None and weight.grad.stride() != weight.stride():
            weight.grad = torch.empty_like(weight, requires_grad=False).copy_(weight.grad)


def _heeds_dead(sae: TrainableSAE) -> bool:
    """Whether the loss has a part for dead latents: AuxK or ghost gradients."""
    return bool(getattr(sae, "aux_weight", 0) or getattr(sae, "ghost", False))


def rescale(sae: TrainableSAE, scale: float, target_scale: float) -> None:
    """Make an SAE that was trained on x·scale (and gives target·target_scale) take and give numbers as they are."""
    if sae.transcoder:
        sae.fold_scale(scale, target_scale)
    else:
        sae.fold_scale(scale)


def _describe(sae: TrainableSAE) -> dict[str, Any]:
    return {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "d_out": sae.d_out,
        "hyper": dict(sae.hyper),
        "weights": {name: fingerprint(tensor)[:16] for name, tensor in sae.state_dict().items()},
    }


def _check(sae: Any, source: Any, plan: Any) -> None:
    if not all(hasattr(sae, name) for name in ("losses", "before_step", "after_step", "hyper")):
        raise InputError(f"sae must be an SAE of make_sae, got {type(sae).__name__}.")
    if not isinstance(source, Source):
        raise InputError(
            f"source must be a StoreSource, TensorSource or HarvestSource, got {type(source).__name__}. "
            "Of a tensor: TensorSource(x)."
        )
    if not isinstance(plan, Plan):
        raise InputError(f"plan must be a Plan, got {type(plan).__name__}.")
    if source.has_target != sae.transcoder:
        what = "pairs, for a transcoder" if source.has_target else "activations without a target"
        kind = "a transcoder, which needs them" if sae.transcoder else "an SAE, which gives back what it reads"
        raise InputError(f"the source gives {what}; this is {kind}. A transcoder is made with d_out=….")
    if source.d_in != sae.d_in or source.d_out != sae.d_out:
        raise InputError(
            f"the source gives {source.d_in} numbers to read and {source.d_out} to give back; the SAE reads {sae.d_in} "
            f"and gives {sae.d_out}. Make it with d_in={source.d_in}, d_out={source.d_out}."
        )
