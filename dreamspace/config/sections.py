"""The settings of config.json by subject; `RunConfig` puts them together in one flat file."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from dreamspace.config.families import FamilyName
from dreamspace.config.lycoris import LycorisConfig
from dreamspace.config.precision import Precision

Text = Annotated[str, StringConstraints(strip_whitespace=True)]
FilledText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

MAX_SEED = 2**32 - 1
MAX_STEPS = 1_000_000
"""Far above any adapter's training; a slip of the finger beyond it would only fill the memory."""


class Section(BaseModel):
    """A part of the settings, immutable. The docstring of each is its title in the app."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        protected_namespaces=(),
    )


class ModelSettings(Section):
    """Model."""

    model_family: FamilyName = Field(
        "sd1x", description="The family of the base model, which decides how it is loaded and trained."
    )
    model_flavour: Text | None = Field(
        None,
        description="A model of the family by its short name, such as 'refiner-1.0', where no other is named;"
        " null takes the family's usual one.",
    )
    pretrained_model_name_or_path: FilledText = Field(
        "mini",
        description="The base model: 'mini' is the embedded one, a folder or a Hub id names any other.",
    )
    model_type: Literal["lora", "full", "textual_inversion"] = Field(
        "lora",
        description="What is trained: 'lora' trains a small adapter and leaves the base model as it is, "
        "'full' trains all of the denoiser's weights, 'textual_inversion' a word alone.",
    )
    data_aesthetic_score: float = Field(
        7.0,
        ge=0,
        le=10,
        description="How good the photos look, from 0 to 10, as the SDXL refiner is told; no other model is.",
    )


class AdapterSettings(Section):
    """Adapter."""

    lora_type: Literal["standard", "loha", "lokr", "lycoris"] = Field(
        "standard",
        description="The kind of adapter: 'standard' is LoRA, 'loha' and 'lokr' are others of the same rank, "
        "as PEFT builds them; 'lycoris' is what lycoris_config says.",
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
    init_lora: FilledText | None = Field(
        None,
        description="An adapter of the same kind and size to begin with, a folder or a .safetensors file; "
        "null begins with none.",
    )
    use_dora: bool = Field(
        False, description="Train the size of each weight apart from its direction (DoRA): slower, finer."
    )
    lycoris_config: LycorisConfig | None = Field(
        None, description="The settings of a LyCORIS adapter, as a JSON object; null takes lokr of rank 16."
    )


class TextSettings(Section):
    """Text encoders and a word of one's own."""

    train_text_encoder: bool = Field(
        False,
        description="Put a LoRA on the text encoders too, which then stay in memory: what a prompt means is "
        "learned along.",
    )
    text_encoder_lr: float | None = Field(
        None, gt=0, le=10, description="The learning rate of that LoRA; null takes half the run's."
    )
    num_token_vectors: int = Field(
        0,
        ge=0,
        le=32,
        description="Learn the token as a new word of so many vectors (textual inversion), which the text "
        "encoders then know; 0 learns none.",
    )
    token_initializer: FilledText | None = Field(
        None, description="The word that a learned token begins as; null takes the class word."
    )
    token_lr: float | None = Field(
        None, gt=0, le=10, description="The learning rate of a learned token; null takes ten times the run's."
    )


