"""Which share of a run's rows is rolled out, step by step."""

import math

from dreamspace.config.sections import RolloutSettings


def rollout_probability(step: int, settings: RolloutSettings) -> float:
    """The share of rows that are rolled out at a step, counted from 0.

    It is 0 before `start_step`. Over `ramp_steps` it then rises to the probability, from 0; an explicit
    start or end of the ramp is obeyed instead. Without a ramp it is the probability, and the ramp's end only
    where the probability is 0.
    """
    begun = step - settings.scheduled_sampling_start_step
    if begun < 0 or settings.scheduled_sampling_max_step_offset == 0:
        return 0.0
    probability, end = settings.scheduled_sampling_probability, settings.scheduled_sampling_prob_end
    if settings.scheduled_sampling_ramp_steps == 0:
        return probability or end or 0.0
    end = probability if end is None else end
    start = settings.scheduled_sampling_prob_start or 0.0
    progress = min(1.0, begun / settings.scheduled_sampling_ramp_steps)
    if settings.scheduled_sampling_ramp_shape == "cosine":
        progress = 0.5 - 0.5 * math.cos(math.pi * progress)
    return start + (end - start) * progress
