"""SimpleTuner's config.json in our words: the model, the length of the run, the loss, and absent keys."""

import json
import math
from typing import Any, NamedTuple

from pydantic import ValidationError

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.families import FLAVOURS
from dreamspace.config.lycoris import WHOLE_ADAPTER_KEYS, LycorisConfig
from dreamspace.config.run import RunConfig
from dreamspace.config.sections import MAX_STEPS
from dreamspace.config.simpletuner_keys import IGNORED_RUN_KEYS
from dreamspace.data.lint import local_photos, num_rows
from dreamspace.simpletuner.learning import translate_learning
from dreamspace.simpletuner.reading import Draft, Find, is_true, number, read_lenient_json
from dreamspace.simpletuner.validation import NEGATIVE_PROMPT, translate_validation

NO_CLIPPING = 1e6
"""A max_grad_norm that no gradient reaches: what SimpleTuner calls 0."""

NUMERIC_KEYS = frozenset(
    {
        *("max_train_steps", "num_train_epochs", "lr_warmup_steps", "seed"),
        *("noise_offset", "noise_offset_probability", "optimizer_beta1", "optimizer_beta2"),
        *("flow_schedule_shift", "flow_sigmoid_scale"),
        *("flow_beta_schedule_alpha", "flow_beta_schedule_beta"),
    }
)
"""Those that are reckoned with before they are checked as settings of ours."""


class Default(NamedTuple):
    """SimpleTuner's default of a key, where it differs from ours.

    Attributes:
        ours_because: why ours is taken; "" where theirs is written.
    """

    theirs: Any
    ours_because: str = ""


_DEFAULTS = {
    "learning_rate": Default(4e-7, "theirs is a full model's, and would teach an adapter nothing"),
    "train_batch_size": Default(4, "the memory decides it"),
    "optimizer": Default("adamw_bf16", "the adapter's weights are 32-bit"),
    "gradient_checkpointing": Default(True, "it only saves memory, and the training stays the same"),
    "seed": Default(None, "theirs is another in each run"),
    "lora_dropout": Default(0.1),
    "max_grad_norm": Default(2.0),
    "mixed_precision": Default("bf16"),
    "caption_dropout_probability": Default(0.1),
    "checkpoint_step_interval": Default(500),
    "validation_guidance": Default(7.5),
    "validation_num_inference_steps": Default(30),
    "validation_negative_prompt": Default(NEGATIVE_PROMPT),
    "validation_resolution": Default("256", "the training's own size is what the model draws well"),
    "validation_preview": Default(False, "previews need no webhook here, and come wherever images are drawn"),
}


def translate_settings(draft: Draft, datasets: list[DatasetConfig], find: Find) -> bool:
    """Say everything that is given in our words; whether its base model can be trained at all.

    Args:
        datasets: the imported datasets, whose photos count the steps of an epoch.
        find: the files that it names.
    """
    for key in sorted(NUMERIC_KEYS & draft.given.keys()):
        if not math.isfinite(number(draft.given[key], math.nan)):
            draft.say("error", key, f"must be a number, got '{draft.take(key)}'. It is left out.")
    can_be_trained = _model(draft)
    _adapter(draft, find)
    _steps(draft, datasets)
    translate_learning(draft)
    _loss(draft, datasets)
    translate_validation(draft, find)
    _rest(draft)
    _defaults(draft)
    return can_be_trained


def _model(draft: Draft) -> bool:
    family = draft.given.get("model_family")
    flavour = draft.take("model_flavour")
    key = "pretrained_model_name_or_path"
    if family is not None and family not in FLAVOURS:
        draft.take("model_family")
        draft.say("error", "model_family", f"'{family}' is not supported yet.")
        return False
    if key in draft.given:
        if flavour is not None:
            draft.say("ignored", "model_flavour", f"'{flavour}' is left out: {key} names the model.")
        return True
    if family is None:
        draft.say("differs", key, "absent: the embedded model 'mini' is taken; set it to train another.")
        return True
    flavours = FLAVOURS.get(family, {})
    name = str(flavour or next(reversed(flavours), None))
    if name not in flavours:
        draft.say("error", "model_flavour", f"'{name}' is unknown here: set {key} to its folder or Hub id.")
        return False
    draft.write(key, flavours[name], f"absent: '{flavours[name]}', SimpleTuner's '{name}', is written.")
    return True