class LearningSettings(Section):
    """Learning."""

    learning_rate: float = Field(
        1e-4,
        gt=0,
        le=10,
        description="How far each step moves the adapter's weights, at the schedule's height.",
    )
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "cosine",
        "cosine_with_restarts",
        "linear",
        "piecewise_constant",
        "polynomial",
    ] = Field("constant", description="How the learning rate changes over the run, by diffusers' names.")
    lr_warmup_steps: int = Field(
        0, ge=0, description="Steps in which the learning rate rises from zero; 'constant' has no such rise."
    )
    lr_num_cycles: int = Field(
        1, ge=1, le=1000, description="How often 'cosine_with_restarts' starts again from the top."
    )
    lr_power: float = Field(1.0, gt=0, description="The exponent of the 'polynomial' schedule's fall.")
    lr_restart_step: int = Field(
        0,
        ge=0,
        le=MAX_STEPS,
        description="The step at which the schedule begins anew, where a finished run is continued; 0 is the "
        "run's beginning.",
    )
    lr_step_rules: Text | None = Field(
        None,
        description="For 'piecewise_constant': factor:until_step pairs and a last factor, such as "
        "'1:100,0.1:300,0.01'; null for the other schedules.",
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


class OptimizerSettings(Section):
    """Optimizer and memory."""

    optimizer: Literal[
        "adamw", "adamw_bf16", "bnb-adamw8bit", "lion", "adafactor", "prodigy", "adamw_schedulefree"
    ] = Field(
        "adamw",
        description="What moves the weights: 'bnb-adamw8bit' saves memory; 'prodigy' finds the learning rate "
        "itself, with learning_rate 1.",
    )
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="The decay of the gradient's running mean.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="The decay of the squared gradient's mean.")
    adam_epsilon: float = Field(1e-8, gt=0, description="The guard against division by zero.")
    adam_weight_decay: float = Field(
        1e-2, ge=0, description="How strongly the adapter's weights are pulled towards zero."
    )
    max_grad_norm: float = Field(
        1.0, gt=0, description="Gradients with a larger norm are scaled down to this."
    )
    mixed_precision: Literal["no", "fp16", "bf16"] = Field(
        "no", description="The number format of forward and backward passes; 'no' is full 32-bit precision."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, slower steps."
    )
    dynamo_backend: Literal["no", "eager", "aot_eager", "inductor"] = Field(
        "no",
        description="Compile the denoiser by torch.compile: 'inductor' makes long runs faster after minutes "
        "of compiling, the others are for finding errors; 'no' compiles nothing.",
    )
    auto_fit: bool = Field(
        False,
        description="Where a run does not fit into memory, before the start or when it runs out, make the "
        "cheapest change that helps, say so, and go on from the newest checkpoint.",
    )
    enable_group_offload: bool = Field(
        False,
        description="Keep the frozen weights below an adapter in the CPU's memory and bring them to the GPU "
        "block by block: for models larger than the GPU, slow; needs gradient_checkpointing.",
    )


class PrecisionSettings(Section):
    """Precision of the base model."""

    base_model_precision: Precision = Field(
        "no_change",
        description="How the frozen weights below an adapter are kept: int8 and fp8 take half the memory of "
        "16 bits, int4 and nf4 a quarter; convolutions, most of SD 1.x and 2.x, are kept so by quanto alone.",
    )
    text_encoder_1_precision: Precision = Field(
        "no_change",
        description="The same for the model's part text_encoder, which is only at work before the training.",
    )
    text_encoder_2_precision: Precision = Field(
        "no_change", description="The same for the part text_encoder_2, where the model has one."
    )
    text_encoder_3_precision: Precision = Field(
        "no_change", description="The same for the part text_encoder_3, where the model has one."
    )
    text_encoder_4_precision: Precision = Field(
        "no_change", description="The same for the part text_encoder_4, where the model has one."
    )
    quantize_via: Literal["cpu", "accelerator"] = Field(
        "accelerator",
        description="Where weights are quantised: on the GPU layer by layer, or on the CPU, slower and "
        "without a layer's worth of the GPU's memory.",
    )


BASE_MODEL_SETTINGS = (
    "mixed_precision",
    "gradient_checkpointing",
    "enable_group_offload",
    *PrecisionSettings.model_fields,
)
"""That decide in which numbers a base model is kept, and where."""


class DataSettings(Section):
    """Data and prior."""

    data_backend_sampling: Literal["auto-weighting", "uniform"] = Field(
        "auto-weighting",
        description="How datasets are mixed within an epoch: by their probability times their length, or by "
        "their probability alone until one is used up.",
    )
    caption_dropout_probability: float = Field(
        0.0, ge=0, le=1, description="The share of rows that are trained with an empty caption."
    )
    num_class_images: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Class images to train with: the base model draws what their folder in the workspace "
        "lacks, and a folder of your own is only read; 0 draws none.",
    )
    prior_loss_weight: float = Field(
        1.0,
        ge=0,
        description="The weight of class images against the subject's photos where their target is the "
        "noise, as in the DreamBooth paper.",
    )


class LossSettings(Section):
    """Loss."""

    loss_type: Literal["l2", "huber", "smooth_l1"] = Field(
        "l2", description="The distance of prediction and target: 'huber' and 'smooth_l1' mind outliers less."
    )
    huber_schedule: Literal["snr", "exponential", "constant"] = Field(
        "snr", description="How the bound of huber and smooth_l1 changes with the timestep."
    )
    huber_c: float = Field(
        0.1, gt=0, description="The distance up to which huber and smooth_l1 are quadratic, at its smallest."
    )
    snr_gamma: float | None = Field(
        None,
        gt=0,
        description="The bound of Min-SNR loss weights, usually 5; null weighs all timesteps alike.",
    )
    debiased_estimation: bool = Field(
        False, description="Weigh each timestep by 1 / sqrt(SNR), so that noisy ones count as much as others."
    )
    masked_loss_normalization: Literal["area", "mean"] = Field(
        "area",
        description="Divide a masked loss by the mask's area, so that a small subject counts as much, or by "
        "the whole picture as SimpleTuner does.",
    )
    masked_loss_probability: float = Field(
        1.0, ge=0, le=1, description="The share of rows in which masks of type 'segmentation' apply."
    )
    masked_background_weight: float = Field(
        0.0, ge=0, le=1, description="What the background outside a mask weighs in the loss; 0 is nothing."
    )
    masked_prior_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Outside a mask, how strongly the base model's own prediction is kept, so that the "
        "background is neither learned nor forgotten.",
    )


