"""The names of SimpleTuner's keys, and what follows where Dreamspace leaves one out.

Read from SimpleTuner's field registry (helpers of its configuration, January to August 2026), names only.
"""

from collections.abc import Mapping


def _table(groups: Mapping[str, str]) -> dict[str, str]:
    return {name: consequence for consequence, names in groups.items() for name in names.split()}


SHARED_RUN_KEYS = frozenset(
    [
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "adam_weight_decay",
        "base_model_precision",
        "caption_dropout_probability",
        "checkpoint_step_interval",
        "checkpoints_total_limit",
        "data_aesthetic_score",
        "data_backend_sampling",
        "dynamo_backend",
        "ema_decay",
        "ema_device",
        "ema_update_interval",
        "ema_validation",
        "ema_warmup_steps",
        "enable_group_offload",
        "eval_dataset_pooling",
        "eval_epoch_interval",
        "eval_loss_disable",
        "eval_steps_interval",
        "eval_timesteps",
        "evaluation_type",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "huber_c",
        "huber_schedule",
        "input_perturbation",
        "learning_rate",
        "lora_alpha",
        "lora_dropout",
        "lora_rank",
        "init_lora",
        "lora_type",
        "lycoris_config",
        "loss_type",
        "lr_num_cycles",
        "lr_power",
        "lr_scheduler",
        "lr_warmup_steps",
        "masked_loss_probability",
        "max_grad_norm",
        "max_train_steps",
        "mixed_precision",
        "model_family",
        "model_flavour",
        "model_type",
        "use_dora",
        "validation_lycoris_strength",
        "noise_offset",
        "optimizer",
        "num_eval_images",
        "pretrained_evaluation_model_name_or_path",
        "pretrained_model_name_or_path",
        "quantize_via",
        "rescale_betas_zero_snr",
        "scheduled_sampling_max_step_offset",
        "scheduled_sampling_order",
        "scheduled_sampling_prob_end",
        "scheduled_sampling_prob_start",
        "scheduled_sampling_probability",
        "scheduled_sampling_ramp_shape",
        "scheduled_sampling_ramp_steps",
        "scheduled_sampling_reflexflow",
        "scheduled_sampling_reflexflow_alpha",
        "scheduled_sampling_reflexflow_beta1",
        "scheduled_sampling_reflexflow_beta2",
        "scheduled_sampling_sampler",
        "scheduled_sampling_start_step",
        "scheduled_sampling_strategy",
        "seed",
        "snr_gamma",
        "text_encoder_lr",
        "text_encoder_1_precision",
        "text_encoder_2_precision",
        "text_encoder_3_precision",
        "text_encoder_4_precision",
        "train_batch_size",
        "train_text_encoder",
        "use_ema",
        "num_validation_images",
        "validation_disable",
        "validation_epoch_interval",
        "validation_guidance",
        "validation_negative_prompt",
        "validation_num_inference_steps",
        "validation_preview",
        "validation_preview_steps",
        "validation_prompt",
        "validation_prompt_library",
        "validation_resolution",
        "validation_seed",
        "validation_step_interval",
        "webhook_config",
    ]
)
"""Keys of config.json that SimpleTuner and Dreamspace have under one name."""

DATASET_FALLBACKS = (
    "caption_strategy",
    "instance_prompt",
    "maximum_image_size",
    "minimum_image_size",
    "only_instance_prompt",
    "prepend_instance_prompt",
    "resolution",
    "resolution_type",
    "target_downsample_size",
)
"""Keys of config.json that serve every dataset without one of its own."""

RUN_ALIASES = {
    "checkpointing_steps": "checkpoint_step_interval",
    "save_total_limit": "checkpoints_total_limit",
    "validation_steps": "validation_step_interval",
}

TRANSLATED_RUN_KEYS = frozenset(
    [
        "data_backend_config",
        "disable_segmented_timestep_sampling",
        "ema_cpu_only",
        "grad_clip_method",
        "lr_end",
        "noise_offset_probability",
        "num_train_epochs",
        "offset_noise",
        "optimizer_beta1",
        "optimizer_beta2",
        "optimizer_config",
        "user_prompt_library",
    ]
).union(DATASET_FALLBACKS, RUN_ALIASES)
"""Keys of config.json that the import says in other words."""

