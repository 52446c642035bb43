"""One optimizer step: the rows of a global step in, a report out."""

import contextlib
import functools
import random
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dreamspace.config import RunConfig
from dreamspace.data.plan import mix_seed
from dreamspace.data.samples import Sample
from dreamspace.models.adapters import Adapter
from dreamspace.models.device import sent
from dreamspace.models.family import Conditioning, Family
from dreamspace.models.text import TextEncoders
from dreamspace.training.batches import Batch, Batches
from dreamspace.training.ema import MovingAverage
from dreamspace.training.loss_log import StepReport
from dreamspace.training.masked_loss import cell_mean, subject_weights
from dreamspace.training.objective import (
    debiased_weights,
    elementwise_loss,
    huber_bounds,
    min_snr_weights,
    step_loss,
    training_target,
)
from dreamspace.training.optimizers import skip_if_not_finite
from dreamspace.training.preparation import TrainingSet
from dreamspace.training.reflexflow import drift_loss, exposure_weights
from dreamspace.training.rollout import RollOut, uses_reflexflow
from dreamspace.training.schedule import NoiseSchedule

UPDATE = 2**41
"""In the place of a micro-batch: the seed of what an optimizer draws, alike in every process."""


class TrainingStep:
    """One optimizer step on the rows of one global step.

    Args:
        schedule: on the device.
        denoiser: the adapter's, wrapped where there are several processes: it makes the predictions that are
            learned from. Those without gradient are made by the adapter's own, because processes make
            different numbers of them.
        text: text encoders that are trained along, and so say anew in each step what a caption becomes.
    """

    def __init__(
        self,
        config: RunConfig,
        family: Family,
        schedule: NoiseSchedule,
        denoiser: nn.Module,
        adapter: Adapter,
        optimizer: torch.optim.Optimizer,
        training_set: TrainingSet,
        accelerator: Accelerator,
        ema: MovingAverage | None = None,
        text: TextEncoders | None = None,
    ) -> None:
        self.config, self.family, self.schedule = config, family, schedule
        self.denoiser, self.adapter, self.optimizer, self.ema = denoiser, adapter, optimizer, ema
        self.training_set, self.accelerator, self.text = training_set, accelerator, text
        self.batches = Batches(config, family, training_set, schedule.num_timesteps, accelerator)
        self.roll_out = RollOut(schedule, config.scheduled_sampling_sampler, config.scheduled_sampling_order)
        self.uses_reflexflow = uses_reflexflow(config, schedule)

    def __call__(self, step: int, learning_rate: float) -> StepReport:
        """Take step `step`, counted from 0, at this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["learning_rate_factor"]
        loss, instance_loss, prior_loss, samples = self.backward(step)
        scaler = self.accelerator.scaler  # of fp16; None otherwise
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        grad_norm = clip_gradients(self.adapter.parameters, self.config.max_grad_norm)
        is_finite = torch.isfinite(grad_norm)
        skip_if_not_finite(self.optimizer, is_finite)
        torch.manual_seed(mix_seed(self.config.seed, step, UPDATE))
        self.optimizer.step()
        if scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(step + 1, is_finite)
        return StepReport(step + 1, loss, instance_loss, prior_loss, grad_norm, learning_rate, samples)

    def backward(self, step: int) -> tuple[Tensor, Tensor, Tensor, list[Sample]]:
        """Accumulate the gradients of a step.

        Returns:
            Its loss, the means over instance and prior rows, and what this process was shown. The loss is the
            weighted one that is minimised, the means are unweighted; all are those of the whole global step,
            on every rank.
        """
        num_processes, num_micro_steps = self.accelerator.num_processes, self.batches.num_micro_steps(step)
        totals = torch.zeros(3, device=self.accelerator.device)
        counts = torch.zeros(2, device=self.accelerator.device)
        samples: list[Sample] = []
        for micro_step in range(num_micro_steps):
            # For randomness inside modules, such as dropout, which a row's own generator does not reach.
            module_seed = mix_seed(self.config.seed, step, micro_step, self.accelerator.process_index)
            torch.manual_seed(module_seed)
            random.seed(module_seed)
            batch = self.batches.batch(step, micro_step)
            last = micro_step == num_micro_steps - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.denoiser):
                with self.accelerator.autocast():
                    losses, weights = self.losses(batch)
                loss = step_loss(losses, weights, batch.divisor, num_processes)
                self.accelerator.backward(loss)
            samples += batch.samples
            # Not losses[is_prior], whose size the host would wait for.
            by_role = torch.where(batch.roles, losses.detach(), 0).sum(dim=1)
            totals += torch.cat([loss.detach()[None] / num_processes, by_role])
            counts += batch.roles.sum(dim=1)
        if num_processes > 1:
            self._average_outside_denoiser()
            totals, counts = self.accelerator.reduce((totals, counts), "sum")
        return totals[0], totals[1] / counts[0], totals[2] / counts[1], samples

    def _average_outside_denoiser(self) -> None:
        """Average gradients over the processes as `accelerator.prepare` has the denoiser's averaged."""
        for group in self.adapter.parameter_groups:
            for parameter in group.parameters if group.name != "denoiser" else ():
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) losses and their (B,) weights; the base model speaks first where it is the target."""
        config, schedule, timesteps = self.config, self.schedule, batch.timesteps
        levels = schedule.alphas[timesteps], schedule.sigmas[timesteps]
        undisturbed = schedule.add_noise(batch.latents, batch.input_noise, timesteps)
        told = batch.conditioning | (self.text.encode(batch.captions) if self.text is not None else {})
        noisy_latents, noise = self._rolled_out(batch, undisturbed, told)
        target = training_target(batch.latents, noise, *levels, schedule.prediction_type)
        # Teacher before student: with the adapter off at backward(), gradients vanish silently.
        base = self._base_predictions(batch, noisy_latents)
        if batch.base_rows:
            rows = self._index(batch.base_rows)
            target = target.index_copy(0, rows, base[rows])
        corrected_rows, unbiased = self._unbiased_predictions(batch, undisturbed, told)
        prediction = self._predict(self.denoiser, noisy_latents, timesteps, told)

        distance, mean = self._distance(timesteps), config.masked_loss_normalization
        cells = None if batch.masks is None else subject_weights(batch.masks, config.masked_background_weight)
        errors = distance(prediction, target)
        losses = cell_mean(errors, cells, mean)
        if corrected_rows is not None:
            rows, own_cells = corrected_rows, None if cells is None else cells[corrected_rows]
            exposure = exposure_weights(
                unbiased, prediction.detach()[rows], config.scheduled_sampling_reflexflow_alpha
            )
            drift = drift_loss(prediction[rows], noisy_latents[rows], batch.latents[rows], own_cells)
            weighted = cell_mean(errors[rows] * exposure, own_cells, mean)
            weighted = config.scheduled_sampling_reflexflow_beta2 * weighted
            weighted = weighted + config.scheduled_sampling_reflexflow_beta1 * drift
            losses = losses.index_copy(0, rows, weighted)
        if batch.masked_rows and config.masked_prior_weight:
            background = cell_mean(distance(prediction, base), 1 - batch.masks, mean)
            losses = losses + config.masked_prior_weight * background
        return losses, batch.weights * self._timestep_weights(timesteps)

    def _predict(
        self, denoiser: nn.Module, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning
    ) -> Tensor:
        times = self.schedule.model_timesteps(timesteps)
        return self.family.predict(denoiser, noisy_latents, times, conditioning)

    def _index(self, rows: list[int]) -> Tensor:
        return sent(torch.tensor(rows), self.accelerator.device)

    def _rolled_out(self, batch: Batch, noisy_latents: Tensor, told: Conditioning) -> tuple[Tensor, Tensor]:
        """Noisy latents and the noise in them, after the rollouts of the batch.

        After a rollout the latents are no longer the picture with the noise that was drawn. The noise that
        would lead to them from the picture makes a target that ends in the picture; the one that was drawn is
        SimpleTuner's.
        """
        if not batch.rollouts:
            return noisy_latents, batch.noise
        rows = self._index([rollout.row for rollout in batch.rollouts])
        starts = self._index([rollout.start for rollout in batch.rollouts])
        conditioning = {name: values.detach()[rows] for name, values in told.items()}

        def predict(latents: Tensor, timesteps: Tensor, count: int) -> Tensor:
            first = {name: values[:count] for name, values in conditioning.items()}
            return self._predict(self.adapter.denoiser, latents, timesteps, first)

        latents = batch.latents[rows]
        with torch.no_grad():
            started = self.schedule.add_noise(latents, batch.noise[rows], starts)
            ended = self.roll_out(predict, started, batch.rollouts)
        noisy_latents = noisy_latents.index_copy(0, rows, ended)
        if self.config.scheduled_sampling_target == "original_noise":
            return noisy_latents, batch.noise
        noise = self.schedule.noise_after(ended, latents, batch.noise[rows], batch.timesteps[rows])
        return noisy_latents, batch.noise.index_copy(0, rows, noise)

    @torch.no_grad()
    def _base_predictions(self, batch: Batch, noisy_latents: Tensor) -> Tensor | None:
        """The base model's predictions, (B, C, h, w), 0 in rows that do not need them; None if none does."""
        needing = set(batch.base_rows)
        if self.config.masked_prior_weight:
            needing |= set(batch.masked_rows)
        if not needing:
            return None
        rows = self._index(sorted(needing))
        conditioning = {name: values[rows] for name, values in batch.conditioning.items()}
        with self.adapter.off() as denoiser:
            base = self._predict(denoiser, noisy_latents[rows], batch.timesteps[rows], conditioning)
        return torch.zeros_like(noisy_latents).index_copy(0, rows, base.to(noisy_latents.dtype))

    @torch.no_grad()
    def _unbiased_predictions(
        self, batch: Batch, undisturbed: Tensor, told: Conditioning
    ) -> tuple[Tensor | None, Tensor | None]:
        """The rows that ReflexFlow corrects, and the model's predictions for them without their rollout."""
        found = [rollout.row for rollout in batch.rollouts if rollout.row not in batch.base_rows]
        if not found or not self.uses_reflexflow:
            return None, None
        rows = self._index(found)
        conditioning = {name: values[rows] for name, values in told.items()}
        return rows, self._predict(
            self.adapter.denoiser, undisturbed[rows], batch.timesteps[rows], conditioning
        )

    def _distance(self, timesteps: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of each element, of predictions and targets (B, C, h, w)."""
        config, schedule = self.config, self.schedule
        if config.loss_type == "l2":
            return elementwise_loss
        snr = schedule.snr[timesteps]
        bounds = huber_bounds(config.huber_schedule, config.huber_c, timesteps, snr, schedule.num_timesteps)
        return functools.partial(elementwise_loss, loss_type=config.loss_type, bounds=bounds)

    def _timestep_weights(self, timesteps: Tensor) -> Tensor | float:
        """(B,), what each row weighs by its timestep."""
        config, prediction_type = self.config, self.schedule.prediction_type
        if config.snr_gamma is not None:
            return min_snr_weights(self.schedule.snr[timesteps], config.snr_gamma, prediction_type)
        if config.debiased_estimation:
            return debiased_weights(self.schedule.snr[timesteps], prediction_type)
        return 1.0


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients in place to at most `max_norm`; returns their norm before, still on the device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
