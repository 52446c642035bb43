"""The typed description of a run: its settings, its datasets, and presets of both."""

from dreamspace.config.datasets import (
    DatasetConfig,
    check_datasets,
    class_prompt,
    instance_prompt,
    load_datasets,
    parse_dataset,
    read_datasets,
    save_datasets,
    subject_dataset,
    subject_datasets,
    subject_prompt,
)
from dreamspace.config.presets import Preset, apply_settings, list_presets, load_preset
from dreamspace.config.run import MAX_SEED, RunConfig, is_hub_id, parse_run_config

__all__ = [
    "MAX_SEED",
    "DatasetConfig",
    "Preset",
    "RunConfig",
    "apply_settings",
    "check_datasets",
    "class_prompt",
    "instance_prompt",
    "is_hub_id",
    "list_presets",
    "load_datasets",
    "load_preset",
    "parse_dataset",
    "parse_run_config",
    "read_datasets",
    "save_datasets",
    "subject_dataset",
    "subject_datasets",
    "subject_prompt",
]
