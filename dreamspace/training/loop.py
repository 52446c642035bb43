"""The training loop: rows of the plan in, an adapter out."""

import contextlib
import random
import time
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.data.plan import mix_seed
from dreamspace.data.samples import Sample
from dreamspace.jobs.events import EventWriter
from dreamspace.models.adapters import Adapter
from dreamspace.models.family import Conditioning, Family, stack_conditioning
from dreamspace.training.objective import (
    min_snr_weights,
    per_sample_loss,
    random_rows,
    signal_to_noise,
    step_loss,
    training_target,
)
from dreamspace.training.preparation import TrainingSet

NON_FINITE_LIMIT = 20
"""Steps in a row without a finite loss and gradient; fp16 finds its scale within 16."""


@dataclass(frozen=True)
class Batch:
    """A micro-batch, on the device.

    Attributes:
        latents, noise: (B, C, h, w).
        timesteps: (B,) int64.
        conditioning: entries with a leading batch dimension.
        uses_base_target: (B,) bool, on the CPU, because it decides which rows the teacher sees.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    uses_base_target: Tensor


@dataclass
class StepReport:
    """What a step leaves behind on the device; read one step later, so that the host never waits for it.

    `step` counts from 1; losses and norm are 0-d, and a mean over no rows is NaN.
    """

    step: int
    loss: Tensor
    instance_loss: Tensor
    prior_loss: Tensor
    grad_norm: Tensor
    learning_rate: float


class TrainingStep:
    """One optimizer step on the rows of one global step.

    Row r of step n is a function of (seed, n, r): process p takes, in micro-batch a, the rows from
    (a * world_size + p) * train_batch_size on, so any split of the same rows gives the same step.
    """

    def __init__(
        self,
        config: RunConfig,
        family: Family,
        noise_scheduler: Any,
        denoiser: nn.Module,
        adapter: Adapter,
        optimizer: torch.optim.Optimizer,
        training_set: TrainingSet,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.family, self.denoiser, self.adapter = config, family, denoiser, adapter
        self.optimizer, self.training_set, self.accelerator = optimizer, training_set, accelerator
        self.noise_scheduler = noise_scheduler
        self.alphas_cumprod = noise_scheduler.alphas_cumprod.to(accelerator.device)
        self.num_step_rows = (
            config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes
        )

    def batch(self, step: int, micro_step: int) -> Batch:
        """This process' rows of a micro-batch."""
        size = self.config.train_batch_size
        first = (micro_step * self.accelerator.num_processes + self.accelerator.process_index) * size
        samples: list[Sample] = []
        latents, conditioning = [], []
        for row in range(first, first + size):
            number = step * self.num_step_rows + row
            dataset, index = self.training_set.plan.row(number)
            sample = self.training_set.samples[dataset][index]
            samples.append(sample)
            latents.append(self.training_set.latents[dataset][index])
            caption = sample.captions[self.training_set.plan.choice(number, len(sample.captions))]
            conditioning.append(self.training_set.conditioning[caption])
        noise, timesteps = random_rows(
            self.config.seed,
            step,
            first,
            size,
            latents[0].shape,
            self.noise_scheduler.config.num_train_timesteps,
        )
        device = self.accelerator.device
        return Batch(
            torch.stack(latents).to(device, non_blocking=True),
            noise.to(device, non_blocking=True),
            timesteps.to(device, non_blocking=True),
            {
                name: rows.to(device, non_blocking=True)
                for name, rows in stack_conditioning(conditioning).items()
            },
            torch.tensor([sample.uses_base_target for sample in samples]),
        )

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) losses and their (B,) weights; the base model speaks first where it is the target."""
        prediction_type = self.noise_scheduler.config.prediction_type
        noisy_latents = self.noise_scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        target = training_target(
            batch.latents, batch.noise, batch.timesteps, self.alphas_cumprod, prediction_type
        )
        if batch.uses_base_target.any():
            rows = batch.uses_base_target.nonzero().flatten().to(noisy_latents.device)
            conditioning = {name: value[rows] for name, value in batch.conditioning.items()}
            # Teacher before student: with the adapter off at backward(), gradients vanish silently.
            with torch.no_grad(), self.adapter.off():
                base = self.family.predict(
                    self.denoiser, noisy_latents[rows], batch.timesteps[rows], conditioning
                )
            target = target.index_copy(0, rows, base.to(target.dtype))
        prediction = self.family.predict(self.denoiser, noisy_latents, batch.timesteps, batch.conditioning)
        losses = per_sample_loss(prediction, target)
        if self.config.snr_gamma is None:
            return losses, torch.ones_like(losses)
        snr = signal_to_noise(self.alphas_cumprod, batch.timesteps)
        return losses, min_snr_weights(snr, self.config.snr_gamma, prediction_type)

    def backward(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Accumulate the gradients of a step; returns its loss, and the means over instance and prior rows.

        The loss is the weighted one that is minimised, the means are unweighted; all are those of the whole
        global step, on every rank.
        """
        accumulation = self.config.gradient_accumulation_steps
        totals = torch.zeros(3, device=self.accelerator.device)
        counts = torch.zeros(2, device=self.accelerator.device)
        for micro_step in range(accumulation):
            # For randomness inside modules, such as dropout, which a row's own generator does not reach.
            module_seed = mix_seed(self.config.seed, step, micro_step, self.accelerator.process_index)
            torch.manual_seed(module_seed)
            random.seed(module_seed)
            batch = self.batch(step, micro_step)
            last = micro_step == accumulation - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.denoiser):
                with self.accelerator.autocast():
                    losses, weights = self.losses(batch)
                loss = step_loss(losses, weights, self.num_step_rows, self.accelerator.num_processes)
                self.accelerator.backward(loss)
            is_prior = batch.uses_base_target.to(losses.device)
            detached = losses.detach()
            # Not detached[is_prior], whose size the host would wait for.
            shares = [loss.detach() / self.accelerator.num_processes]
            shares += [torch.where(is_prior, 0, detached).sum(), torch.where(is_prior, detached, 0).sum()]
            totals += torch.stack(shares)
            counts += torch.stack([(~is_prior).sum(), is_prior.sum()])
        if self.accelerator.num_processes > 1:
            totals, counts = self.accelerator.reduce((totals, counts), "sum")
        return totals[0], totals[1] / counts[0], totals[2] / counts[1]

    def __call__(self, step: int, learning_rate: float) -> StepReport:
        """Take step `step`, counted from 0, at this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss, instance_loss, prior_loss = self.backward(step)
        scaler = self.accelerator.scaler  # of fp16; None otherwise
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(self.adapter.parameters, self.config.max_grad_norm)
        # A fused optimizer reads this flag on the device and skips the whole update.
        self.optimizer.found_inf = (~torch.isfinite(grad_norm)).float()
        self.optimizer.step()
        if scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return StepReport(step + 1, loss, instance_loss, prior_loss, grad_norm, learning_rate)


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients in place to at most `max_norm`; returns their norm before, still on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


class LossLog:
    """Writes `loss` and `progress` events, each a step late, and watches for losses that are not finite.

    Args:
        first_step: steps that were done before, by a run that is resumed.
        num_steps: steps of the whole run.
    """

    def __init__(self, events: EventWriter, first_step: int, num_steps: int) -> None:
        self.events, self.num_steps = events, num_steps
        self._pending: StepReport | None = None
        self._num_non_finite = 0
        self._first_step, self._started = first_step, time.monotonic()
        self._last_progress = 0.0

    def add(self, report: StepReport) -> None:
        """Write the report before this one."""
        self.flush()
        self._pending = report

    def flush(self) -> None:
        """Write the pending report, waiting for the device where it is not done yet.

        Raises:
            ValueError: if loss or gradient were not finite `NON_FINITE_LIMIT` steps in a row.
        """
        report, self._pending = self._pending, None
        if report is None:
            return
        self.events.write(
            "loss",
            step=report.step,
            loss=report.loss.item(),
            instance_loss=report.instance_loss.item(),
            prior_loss=report.prior_loss.item(),
            learning_rate=report.learning_rate,
            grad_norm=report.grad_norm.item(),
        )
        self._num_non_finite = (
            0 if report.loss.isfinite() and report.grad_norm.isfinite() else self._num_non_finite + 1
        )
        if self._num_non_finite >= NON_FINITE_LIMIT:
            raise ValueError(
                f"The loss or its gradient was not a finite number for {NON_FINITE_LIMIT} steps up to step "
                f"{report.step}. Lower learning_rate, or set mixed_precision to 'no'; earlier checkpoints "
                "are kept."
            )
        now = time.monotonic()
        if now - self._last_progress > 0.5 or report.step == self.num_steps:
            rate = (report.step - self._first_step) / max(now - self._started, 1e-9)
            self.events.write(
                "progress",
                step=report.step,
                num_steps=self.num_steps,
                steps_per_second=round(rate, 3),
                eta_seconds=round((self.num_steps - report.step) / rate, 1),
            )
            self._last_progress = now