def _adapter(draft: Draft, find: Find) -> None:
    given = draft.given
    if "model_type" not in given:
        draft.say("differs", "model_type", "absent: SimpleTuner's default is 'full'; 'lora' is taken.")
    if is_true(given.get("use_dora")) and "quanto" in str(given.get("base_model_precision")):
        draft.take("use_dora")
        draft.say("trap", "use_dora", "SimpleTuner switches it off for a base model in a quanto precision.")
    if given.get("model_type") == "full" and "learning_rate" not in given:
        draft.write("learning_rate", 4e-7, "absent: SimpleTuner's default, for a full model, is written.")
    if given.get("lora_type") == "lycoris" or "lycoris_config" in given:
        _lycoris(draft, find)


def _lycoris(draft: Draft, find: Find) -> None:
    """The file that lycoris_config names goes into our config.json as an object."""
    key = "lycoris_config"
    name = str(draft.take(key, "config/lycoris_config.json"))
    found = find(name)
    if found is None:
        draft.say("error", key, f"there is no file {name}: our own default, lokr of rank 16, is trained.")
        return
    values = read_lenient_json(found)
    if not isinstance(values, dict):
        draft.say("error", key, f"{name} holds no JSON object: our own default, lokr of rank 16, is trained.")
        return
    numbers = ("multiplier", "linear_dim", "linear_alpha")
    cut = [each for each in numbers if not number(values.get(each, 0), 0).is_integer()]
    if cut:
        message = f"SimpleTuner cuts {' and '.join(cut)} to whole numbers, so that 0.5 becomes 0."
        draft.say("trap", key, message)
    for unknown in sorted(values.keys() - LycorisConfig.model_fields.keys()):
        draft.say("ignored", f"{key}.{unknown}", "LyCORIS has no such setting here.")
    settings = {name: value for name, value in values.items() if name in LycorisConfig.model_fields}
    _leave_out_idle_options(draft, settings)
    draft.settings[key] = settings


def _leave_out_idle_options(draft: Draft, settings: dict[str, Any]) -> None:
    """Take those options out of a LyCORIS file that would do nothing, or stop LyCORIS."""
    preset = settings.get("apply_preset")
    for map_name in ("module_algo_map", "name_algo_map") if isinstance(preset, dict) else ():
        by_name = preset.get(map_name)
        for name, own in by_name.items() if isinstance(by_name, dict) else ():
            for option in sorted(WHOLE_ADAPTER_KEYS & own.keys()) if isinstance(own, dict) else ():
                del own[option]
                message = "LyCORIS has it for the whole adapter alone and stops at it there: it is left out."
                draft.say("ignored", f"lycoris_config.apply_preset.{map_name}.{name}.{option}", message)
    try:
        config = LycorisConfig.model_validate(settings)
    except ValidationError:
        return  # it is said where all settings are checked
    is_quantised = draft.given.get("base_model_precision", "no_change") != "no_change"
    for idle in config.idle_options(is_quantised):
        *around, option = idle.path
        holder = settings
        for each in around:
            holder = holder[each]
        del holder[option]
        message = (
            f"LyCORIS does nothing by it with {', '.join(sorted(idle.algos))}, only with "
            f"{', '.join(sorted(idle.having))}: it is left out."
        )
        draft.say("ignored", ".".join(("lycoris_config", *idle.path)), message)


def _steps(draft: Draft, datasets: list[DatasetConfig]) -> None:
    """The length of the run, which SimpleTuner also counts in epochs."""
    key = "max_train_steps"
    steps = number(draft.take(key), 0)
    epochs = number(draft.take("num_train_epochs", 1), 1)
    if steps > 0:
        draft.settings[key] = int(steps)
        if epochs > 0:
            message = (
                "SimpleTuner refuses it unless num_train_epochs is 0 (1 where it is absent): it is taken."
            )
            draft.say("trap", key, message)
        return
    counts = [(dataset, local_photos(dataset)) for dataset in datasets if dataset.is_trained]
    ours = RunConfig()
    if not all(photos for _, photos in counts):
        message = (
            f"absent: {epochs:g} epochs (num_train_epochs) cannot be counted without the photos; "
            f"ours, {ours.max_train_steps}, is taken: set it."
        )
        draft.say("differs", key, message)
        return
    batch_size = int(number(draft.given.get("train_batch_size"), ours.train_batch_size))
    accumulation = int(number(draft.given.get("gradient_accumulation_steps"), 1))
    batches = sum(math.ceil(num_rows(dataset, len(photos)) / batch_size) for dataset, photos in counts)
    steps = min(MAX_STEPS, max(1, math.ceil(epochs * batches / accumulation)))
    message = f"absent: {epochs:g} epochs (num_train_epochs) of {batches} batches are {steps} steps."
    draft.write(key, steps, message)