IGNORED_RUN_KEYS = _table({
    "Dreamspace writes its own events, log and pictures.": """
        custom_tracker enable_watermark logging_dir report_to tracker_image_layout tracker_project_name
        tracker_run_name webhook_reporting_interval""",
    "The folder of a run is named by --run, and --resume goes on with it.": """
        output_dir resume_from_checkpoint""",
    "A run is published by the command publish once it is finished.": """
        hub_model_id model_card_note model_card_private model_card_safe_for_work modelspec_comment
        post_checkpoint_script post_upload_script publishing_config push_checkpoints_to_hub push_to_hub
        push_to_hub_background""",
    "Caches and workers are arranged by Dreamspace itself; the training stays the same.": """
        aspect_bucket_disable_rebuild aspect_bucket_worker_count aws_max_pool_connections cache_dir
        cache_dir_text cache_dir_vae compress_disk_cache dataloader_prefetch dataloader_prefetch_qlen
        delete_model_after_load enable_multiprocessing image_processing_batch_size keep_vae_loaded
        max_workers metadata_update_interval override_dataset_config preserve_data_backend_cache
        read_batch_size skip_file_discovery text_cache_disable text_cache_ondemand text_encoder_batch_size
        torch_num_threads vae_batch_size vae_cache_disable vae_cache_ondemand vae_cache_preprocess
        vae_cache_scan_behaviour vae_dtype vae_enable_patch_conv vae_enable_slicing
        vae_enable_temporal_roll vae_enable_tiling write_batch_size""",
    "It saves memory or time, and Dreamspace has no such switch; the training stays the same.": """
        accelerator_cache_clear_interval attention_mechanism disable_tf32 dynamo_dynamic
        dynamo_fullgraph dynamo_mode dynamo_use_regional_compilation enable_chunked_feed_forward
        feed_forward_chunk_size fully_unload_text_encoder fuse_optimizer
        fuse_qkv_projections fused_qkv_projections gradient_checkpointing_backend
        gradient_checkpointing_interval group_offload_blocks_per_group group_offload_text_encoder
        group_offload_to_disk_path group_offload_type group_offload_use_stream group_offload_vae
        musubi_block_swap_device musubi_blocks_to_swap offload_during_save offload_during_startup
        offload_param_path optimizer_cpu_offload_method optimizer_offload_gradients
        optimizer_release_gradients ramtorch ramtorch_controlnet ramtorch_disable_extensions
        ramtorch_disable_sync_hooks ramtorch_target_modules ramtorch_text_encoder
        ramtorch_text_encoder_percent ramtorch_transformer_percent ramtorch_vae sageattention_usage
        set_grads_to_none sla_config unet_attention_slice""",
    "Processes are started by accelerate or torchrun around the command.": """
        accelerate_config accelerate_extra_args context_parallel_comm_strategy context_parallel_size
        deepspeed_config fsdp_activation_checkpointing fsdp_auto_wrap_policy fsdp_cpu_offload
        fsdp_cpu_ram_efficient_loading fsdp_enable fsdp_limit_all_gathers fsdp_reshard_after_forward
        fsdp_state_dict_type fsdp_transformer_layer_cls_to_wrap fsdp_version local_rank machine_rank
        main_process_ip main_process_port num_machines num_processes same_network seed_for_each_device""",
    "Weights are quantised as the keys of precision say, and activations stay as they are.": """
        base_model_default_dtype quantization_config quantize_activations""",
    "Not supported yet: a plain LoRA, started as PEFT starts it, is trained instead.": """
        flux_lora_target init_lokr_norm lora_init_type peft_lora_mode
        peft_lora_target_modules singlora_ramp_up_steps slider_lora_target""",
    "All layers are trained to the end, those of text encoders where train_text_encoder says so.": """
        freeze_encoder_after freeze_encoder_before freeze_encoder_strategy layer_freeze_strategy
        save_text_encoder text_encoder_limit""",
    "Every dataset of type 'eval' is measured on.": "eval_dataset_id",
    "Validation images are drawn at step 0 and by the intervals, by the model's scheduler.": """
        disable_benchmark inference_scheduler_timestep_spacing
        validation_adapter_config validation_adapter_mode validation_adapter_name
        validation_adapter_path validation_adapter_strength validation_disable_unconditional
        validation_external_background validation_external_script
        validation_guidance_rescale validation_guidance_skip_layers validation_guidance_skip_layers_start
        validation_guidance_skip_layers_stop validation_guidance_skip_scale validation_method
        validation_multigpu validation_noise_scheduler validation_on_startup validation_randomize
        validation_seed_source validation_stitch_input_location validation_torch_compile
        validation_torch_compile_mode validation_using_datasets""",
    "Checkpoints are written every checkpoint_step_interval.": """
        checkpoint_epoch_interval checkpointing_rolling_steps checkpointing_use_tempdir
        checkpoints_rolling_total_limit""",
    "The loss and the noise have no such part here, so the training differs by it.": """
        crepa_adjacent_distance crepa_adjacent_tau crepa_block_index crepa_drop_vae_encoder crepa_enabled
        crepa_encoder crepa_encoder_image_size crepa_lambda crepa_normalize_by_frames crepa_spatial_align
        diff2flow_enabled diff2flow_loss distillation_config distillation_method input_perturbation_steps
        snr_weight soft_min_snr_sigma_data timestep_bias_begin timestep_bias_end timestep_bias_multiplier
        timestep_bias_portion timestep_bias_strategy tread_config use_soft_min_snr""",
    "The optimizer and its schedule have no such part here, so the training differs by it.": """
        gradient_precision lr_scale lr_scale_sqrt prodigy_steps""",
    "The run ends at max_train_steps.": "ignore_final_epochs",
    "Noise schedules and prediction types are the base model's own.": """
        prediction_type training_scheduler_timestep_spacing""",
    "The base model is loaded whole, as its folder or Hub id has it.": """
        pretrained_gemma_model_name_or_path pretrained_t5_model_name_or_path
        pretrained_transformer_model_name_or_path pretrained_transformer_subfolder
        pretrained_unet_model_name_or_path pretrained_unet_subfolder pretrained_vae_model_name_or_path
        revision tokenizer_max_length variant""",
    "The SDXL refiner is trained on the last fifth of the timesteps, and its base model on all of them.": """
        refiner_training refiner_training_invert_schedule refiner_training_strength
        sdxl_refiner_uses_full_range""",
    "It is of the timesteps of flow models, and this is none that Dreamspace trains.": """
        flow_beta_schedule_alpha flow_beta_schedule_beta flow_custom_timesteps flow_schedule_auto_shift
        flow_schedule_shift flow_sigmoid_scale flow_use_beta_schedule flow_use_uniform_schedule
        flux_fast_schedule""",
    "FLUX.1-dev is told a guidance of 1 in training, and no other model is told one.": """
        flux_guidance_max flux_guidance_min flux_guidance_mode flux_guidance_value""",
    "FLUX draws validation images by validation_guidance alone, without a negative prompt.": """
        validation_guidance_real validation_no_cfg_until_timestep""",
    "Prompts are encoded, and their padding is attended to, as in the model's own pipeline.": """
        custom_text_encoder_intermediary_layers flux_attention_masked_training
        sana_complex_human_instruction t5_padding""",
    "An empty caption is encoded as an empty text.": """
        sd3_clip_uncond_behaviour sd3_t5_uncond_behaviour""",
    "It belongs to models that are not supported yet.": """
        audio_channels audio_duration_interval audio_max_duration_seconds audio_min_duration_seconds
        audio_truncation_mode framerate hidream_load_balancing_loss_weight
        hidream_use_load_balancing_loss ltx_i2v_prob ltx_partial_noise_fraction ltx_protect_first_frame
        ltx_train_mode lyrics_embedder_lr lyrics_embedder_lr_scheduler lyrics_embedder_optimizer
        lyrics_embedder_train validation_audio_duration validation_lyrics validation_num_video_frames
        wan_force_2_1_time_embedding""",
    "ControlNets are not trained here.": """
        conditioning_multidataset_sampling control controlnet controlnet_custom_config
        controlnet_model_name_or_path""",
    "Photos are only read, never deleted; those that cannot be used are left out with a warning.": """
        delete_nsfw_images delete_problematic_images delete_unwanted_images enable_nsfw_check
        ignore_missing_files""",
    "A bucket with few photos gives a smaller step, so it needs no such switch.": """
        allow_dataset_oversubscription disable_bucket_pruning""",
    "Buckets follow the photos' shapes and the model's own grid.": """
        aspect_bucket_alignment aspect_bucket_rounding max_upscale_threshold""",
    "Captions in parquet files are not read.": "parquet_caption_column parquet_filename_column",
    "It only prints more, or unlocks what is open here.": """
        debug_aspect_buckets debug_dataset_loader i_know_what_i_am_doing print_filenames
        print_sampler_statistics""",
})  # fmt: skip
"""What follows from leaving out a key of config.json, by its name."""

