"""SimpleTuner's optimizer, schedule, noise and rollout in our words."""

from dreamspace.config.run import RunConfig
from dreamspace.simpletuner.optimizers import NUMBERS, REFUSED, THEIR_OPTIMIZERS
from dreamspace.simpletuner.reading import Draft, is_true, number
from dreamspace.simpletuner.timesteps import import_timesteps

COSINE_STEPS = 1000
"""The half period of SimpleTuner's cosine without lr_warmup_steps."""


def translate_learning(draft: Draft) -> None:
    """Take what concerns the optimizer, its schedule, the noise and the rollout; max_train_steps is known."""
    _optimizer(draft)
    _schedule(draft)
    _noise(draft)
    import_timesteps(draft)
    _rollout(draft)


def _optimizer(draft: Draft) -> None:
    name = draft.take("optimizer")
    own: dict[str, float] = {}
    if name in THEIR_OPTIMIZERS:
        theirs = THEIR_OPTIMIZERS[name]
        draft.settings["optimizer"], own = theirs.ours, theirs.numbers
        if name in REFUSED:
            draft.say(
                "trap", "optimizer", f"SimpleTuner refuses '{name}' by now: '{theirs.ours}' is written."
            )
        elif theirs.note:
            draft.say("differs", "optimizer", f"'{name}': {theirs.note} is written.")
    elif name is not None:
        draft.settings["optimizer"] = name
        draft.say("trap", "optimizer", f"SimpleTuner has no '{name}', which is kept as it is written.")
    for key in [key for key in own if key in draft.given]:
        value = draft.take(key)
        message = (
            f"SimpleTuner reads it under DeepSpeed alone, else optimizer_config: the optimizer's own "
            f"{own[key]:g} is written, and not {value}."
        )
        draft.say("trap", key, message)
    own |= _given_numbers(draft)
    draft.settings.update(own)
    ours = RunConfig().model_dump()
    differing = [f"{key} {value:g}" for key, value in own.items() if value != ours[key]]
    if differing:
        draft.say("differs", "optimizer", f"comes with SimpleTuner's own {', '.join(differing)}.")


def _given_numbers(draft: Draft) -> dict[str, float]:
    """The numbers that SimpleTuner reads: optimizer_config, or the two betas where there is none."""
    betas = {f"adam_beta{index}": draft.take(f"optimizer_beta{index}") for index in (1, 2)}
    numbers = {key: number(value, 0) for key, value in betas.items() if value is not None}
    options = [pair.partition("=") for pair in str(draft.take("optimizer_config", "")).split(",")]
    options = [(key.strip(), value) for key, separator, value in options if separator]
    if numbers and options:
        message = "SimpleTuner reads it only where there is no optimizer_config, and it is left out."
        draft.say("trap", "optimizer_beta1", message)
        numbers = {}
    for key, value in options:
        if key in NUMBERS:
            numbers[NUMBERS[key]] = number(value, 0)
        else:
            draft.say(
                "ignored", "optimizer_config", f"'{key}={value}' is left out: there is no such setting."
            )
    return numbers


def _schedule(draft: Draft) -> None:
    name = str(draft.take("lr_scheduler", "constant_with_warmup"))
    name = "cosine" if name == "cosine_with_warmup" else name
    num_warmup_steps = int(number(draft.given.get("lr_warmup_steps"), 0))
    ends_at = draft.take("lr_end")
    if draft.settings.get("optimizer") == "adamw_schedulefree":
        if not name.startswith("constant"):
            message = f"SimpleTuner runs a schedule-free optimizer without '{name}'; its warm-up is kept."
            draft.say("trap", "lr_scheduler", message)
        name = "constant_with_warmup"
    if name in ("cosine", "sine", "cosine_with_restarts"):
        _wave(draft, name, num_warmup_steps)
        return
    if name == "constant" and num_warmup_steps:
        name = "constant_with_warmup"
        draft.say("differs", "lr_scheduler", f"SimpleTuner makes 'constant' '{name}' by lr_warmup_steps.")
    draft.settings["lr_scheduler"] = name
    if name == "polynomial":
        if "lr_power" not in draft.given:
            draft.write("lr_power", 0.8, "absent: SimpleTuner's default 0.8 is written (ours is 1.0).")
        if ends_at is not None:
            draft.say("differs", "lr_end", f"{ends_at} is left out: the rate falls to 1e-07 here.")


def _wave(draft: Draft, name: str, half_steps: int) -> None:
    """SimpleTuner's own schedules, which take lr_warmup_steps for their half period."""
    draft.take("lr_warmup_steps")
    half_steps = half_steps or COSINE_STEPS
    draft.settings["lr_scheduler"] = "cosine" if name == "sine" else name
    if name == "cosine" and half_steps == draft.settings.get("max_train_steps"):
        return
    there = {
        "cosine": f"falls within {half_steps} steps (lr_warmup_steps is no warm-up there) and rises again",
        "sine": f"is a wave from half the rate up, of 2 x {half_steps} steps (lr_warmup_steps is its half)",
        "cosine_with_restarts": "is broken and stays at the full rate",
    }
    message = f"SimpleTuner's '{name}' {there[name]}; here it falls over the run, without a warm-up."
    draft.say("trap", "lr_scheduler", message)


def _noise(draft: Draft) -> None:
    offset, share = draft.take("noise_offset"), draft.take("noise_offset_probability", 0.25)
    if is_true(draft.take("offset_noise")):
        draft.settings["noise_offset"] = number(offset, 0.1)
        if number(share, 1) != 1:
            message = (
                f"SimpleTuner adds the offset to a share of {share} of the batches, here every row has it."
            )
            draft.say("differs", "noise_offset_probability", message)
    elif number(offset, 0) != 0:
        message = f"{offset} does nothing in SimpleTuner without offset_noise, and is left out."
        draft.say("trap", "noise_offset", message)


def _rollout(draft: Draft) -> None:
    given = draft.given
    if number(given.get("scheduled_sampling_max_step_offset"), 0) > 0:
        message = "SimpleTuner trains a rolled-out row towards the noise that was drawn, which is written."
        draft.write("scheduled_sampling_target", "original_noise", message)
    if number(given.get("scheduled_sampling_ramp_steps"), 0) <= 0:
        return
    probability = number(given.get("scheduled_sampling_probability"), 0)
    end = given.get("scheduled_sampling_prob_end")
    if number(given.get("scheduled_sampling_prob_start"), 0) == 0:
        there, here = number(end, 0.5), number(end, probability)
        message = (
            f"SimpleTuner's ramp runs from {probability:g} to {there:g}, since a start of 0 counts as "
            f"absent; here it runs from 0 to {here:g}, as its document means it."
        )
        draft.say("trap", "scheduled_sampling_ramp_steps", message)
    elif end is None:
        message = "absent: SimpleTuner's default 0.5 is written (ours is the probability)."
        draft.write("scheduled_sampling_prob_end", 0.5, message)
