"""config.json: the typed description of a run, under SimpleTuner's names wherever it has one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from dreamspace.config.parsing import parse_settings
from dreamspace.config.simpletuner import RUN_DIALECT
from dreamspace.files import read_json, write_json

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
FilledText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


MAX_SEED = 2**32 - 1
MAX_STEPS = 1_000_000
"""Far above any adapter's training; a slip of the finger beyond it would only fill the memory."""


class RunConfig(BaseModel):
    """Everything about a run but its datasets. Immutable; `apply_settings` makes a changed copy."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )

    model_family: Literal["sd1x"] = Field(
        "sd1x", description="The family of the base model, which decides how it is loaded and trained."
    )
    pretrained_model_name_or_path: FilledText = Field(
        "mini",
        description="The base model: 'mini' is the embedded one, a folder or a Hub id names any other.",
    )
    model_type: Literal["lora"] = Field(
        "lora",
        description="What is trained: 'lora' trains a small adapter and leaves the base model as it is.",
    )
    lora_type: Literal["standard"] = Field(
        "standard", description="The kind of adapter: 'standard' is LoRA as PEFT builds it."
    )
    lora_rank: int = Field(
        16,
        ge=1,
        le=1024,
        description="The rank of the adapter's matrices: more can hold more detail and forgets more.",
    )
    lora_alpha: float | None = Field(
        None, gt=0, description="The adapter is scaled by alpha / rank; null makes alpha equal to the rank."
    )
    lora_dropout: float = Field(
        0.0, ge=0, lt=1, description="The share of the adapter's inputs that is set to zero in each step."
    )

    learning_rate: float = Field(
        1e-4, gt=0, description="How far each step moves the adapter's weights, at the schedule's height."
    )
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "cosine", "cosine_with_restarts", "linear", "polynomial"
    ] = Field("constant", description="How the learning rate changes over the run, by diffusers' names.")
    lr_warmup_steps: int = Field(
        0, ge=0, description="Steps in which the learning rate rises from zero; 'constant' has no such rise."
    )
    train_batch_size: int = Field(
        2,
        ge=1,
        le=1024,
        description="Images in each forward pass, per device: subject photos and class images together.",
    )
    gradient_accumulation_steps: int = Field(
        1, ge=1, le=1024, description="Forward passes whose gradients are added up to make one step."
    )
    max_train_steps: int = Field(400, ge=1, le=MAX_STEPS, description="Optimizer steps of the whole run.")
    seed: int = Field(
        42, ge=0, le=MAX_SEED, description="The number from which all randomness of the run follows."
    )
    mixed_precision: Literal["no", "fp16", "bf16"] = Field(
        "no", description="The number format of forward and backward passes; 'no' is full 32-bit precision."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, slower steps."
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's decay of the gradient's running mean.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's decay of the squared gradient's mean.")
    adam_epsilon: float = Field(1e-8, gt=0, description="AdamW's guard against division by zero.")
    adam_weight_decay: float = Field(
        1e-2, ge=0, description="How strongly AdamW pulls the adapter's weights towards zero."
    )
    max_grad_norm: float = Field(
        1.0, gt=0, description="Gradients with a larger norm are scaled down to this."
    )

    snr_gamma: float | None = Field(
        None,
        gt=0,
        description="The bound of Min-SNR loss weights, usually 5; null weighs all timesteps alike.",
    )
    num_class_images: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Class images to train with: the base model draws what their folder in the workspace "
        "lacks, and a folder of your own is only read; 0 draws none.",
    )

    checkpoint_step_interval: int = Field(
        100, ge=1, le=MAX_STEPS, description="Steps from one checkpoint to the next."
    )
    checkpoints_total_limit: int = Field(
        5,
        ge=1,
        le=MAX_STEPS,
        description="Checkpoints from which the run can resume; older ones keep their adapter only.",
    )

    validation_disable: bool = Field(False, description="Make no validation images during training.")
    validation_prompt: Text | None = Field(
        None, description="The prompt of the validation images; null takes the instance prompt."
    )
    validation_prompts: list[FilledText] = Field(
        [], description="Further prompts to validate with, an image each; SimpleTuner has no such key."
    )
    validation_negative_prompt: Text = Field("", description="What validation images should not show.")
    validation_seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="The seed of the validation images; null takes the run's seed."
    )
    validation_step_interval: int = Field(
        100, ge=1, le=MAX_STEPS, description="Steps from one set of validation images to the next."
    )
    validation_num_inference_steps: int = Field(
        20,
        ge=1,
        le=1000,
        description="Denoising steps of a validation image: more take longer and look finer.",
    )
    validation_guidance: float = Field(
        5.0, ge=0, description="How strictly a validation image follows its prompt; 1 is without guidance."
    )
    validation_resolution: Text | None = Field(
        None,
        description="Size of the validation images in px, as '128' or '96x64'; null takes the training's.",
    )
    validation_preview: bool = Field(
        True, description="Show validation images while they come into focus, by a tiny decoder."
    )
    validation_preview_steps: int = Field(
        5, ge=1, le=1000, description="Denoising steps from one preview of a validation image to the next."
    )

    token: Text | None = Field(
        None,
        max_length=100,
        description="The rare word that stands for the subject; null learns it under its class word.",
    )
    class_word: Text | None = Field(
        None,
        max_length=100,
        description="What the subject is, such as 'dog'; null where the prompts are written by hand.",
    )

    @field_validator("token", "class_word", "validation_prompt")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None

    @field_validator("validation_resolution")
    @classmethod
    def _check_resolution(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4})?", value):
            raise ValueError(f"must be one size in px, such as '128' or '96x64', got '{value}'.")
        return value

    @model_validator(mode="after")
    def _check_warmup(self) -> "RunConfig":
        if self.lr_warmup_steps >= self.max_train_steps and self.lr_scheduler != "constant":
            raise ValueError(
                f"lr_warmup_steps must be below max_train_steps ({self.max_train_steps}), "
                f"got {self.lr_warmup_steps}. Shorten the warm-up or train longer."
            )
        return self

    @classmethod
    def load(cls, path: Path) -> "RunConfig":
        """Read a config.json.

        Raises:
            ValueError: if the file is missing or no JSON, or a setting is wrong.
        """
        return parse_run_config(read_json(path), source=Path(path).name)

    def save(self, path: Path) -> None:
        """Write all settings, defaults too: the file is the record of what was trained."""
        write_json(path, self.model_dump(mode="json"))


def is_hub_id(model: str) -> bool:
    """Whether a base model's name is an id on the Hub: of the form 'owner/name', and no folder here."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model, re.ASCII)) and not Path(model).is_dir()


def parse_run_config(values: Mapping[str, Any], *, source: str = "config") -> RunConfig:
    """Validate the settings of a config.json; keys may carry leading dashes.

    Args:
        source: where the settings come from; an error begins with it.

    Raises:
        ValueError: one sentence for the first thing that is wrong; an unknown key names the nearest one.
    """
    return parse_settings(RunConfig, values, RUN_DIALECT, source=source)