class NoiseSettings(Section):
    """Noise and timesteps."""

    timestep_sampling: Literal["uniform", "logit_normal", "shifted", "shifted_logit_normal"] = Field(
        "uniform",
        description="Which timesteps are trained: all alike, more of the middle, or either shifted.",
    )
    timestep_shift: float = Field(
        3.0, gt=0, description="For those that are shifted: above 1 trains more of the noisy timesteps."
    )
    stratified_timesteps: bool = Field(
        False, description="Spread the timesteps of each step evenly, so that small batches vary less."
    )
    noise_offset: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Adds this much noise of one value a channel, for darker and brighter images.",
    )
    input_perturbation: float = Field(
        0.0, ge=0, le=1, description="Adds this much more noise to the input than the target knows of."
    )
    rescale_betas_zero_snr: bool = Field(
        False,
        description="Train and draw from pure noise on (zero-terminal SNR); for v-prediction models.",
    )


class RolloutSettings(Section):
    """Rollout (scheduled sampling)."""

    scheduled_sampling_max_step_offset: int = Field(
        0,
        ge=0,
        le=100,
        description="How many timesteps, at most, the model denoises by itself before a step; 0 is off.",
    )
    scheduled_sampling_probability: float = Field(
        0.0, ge=0, le=1, description="The share of rows that are rolled out, after the ramp."
    )
    scheduled_sampling_prob_start: float | None = Field(
        None,
        ge=0,
        le=1,
        description="That share at the ramp's start; null is 0 where there is a ramp.",
    )
    scheduled_sampling_prob_end: float | None = Field(
        None,
        ge=0,
        le=1,
        description="That share at the ramp's end; null is the probability, taken without a ramp too.",
    )
    scheduled_sampling_ramp_steps: int = Field(
        0, ge=0, le=MAX_STEPS, description="Steps over which the share of rolled-out rows grows."
    )
    scheduled_sampling_start_step: int = Field(
        0, ge=0, le=MAX_STEPS, description="The step at which rollout begins."
    )
    scheduled_sampling_ramp_shape: Literal["linear", "cosine"] = Field(
        "linear", description="How the share grows over the ramp."
    )
    scheduled_sampling_strategy: Literal["uniform", "biased_early", "biased_late"] = Field(
        "uniform", description="Which offsets are drawn: all alike, more short ones, or more long ones."
    )
    scheduled_sampling_sampler: Literal["unipc", "euler", "dpm"] = Field(
        "unipc", description="The solver that takes the steps of a rollout."
    )
    scheduled_sampling_order: int = Field(
        2, ge=1, le=3, description="The order of the solver; a higher one uses more of the steps before."
    )
    scheduled_sampling_target: Literal["recomputed", "original_noise"] = Field(
        "recomputed",
        description="What a rolled-out row is trained towards: 'recomputed' leads from where the rollout ends"
        " to the photo, 'original_noise' is the noise that was drawn, as in SimpleTuner.",
    )
    scheduled_sampling_reflexflow: bool | None = Field(
        None, description="ReflexFlow's correction of a rollout; null turns it on for flow models alone."
    )
    scheduled_sampling_reflexflow_alpha: float = Field(
        1.0, ge=0, description="How strongly ReflexFlow weighs cells that the rollout moved away."
    )
    scheduled_sampling_reflexflow_beta1: float = Field(
        10.0, ge=0, description="The weight of ReflexFlow's anti-drift loss."
    )
    scheduled_sampling_reflexflow_beta2: float = Field(
        1.0, ge=0, description="The weight of the ordinary loss beside it."
    )


class EmaSettings(Section):
    """Moving average (EMA)."""

    use_ema: bool = Field(
        False, description="Keep a moving average of the weights, which changes more smoothly than they do."
    )
    ema_device: Literal["cpu", "accelerator"] = Field("cpu", description="Where the average is kept.")
    ema_decay: float = Field(
        0.995, ge=0, lt=1, description="The share of the average that stays in each update."
    )
    ema_update_interval: int = Field(
        1, ge=1, le=MAX_STEPS, description="Steps from one update of the average to the next."
    )
    ema_warmup_steps: int = Field(
        0, ge=0, le=MAX_STEPS, description="Steps in which the average simply follows the weights."
    )
    ema_validation: Literal["none", "ema_only", "comparison"] = Field(
        "comparison", description="Which weights draw the validation images: trained, averaged, or both."
    )


class CheckpointSettings(Section):
    """Checkpoints."""

    checkpoint_step_interval: int = Field(
        100, ge=1, le=MAX_STEPS, description="Steps from one checkpoint to the next."
    )
    checkpoints_total_limit: int = Field(
        5,
        ge=1,
        le=MAX_STEPS,
        description="Checkpoints from which the run can resume; older ones keep their adapter only.",
    )


class WordSettings(Section):
    """Words."""

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

    @field_validator("token", "class_word")
    @classmethod
    def _empty_is_none(cls, value: str | None) -> str | None:
        return value or None
