"""A SimpleTuner pair becomes ours: the same training where we can, and a finding wherever we cannot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamspace.config.dataset import DatasetConfig
from dreamspace.config.datasets import subject_dataset
from dreamspace.config.findings import Finding
from dreamspace.config.parsing import shown
from dreamspace.config.run import RunConfig
from dreamspace.config.simpletuner_keys import DATASET_FALLBACKS, RUN_ALIASES
from dreamspace.data.lint import dataset_source, lint_run
from dreamspace.simpletuner.datasets import import_dataset, look_into_folder
from dreamspace.simpletuner.reading import Draft, finder, read_lenient_json
from dreamspace.simpletuner.settings import translate_settings
from dreamspace.suggest import nearest


@dataclass(frozen=True)
class ImportedPair:
    """A SimpleTuner pair in our words.

    Attributes:
        config: None where it asks for a base model that Dreamspace cannot train.
    """

    config: RunConfig | None
    datasets: list[DatasetConfig]
    findings: list[Finding]


def import_simpletuner(config_file: Path, datasets_file: Path, *, is_upload: bool = False) -> ImportedPair:
    """Read a config.json and a multidatabackend.json of SimpleTuner's.

    What both know is kept as it is written; where SimpleTuner's default for an absent key is another, it is
    written, except where it is unfit for an adapter; every difference is a finding. Folders are looked into
    where they are there, by their files' names alone.

    Raises:
        ValueError: if a file cannot be read, or nothing is left to train on.
    """
    config_file, datasets_file = Path(config_file), Path(datasets_file)
    settings, entries = read_lenient_json(config_file), read_lenient_json(datasets_file)
    if isinstance(settings, list) and isinstance(entries, dict):
        raise ValueError(
            f"{config_file.name} is a list of datasets and {datasets_file.name} holds the settings: the two "
            "are swapped. Name the settings first, the datasets second."
        )
    draft = Draft.of(settings, config_file.name, RUN_ALIASES)
    fallbacks = {key: draft.take(key) for key in DATASET_FALLBACKS if key in draft.given}
    datasets, findings = _import_datasets(entries, datasets_file.name, fallbacks)
    subject_dataset(datasets, source=datasets_file.name)
    if is_upload:
        datasets = [dataset.model_copy(update={"instance_data_dir": None}) for dataset in datasets]
    for key in fallbacks:
        draft.say("differs", key, f"{shown(fallbacks[key])} is written into each dataset that has none.")
    can_be_trained = translate_settings(draft, datasets, finder(config_file.parent, is_upload))
    _traps_of_regularisation(draft, datasets)
    config = draft.finish(RunConfig) if can_be_trained else None
    findings = [*draft.findings, *findings]
    if config is not None:
        for dataset in datasets:
            findings += look_into_folder(dataset, datasets, config.train_batch_size, datasets_file.name)
        findings += lint_run(config, datasets)
    return ImportedPair(config, datasets, findings)


def _import_datasets(
    entries: Any, file_name: str, fallbacks: dict[str, Any]
) -> tuple[list[DatasetConfig], list[Finding]]:
    if not isinstance(entries, list):
        raise ValueError(
            f"{file_name} must hold a list of datasets, got {shown(entries)}. Put [ ] around it."
        )
    datasets: list[DatasetConfig] = []
    findings: list[Finding] = []
    for entry in entries:
        dataset, found = import_dataset(entry, fallbacks, file_name)
        findings += found
        if dataset is not None:
            datasets.append(dataset)
    ids = [dataset.id for dataset in datasets]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        message = "two datasets have this id: rename one of them before you train."
        findings.append(Finding("error", dataset_source(name, file_name), "id", message))
    masks = {d.id for d in datasets if d.dataset_type == "conditioning" and not d.disabled}
    for index, dataset in enumerate(datasets):
        given = dataset.conditioning_data or []
        given = [given] if isinstance(given, str) else given
        gone = next((name for name in given if name not in masks), None)
        if gone is not None:
            kept = [name for name in given if name in masks] or None
            datasets[index] = dataset.model_copy(update={"conditioning_data": kept})
            message = f"there are no masks '{gone}', and it is left out.{nearest(gone, masks)}"
            findings.append(
                Finding("error", dataset_source(dataset.id, file_name), "conditioning_data", message)
            )
    return datasets, findings


def _traps_of_regularisation(draft: Draft, datasets: list[DatasetConfig]) -> None:
    """What SimpleTuner's document says of is_regularisation_data against what its code does."""
    replaced = {finding.key for finding in draft.findings if finding.level == "error"}
    if not any(dataset.is_trained and dataset.is_regularisation_data for dataset in datasets):
        return
    if "model_type" in replaced:
        message = "with model_type 'full' SimpleTuner takes it for an ordinary dataset; here it is the prior."
    elif "lora_type" not in replaced:
        message = "SimpleTuner's document says it needs LyCORIS; its code takes any LoRA, as Dreamspace does."
    else:
        return
    draft.say("trap", "is_regularisation_data", message)
