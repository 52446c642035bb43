"""Scheduled sampling: some rows of a step begin from what the model itself has denoised (arXiv:1506.03099).

A row that is to be trained at timestep t is noised at t + k, and the model takes it to t in k steps of one
training timestep each. After that the model sees its own small errors, as it will when it draws an image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dreamspace.config.rollout import rollout_probability
from dreamspace.config.sections import RolloutSettings
from dreamspace.models.device import sent
from dreamspace.training.objective import per_row, predicted_latents
from dreamspace.training.schedule import NoiseSchedule
from dreamspace.training.solvers import Factors, Solver, corrector, predictor
from dreamspace.training.timesteps import ROLLOUT, ROLLOUT_LENGTH, uniform

PredictRows = Callable[[Tensor, Tensor, int], Tensor]
"""The model's output for noisy latents (n, C, h, w) and timesteps (n,) of the first n rows."""


class Rollout(NamedTuple):
    """A row of a batch, the timestep where its rollout starts, and how many timesteps it goes down."""

    row: int
    start: int
    num_steps: int


def uses_reflexflow(settings: RolloutSettings, schedule: NoiseSchedule) -> bool:
    """Whether ReflexFlow corrects the rollouts of a run.

    Raises:
        ValueError: if it is asked for and the model is no flow.
    """
    wanted = settings.scheduled_sampling_reflexflow
    if wanted and not schedule.is_flow:
        raise ValueError(
            "scheduled_sampling_reflexflow is for models of flow matching, and this one predicts "
            f"{schedule.prediction_type}. Set it to null."
        )
    return schedule.is_flow if wanted is None else wanted


def rollout_length(seed: int, step: int, row: int, settings: RolloutSettings) -> int:
    """How many timesteps a row is rolled out; 0 is not at all.

    For a row that is chosen, "uniform" draws any number up to `max_step_offset`, 0 included, "biased_early"
    that number times u² and "biased_late" times 1 - u², rounded.
    """
    if uniform(seed, step, row, ROLLOUT) >= rollout_probability(step, settings):
        return 0
    longest = settings.scheduled_sampling_max_step_offset
    share = uniform(seed, step, row, ROLLOUT_LENGTH)
    if settings.scheduled_sampling_strategy == "uniform":
        return int(share * (longest + 1))
    if settings.scheduled_sampling_strategy == "biased_early":
        return round(share**2 * longest)
    return round((1 - share**2) * longest)


class RollOut:
    """Takes rows from one timestep to a lower one by the model itself.

    All rows begin together, so that all have as many outputs behind them, and a row that has arrived leaves:
    k steps of each row cost sum(k) row-forwards in max(k) calls.
    """

    def __init__(self, schedule: NoiseSchedule, solver: Solver, order: int) -> None:
        self.schedule, self.solver = schedule, solver
        self.order = 1 if solver == "euler" else order
        # On the host, where the factors are computed, so that no step of a rollout waits for the device.
        self._alphas, self._sigmas = (
            table.cpu().double().numpy() for table in (schedule.alphas, schedule.sigmas)
        )

    def __call__(self, predict: PredictRows, latents: Tensor, rollouts: list[Rollout]) -> Tensor:
        """Latents (R, C, h, w) where each row arrives, fp32.

        Args:
            predict: the model, for the first rows of these.
            latents: (R, C, h, w), noisy, at the starts of the rollouts.
            rollouts: of at least 1 step each, the longest first.
        """
        steps = [rollout.num_steps for rollout in rollouts]
        assert steps == sorted(steps, reverse=True), steps
        assert all(start >= num_steps > 0 for _, start, num_steps in rollouts), rollouts
        begins = np.array([rollout.start for rollout in rollouts])
        arrived: list[Tensor] = []
        outputs: list[Tensor] = []  # clean latents, the newest first
        before = latents
        for number in range(steps[0]):
            active = sum(count > number for count in steps)
            arrived.append(latents[active:])
            latents, before = latents[:active], before[:active]
            outputs = [output[:active] for output in outputs]
            at = begins[:active] - number
            clean = self._clean(predict, latents, at)
            if self.solver == "unipc" and outputs:
                factors = corrector(*self._levels(at + 1, len(outputs)))
                latents = _combined(factors, [before, clean, *outputs])
            outputs = [clean, *outputs][: self.order]
            factors = predictor(self.solver, *self._levels(at, len(outputs)))
            before, latents = latents, _combined(factors, [latents, *outputs])
        return torch.cat([latents, *reversed(arrived)])

    def _levels(self, begins: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
        """alpha and sigma where a step ends, where it begins, and at the `order` - 1 timesteps before."""
        timesteps = begins + np.arange(-1, order)[:, None]
        return self._alphas[timesteps], self._sigmas[timesteps]

    def _clean(self, predict: PredictRows, latents: Tensor, at: np.ndarray) -> Tensor:
        """The clean latents that the model sees in its rows."""
        timesteps = sent(torch.from_numpy(at), latents.device)
        prediction = predict(latents, timesteps, len(at)).float()
        levels = self.schedule.alphas[timesteps], self.schedule.sigmas[timesteps]
        return predicted_latents(prediction, latents, *levels, self.schedule.prediction_type)


def _combined(factors: Factors, latents: list[Tensor]) -> Tensor:
    """The sum of latents, each times the factor of its row."""
    weights = sent(torch.from_numpy(factors).float(), latents[0].device)
    total = per_row(weights[0]) * latents[0]
    for weight, term in zip(weights[1:], latents[1:], strict=True):
        total = torch.addcmul(total, per_row(weight), term)
    return total
