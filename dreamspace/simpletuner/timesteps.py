"""Which timesteps are trained: SimpleTuner's keys of them in our words, and ours in its.

It spreads the timesteps of DDPM's models over a batch and draws them alike. Those of a flow are a sigmoid of
normal numbers, or uniform, or of a beta distribution, and are then shifted; here they are uniform or a
sigmoid, and shifted or not.
"""

from typing import Any

from dreamspace.config.families import FLOW_FAMILIES
from dreamspace.config.run import RunConfig
from dreamspace.simpletuner.reading import Draft, Notes, is_true, number

THEIR_SHIFT = 3.0
"""SimpleTuner's default of flow_schedule_shift; 0 shifts nothing there."""

OWN_SCHEDULE_FAMILIES = frozenset({"sana"})
"""The flows for which SimpleTuner reads no key of timesteps, and draws all of the model's scheduler alike."""

_FLOW_KEYS = (
    "flow_beta_schedule_alpha",
    "flow_beta_schedule_beta",
    "flow_custom_timesteps",
    "flow_schedule_auto_shift",
    "flow_schedule_shift",
    "flow_sigmoid_scale",
    "flow_use_beta_schedule",
    "flow_use_uniform_schedule",
    "flux_fast_schedule",
)


def import_timesteps(draft: Draft) -> None:
    """Take what concerns the timesteps; a model that is no flow leaves the keys of flows to be ignored."""
    family = draft.given.get("model_family")
    is_together = is_true(draft.take("disable_segmented_timestep_sampling"))
    if family not in FLOW_FAMILIES:
        if not is_together:
            message = (
                "SimpleTuner spreads a batch over the timesteps unless disable_segmented_timestep_sampling "
                "is set: true is written (ours is false)."
            )
            draft.write("stratified_timesteps", True, message)
        return
    given = {key: draft.take(key) for key in _FLOW_KEYS if key in draft.given}
    if family in OWN_SCHEDULE_FAMILIES:
        for key in given:
            draft.say("trap", key, f"SimpleTuner does not read it for {family}, and it is left out.")
        return
    _flow(draft, given)


def _flow(draft: Draft, given: dict[str, Any]) -> None:
    is_uniform, is_beta = (is_true(given.get(f"flow_use_{name}_schedule")) for name in ("uniform", "beta"))
    scale = number(given.get("flow_sigmoid_scale"), 1.0)
    if given.get("flow_custom_timesteps") is not None:
        message = "SimpleTuner trains the timesteps of that list alone; here all are trained alike."
        draft.say("differs", "flow_custom_timesteps", message)
        return
    if is_true(given.get("flux_fast_schedule")) and not is_uniform and not is_beta:
        message = "SimpleTuner trains pure noise and three other timesteps; here all are trained alike."
        draft.say("differs", "flux_fast_schedule", message)
        return
    shift = _shift(draft, given)
    if shift != 1:
        draft.settings["timestep_shift"] = shift
        sampling = "shifted" if is_uniform else "shifted_logit_normal"
    else:
        sampling = "uniform" if is_uniform else "logit_normal"
    draft.settings["timestep_sampling"] = sampling
    if is_beta and not is_uniform:
        shape = [number(given.get(f"flow_beta_schedule_{name}"), 2.0) for name in ("alpha", "beta")]
        there = f"numbers of a beta distribution ({shape[0]:g}, {shape[1]:g})"
    elif scale != 1 and not is_uniform:
        there = f"the sigmoid of normal numbers times {scale:g}"
    else:
        return
    message = f"SimpleTuner draws {there}: '{sampling}' is written, the sigmoid of normal numbers."
    draft.say("differs", "timestep_sampling", message)


def _shift(draft: Draft, given: dict[str, Any]) -> float:
    """By how much the timesteps of a flow are shifted; 1 is not at all."""
    shift = number(given.get("flow_schedule_shift"), THEIR_SHIFT)
    if is_true(given.get("flow_schedule_auto_shift")):
        key = "flow_schedule_auto_shift"
        if shift > 0:
            message = (
                f"SimpleTuner refuses it unless flow_schedule_shift is 0 ({THEIR_SHIFT:g} where it is "
                f"absent): the shift by {shift:g} is taken."
            )
            draft.say("trap", key, message)
        else:
            shift = THEIR_SHIFT
            message = f"SimpleTuner shifts by each picture's size; here all are shifted by {shift:g}."
            draft.say("differs", key, message)
    return shift if shift > 0 else 1.0


def export_timesteps(config: RunConfig, notes: Notes) -> dict[str, Any]:
    """The keys with which SimpleTuner trains the same timesteps, where it can."""
    sampling = config.timestep_sampling
    if config.model_family not in FLOW_FAMILIES:
        if sampling != "uniform":
            message = "SimpleTuner draws all timesteps of such a model alike."
            notes.say("differs", "timestep_sampling", message)
        return {"disable_segmented_timestep_sampling": not config.stratified_timesteps}
    if config.stratified_timesteps:
        message = "SimpleTuner draws each timestep of a flow model by itself."
        notes.say("differs", "stratified_timesteps", message)
    if config.model_family in OWN_SCHEDULE_FAMILIES:
        if sampling != "uniform":
            message = f"SimpleTuner draws all timesteps of {config.model_family} alike, whatever it is told."
            notes.say("differs", "timestep_sampling", message)
        return {}
    shift = config.timestep_shift if sampling.startswith("shifted") else 1.0
    if sampling.endswith("logit_normal"):
        return {"flow_sigmoid_scale": 1.0, "flow_schedule_shift": shift}
    return {"flow_use_uniform_schedule": True, "flow_schedule_shift": shift}
