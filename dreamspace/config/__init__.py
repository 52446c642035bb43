"""The typed description of a run: its settings, its datasets, and presets of both."""

from dreamspace.config.dataset import DatasetConfig, parse_dataset
from dreamspace.config.datasets import (
    Prior,
    check_datasets,
    class_prompt,
    instance_prompt,
    load_datasets,
    mask_datasets,
    prior_of,
    read_datasets,
    save_datasets,
    subject_dataset,
    subject_datasets,
    subject_prompt,
)
from dreamspace.config.presets import Preset, apply_settings, list_presets, load_preset
from dreamspace.config.run import RunConfig, is_hub_id, parse_run_config
from dreamspace.config.sections import MAX_SEED

__all__ = [
    "MAX_SEED",
    "DatasetConfig",
    "Preset",
    "Prior",
    "RunConfig",
    "apply_settings",
    "check_datasets",
    "class_prompt",
    "instance_prompt",
    "is_hub_id",
    "list_presets",
    "load_datasets",
    "load_preset",
    "mask_datasets",
    "parse_dataset",
    "parse_run_config",
    "prior_of",
    "read_datasets",
    "save_datasets",
    "subject_dataset",
    "subject_datasets",
    "subject_prompt",
]