IGNORED_DATASET_KEYS = _table({
    "Caches are arranged by Dreamspace itself; the training stays the same.": """
        cache_dir_conditioning_image_embeds compress_cache conditioning_image_embed_batch_size
        conditioning_image_embeds hash_filenames image_embeds memory_filesystem_path
        memory_filesystem_size memory_filesystem_sudo metadata_update_interval preserve_data_backend_cache
        shorten_filenames skip_file_discovery text_cache_disable text_cache_ondemand text_embeds
        text_encoder_batch_size vae_cache_disable vae_cache_ondemand write_batch_size""",
    "Datasets begin and end by steps here: set start_step and end_step.": "end_epoch start_epoch",
    "Captions are taken as they are, and each line of a .txt file is one.": """
        caption_filter_list caption_shuffle disable_multiline_split""",
    "Photos are only read, never deleted; those that cannot be used are left out with a warning.": """
        delete_nsfw_images delete_problematic_images delete_unwanted_images""",
    "Buckets follow the photos' shapes.": "max_upscale_threshold",
    "Validation images are drawn from prompts alone.": "disable_validation",
    "It is found from conditioning_data.": "source_dataset_id",
    "The loss and the noise have no such part here, so the training differs by it.": """
        grounding slider_strength timestep_sampling_offset""",
    "ControlNets are not trained here.": "conditioning conditioning_config",
    "It belongs to storage, video or audio that Dreamspace does not read.": """
        audio aws_access_key_id aws_bucket_name aws_data_prefix aws_endpoint_url aws_max_pool_connections
        aws_region_name aws_secret_access_key aws_session_token csv_cache_dir csv_caption_column csv_file
        csv_url_column distillation_type parquet s2v_datasets video video_column webshart""",
    "The newest revision of the dataset is read, whole.": """
        auto_load composite_image_config filter_func num_proc revision streaming""",
    "SimpleTuner itself reads it no more.": "ignore_epochs",
})  # fmt: skip
"""What follows from leaving out a key of a dataset, by its name."""

