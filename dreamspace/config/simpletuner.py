"""What SimpleTuner's files may say that Dreamspace spells otherwise or does not support yet."""

from dreamspace.config.parsing import Dialect

RUN_DIALECT = Dialect(
    later_keys=frozenset({
        "base_model_precision", "data_aesthetic_score", "data_backend_config", "data_backend_sampling",
        "ema_decay", "ema_device", "ema_update_interval", "ema_validation", "ema_warmup_steps",
        "eval_dataset_pooling", "eval_epoch_interval", "eval_loss_disable", "eval_steps_interval",
        "eval_timesteps", "evaluation_type", "hub_model_id", "huber_c", "huber_schedule", "loss_type",
        "lycoris_config", "masked_loss_probability", "model_card_private", "model_flavour",
        "num_eval_images", "optimizer", "pretrained_evaluation_model_name_or_path",
        "push_checkpoints_to_hub", "push_to_hub", "quantize_via", "resume_from_checkpoint",
        "scheduled_sampling_max_step_offset", "scheduled_sampling_order", "scheduled_sampling_prob_end",
        "scheduled_sampling_prob_start", "scheduled_sampling_probability", "scheduled_sampling_ramp_shape",
        "scheduled_sampling_ramp_steps", "scheduled_sampling_reflexflow",
        "scheduled_sampling_reflexflow_alpha", "scheduled_sampling_reflexflow_beta1",
        "scheduled_sampling_reflexflow_beta2", "scheduled_sampling_sampler",
        "scheduled_sampling_start_step", "scheduled_sampling_strategy", "text_encoder_1_precision",
        "text_encoder_2_precision", "text_encoder_3_precision", "text_encoder_4_precision", "use_dora",
        "use_ema", "validation_lycoris_strength", "validation_prompt_library", "webhook_config",
    }),
    later_values={
        "model_family": frozenset(
            {"deepfloyd", "flux", "flux2", "qwen_image", "sana", "sd3", "sdxl", "z_image"}
        ),
        "model_type": frozenset({"full"}),
        "lora_type": frozenset({"lycoris"}),
    },
)  # fmt: skip

DATASET_DIALECT = Dialect(
    aliases={"disable": "disabled", "is_regularization_data": "is_regularisation_data"},
    later_keys=frozenset({
        "cache_dir", "conditioning_data", "conditioning_type", "crop_aspect_buckets", "default",
        "end_step", "masked_loss_probability", "maximum_aspect_ratio", "maximum_image_size",
        "metadata_backend", "minimum_aspect_ratio", "minimum_image_size", "only_instance_prompt",
        "prepend_instance_prompt", "start_step", "target_downsample_size", "vae_cache_clear_each_epoch",
    }),
    later_values={
        "type": frozenset({"aws", "csv", "huggingface", "memory", "webshart"}),
        "dataset_type": frozenset(
            {"audio", "caption", "conditioning", "eval", "image_embeds", "text_embeds", "video"}
        ),
        "caption_strategy": frozenset({"csv", "filename", "huggingface", "parquet", "textfile"}),
        "crop_aspect": frozenset({"closest", "preserve", "random"}),
        "crop_style": frozenset({"corner", "face", "random"}),
    },
)  # fmt: skip