def _loss(draft: Draft, datasets: list[DatasetConfig]) -> None:
    given = draft.given
    if "snr_gamma" in given and number(given["snr_gamma"], 1) == 0:
        draft.take("snr_gamma")  # 0 is off, there
    if any(dataset.conditioning_data and not dataset.disabled for dataset in datasets):
        draft.settings["masked_loss_normalization"] = "mean"
        draft.say(
            "trap",
            "masked_loss_normalization",
            "SimpleTuner divides a masked loss by the whole picture, so that a small subject counts for "
            "little: 'mean' is written for the same training; ours, 'area', suits small subjects better.",
        )
    method = draft.take("grad_clip_method", "value")
    if method != "norm":
        message = (
            f"SimpleTuner clips by '{method}', each gradient alone at max_grad_norm; here their norm is."
        )
        draft.say("differs", "grad_clip_method", message)
    if "max_grad_norm" in given and number(given["max_grad_norm"], 1) == 0:
        draft.take("max_grad_norm")
        draft.settings["max_grad_norm"] = NO_CLIPPING
    if is_true(draft.take("ema_cpu_only")):
        draft.take("ema_device")
        draft.settings["ema_device"] = "cpu"


def _rest(draft: Draft) -> None:
    given = draft.given
    if number(given.get("seed"), 1) in (0, -1):
        seed = int(number(draft.take("seed"), 0))
        draft.say("trap", "seed", f"SimpleTuner takes {seed} for a new seed in each run.")
        if seed == 0:
            draft.settings["seed"] = 0
    if number(given.get("checkpoints_total_limit"), 1) == 0:
        draft.take("checkpoints_total_limit")
        draft.settings["checkpoints_total_limit"] = MAX_STEPS  # 0 keeps all, there
    for key in ("gradient_checkpointing", "scheduled_sampling_reflexflow"):
        if str(given.get(key)).lower() == "false":
            message = (
                "SimpleTuner drops a false and keeps its default; false is written here, 0 says it there."
            )
            draft.say("trap", key, message)
    _memory(draft)
    if draft.take("data_backend_config") is not None:
        draft.say("ignored", "data_backend_config", "the second file that is given is read in its place.")
    if given.get("quantize_via") == "pipeline":
        draft.take("quantize_via")
        message = "'pipeline' is unknown here: weights are quantised on the GPU, layer by layer."
        draft.say("differs", "quantize_via", message)
    draft.take_rest(RunConfig.model_fields, IGNORED_RUN_KEYS)


def _memory(draft: Draft) -> None:
    """What saves memory or time, and is combined with less here than there."""
    given = draft.given
    if is_true(given.get("enable_group_offload")) and given.get("model_type") == "full":
        draft.take("enable_group_offload")
        draft.say(
            "ignored", "enable_group_offload", "it is for adapters here: a whole model is not offloaded."
        )
    is_whole = given.get("base_model_precision", "no_change") == "no_change"
    checkpoints = is_true(given.get("gradient_checkpointing")) or is_true(given.get("enable_group_offload"))
    if "dynamo_backend" in given and (checkpoints or not is_whole):
        draft.take("dynamo_backend")
        message = "it is for a whole base without gradient checkpointing here: nothing is compiled."
        draft.say("ignored", "dynamo_backend", message)
    if is_true(given.get("enable_group_offload")) and "gradient_checkpointing" not in given:
        message = "absent: SimpleTuner's default true is written, which enable_group_offload needs."
        draft.write("gradient_checkpointing", True, message)


def _defaults(draft: Draft) -> None:
    ours = RunConfig()
    for key, default in _DEFAULTS.items():
        if key in draft.settings:
            continue
        theirs, own = json.dumps(default.theirs), json.dumps(ours.model_dump()[key])
        if default.ours_because:
            message = (
                f"absent: SimpleTuner's default is {theirs}; ours, {own}, is taken: {default.ours_because}."
            )
            draft.say("differs", key, message)
        else:
            draft.write(
                key, default.theirs, f"absent: SimpleTuner's default {theirs} is written (ours is {own})."
            )