KNOWN_RUN_KEYS = SHARED_RUN_KEYS | TRANSLATED_RUN_KEYS | frozenset(IGNORED_RUN_KEYS)
"""Every key that SimpleTuner takes in config.json."""

KNOWN_DATASET_KEYS = frozenset(
    [
        "cache_dir",
        "cache_dir_vae",
        "caption_strategy",
        "conditioning_data",
        "conditioning_type",
        "crop",
        "crop_aspect",
        "crop_aspect_buckets",
        "crop_style",
        "dataset_name",
        "dataset_type",
        "default",
        "disable",
        "disabled",
        "end_step",
        "huggingface",
        "id",
        "image_column",
        "instance_data_dir",
        "instance_prompt",
        "is_regularisation_data",
        "is_regularization_data",
        "max_num_samples",
        "maximum_aspect_ratio",
        "maximum_image_size",
        "metadata_backend",
        "minimum_aspect_ratio",
        "minimum_image_size",
        "only_instance_prompt",
        "prepend_instance_prompt",
        "probability",
        "repeats",
        "resolution",
        "resolution_type",
        "split",
        "start_step",
        "target_downsample_size",
        "type",
        "vae_cache_clear_each_epoch",
    ]
).union(IGNORED_DATASET_KEYS)
"""Every key that SimpleTuner takes in an entry of multidatabackend.json."""
