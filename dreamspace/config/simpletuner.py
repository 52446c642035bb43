"""What SimpleTuner's files may say that Dreamspace spells otherwise or does not support yet."""

from dreamspace.config.parsing import Dialect

RUN_DIALECT = Dialect(
    later_keys=frozenset({
        "base_model_precision", "data_aesthetic_score", "data_backend_config",
        "eval_dataset_pooling", "eval_epoch_interval", "eval_loss_disable", "eval_steps_interval",
        "eval_timesteps", "evaluation_type", "hub_model_id", "lycoris_config", "model_card_private",
        "model_flavour", "num_eval_images", "pretrained_evaluation_model_name_or_path",
        "push_checkpoints_to_hub", "push_to_hub", "quantize_via", "resume_from_checkpoint",
        "text_encoder_1_precision", "text_encoder_2_precision", "text_encoder_3_precision",
        "text_encoder_4_precision", "use_dora", "validation_lycoris_strength",
        "validation_prompt_library", "webhook_config",
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
    later_values={
        "type": frozenset({"aws", "csv", "memory", "webshart"}),
        "dataset_type": frozenset({"audio", "caption", "video"}),
        "caption_strategy": frozenset({"csv", "parquet"}),
    },
)  # fmt: skip
