"""Our pair in SimpleTuner's words: only its keys, as its parser takes them, and back again."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamspace.commands.simpletuner import (
    add_export_options,
    add_import_options,
    run_export,
    run_import,
)
from dreamspace.config import DatasetConfig, RunConfig, load_datasets, save_datasets, subject_datasets
from dreamspace.config.findings import Finding
from dreamspace.config.simpletuner_keys import KNOWN_DATASET_KEYS, KNOWN_RUN_KEYS
from dreamspace.mini import MODEL_FOLDER
from dreamspace.simpletuner.exporting import export_simpletuner
from dreamspace.simpletuner.importing import import_simpletuner

SAYABLE: dict[str, Any] = {
    "pretrained_model_name_or_path": "owner/model",
    "masked_loss_normalization": "mean",
    "validation_negative_prompt": "fog",
    "validation_prompt": "a photo of a sks dog",
    "validation_resolution": "512",
    "validation_seed": 3,
    "validation_preview": False,
    "lr_scheduler": "constant_with_warmup",
    "optimizer": "adamw_bf16",
    "adam_epsilon": 1e-6,
    "scheduled_sampling_target": "original_noise",
    "held_out_photos": False,
}
"""A run that SimpleTuner can be told in full."""


def subject(**keys: Any) -> DatasetConfig:
    given = {"id": "subject", "instance_data_dir": "/nowhere", "instance_prompt": "a photo of a sks dog"}
    return DatasetConfig(**given | keys)


MASKED = [
    subject(conditioning_data="masks", crop=True, crop_style="random"),
    DatasetConfig(
        id="masks", dataset_type="conditioning", conditioning_type="mask", instance_data_dir="/nowhere/masks"
    ),
]


def export(
    tmp_path: Path, config: RunConfig, datasets: list[DatasetConfig]
) -> tuple[dict[str, Any], list[dict[str, Any]], list[Finding]]:
    findings = export_simpletuner(config, datasets, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    entries = json.loads((tmp_path / "out" / "multidatabackend.json").read_text())
    return written, entries, findings


def keys_of(findings: list[Finding]) -> list[str | None]:
    return [finding.key for finding in findings]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stratified_timesteps": True, "gradient_checkpointing": True, "max_grad_norm": 0.5, "seed": 7},
        {"lora_rank": 64, "lora_alpha": 2.5, "lora_dropout": 0.3, "mixed_precision": "fp16"},
        {"optimizer": "adamw", "adam_epsilon": 1e-8, "adam_beta1": 0.8, "adam_beta2": 0.95},
        {"optimizer": "adamw", "adam_epsilon": 1e-7, "adam_weight_decay": 0.0},
        {"model_family": "flux"},
        {"model_family": "sd3", "timestep_sampling": "logit_normal"},
        {"model_family": "flux", "timestep_sampling": "shifted", "timestep_shift": 1.5},
        {"model_family": "flux2", "timestep_sampling": "shifted"},
        {"model_family": "qwen_image", "timestep_sampling": "shifted", "timestep_shift": 0.5},
        {"model_family": "z_image", "timestep_sampling": "logit_normal"},
        {"model_family": "flux", "timestep_sampling": "shifted_logit_normal", "timestep_shift": 2.5},
        {"model_family": "sana"},
        {"optimizer": "bnb-adamw8bit"},
        {"base_model_precision": "nf4-bnb", "text_encoder_1_precision": "int8-quanto", "quantize_via": "cpu"},
        {"optimizer": "lion", "adam_beta2": 0.99, "adam_epsilon": 1e-8, "adam_weight_decay": 0.02},
        {"optimizer": "adafactor", "adam_epsilon": 1e-8, "adam_weight_decay": 0.0},
        {"lr_scheduler": "cosine", "max_train_steps": 123},
        {"lr_scheduler": "linear", "lr_warmup_steps": 20},
        {"lr_scheduler": "polynomial", "lr_power": 2.0},
        {"lr_scheduler": "constant"},
        {"loss_type": "smooth_l1", "huber_schedule": "constant", "huber_c": 0.5, "snr_gamma": 5.0},
        {"noise_offset": 0.07, "input_perturbation": 0.1, "rescale_betas_zero_snr": True},
        {"use_ema": True, "ema_decay": 0.9, "ema_device": "accelerator", "ema_validation": "ema_only"},
        {"validation_prompts": ["a dog in snow", "a dog at a beach"], "validation_disable": True},
        {"caption_dropout_probability": 0.25, "data_backend_sampling": "uniform"},
        {
            "scheduled_sampling_max_step_offset": 10,
            "scheduled_sampling_probability": 0.8,
            "scheduled_sampling_prob_start": 0.1,
            "scheduled_sampling_prob_end": 0.6,
            "scheduled_sampling_ramp_steps": 100,
            "scheduled_sampling_ramp_shape": "cosine",
            "scheduled_sampling_strategy": "biased_late",
            "scheduled_sampling_sampler": "euler",
            "scheduled_sampling_reflexflow": False,
        },
    ],
)
def test_what_simpletuner_can_say_comes_back_as_it_was(tmp_path: Path, settings: dict[str, Any]) -> None:
    config = RunConfig(**SAYABLE | settings)
    if not config.scheduled_sampling_max_step_offset:
        config = config.model_copy(update={"scheduled_sampling_target": "recomputed"})
    _, _, findings = export(tmp_path, config, MASKED)
    assert findings == []
    again = import_simpletuner(tmp_path / "out" / "config.json", tmp_path / "out" / "multidatabackend.json")
    assert again.config == config
    assert not [finding for finding in again.findings if finding.key == "timestep_sampling"]
    assert again.datasets[:-1] == MASKED
    assert again.datasets[-1].dataset_type == "text_embeds"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"repeats": 7, "probability": 0.5, "max_num_samples": 9, "start_step": 5, "end_step": 50},
        {"resolution": 0.5, "resolution_type": "area", "minimum_image_size": 0.25},
        {
            "resolution": 512,
            "resolution_type": "pixel",
            "minimum_aspect_ratio": 0.5,
            "maximum_aspect_ratio": 2,
        },
        {"caption_strategy": "textfile", "instance_prompt": None},
        {"caption_strategy": "filename", "prepend_instance_prompt": True},
        {"instance_prompt": ["a", "b"], "only_instance_prompt": True, "cache_dir_vae": "/cache"},
        {"crop": True, "crop_aspect": "closest", "crop_aspect_buckets": [1.0, 0.75], "crop_style": "face"},
        {"is_regularisation_data": True, "id": "class", "instance_prompt": "a photo of a dog"},
        {"dataset_type": "eval", "id": "held out"},
        {"disabled": True, "id": "off"},
        {
            "id": "hub",
            "type": "huggingface",
            "instance_data_dir": None,
            "dataset_name": "owner/name",
            "split": "test",
            "caption_strategy": "huggingface",
            "huggingface": {"image_column": "picture", "caption_column": "text"},
        },
    ],
)
def test_dataset_comes_back_as_it_was(tmp_path: Path, keys: dict[str, Any]) -> None:
    datasets = [subject(id="first"), subject(**keys)]
    _, entries, findings = export(tmp_path, RunConfig(**SAYABLE), datasets)
    assert not findings
    again = import_simpletuner(tmp_path / "out" / "config.json", tmp_path / "out" / "multidatabackend.json")
    assert again.datasets[:-1] == datasets
    assert all(set(entry) <= KNOWN_DATASET_KEYS for entry in entries)


def test_every_exported_key_is_simpletuners(tmp_path: Path) -> None:
    everything = {
        **SAYABLE,
        "scheduled_sampling_max_step_offset": 4,
        "validation_prompts": ["a"],
        "token": "sks",
    }
    written, entries, _ = export(tmp_path, RunConfig(**everything), MASKED)
    assert set(written) <= KNOWN_RUN_KEYS
    assert all(set(entry) <= KNOWN_DATASET_KEYS for entry in entries)
    assert not {"token", "class_word", "masked_loss_normalization"} & set(written)


def test_what_simpletuner_demands_is_written(tmp_path: Path) -> None:
    written, entries, _ = export(tmp_path, RunConfig(), [subject()])
    assert {"model_family", "model_type", "output_dir", "optimizer", "data_backend_config"} <= set(written)
    unfit = {"learning_rate", "train_batch_size", "gradient_checkpointing", "max_train_steps"}
    assert unfit <= set(written)
    assert written["num_train_epochs"] == 0, "it refuses max_train_steps beside 1, its default"
    assert Path(written["data_backend_config"]).is_file()
    assert written["pretrained_model_name_or_path"] == str(MODEL_FOLDER)
    assert entries[-1] == {
        "id": "text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "cache/text",
    }


def test_values_are_such_as_its_parser_takes(tmp_path: Path) -> None:
    """It drops false, null and empty texts, and reads a whole number where its default is one."""
    written, _, _ = export(tmp_path, RunConfig(snr_gamma=5.0, lr_scheduler="cosine"), [subject()])
    assert written["gradient_checkpointing"] == 0
    assert written["gradient_checkpointing"] is not False
    assert (written["snr_gamma"], type(written["snr_gamma"])) == (5, int)
    assert all(value not in (None, "") and value is not False for value in written.values())
    assert (written["lr_warmup_steps"], written["lr_end"]) == (400, 0), "its half period, down to nothing"
    assert (written["grad_clip_method"], written["validation_negative_prompt"]) == ("norm", ",")


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({}, {"flow_use_uniform_schedule": True, "flow_schedule_shift": 1}),
        ({"timestep_sampling": "logit_normal"}, {"flow_sigmoid_scale": 1, "flow_schedule_shift": 1}),
        (
            {"timestep_sampling": "shifted", "timestep_shift": 2.5},
            {"flow_use_uniform_schedule": True, "flow_schedule_shift": 2.5},
        ),
    ],
)
def test_timesteps_of_flows_are_said_in_its_keys(
    tmp_path: Path, settings: dict[str, Any], keys: dict[str, Any]
) -> None:
    written, _, _ = export(tmp_path, RunConfig(**SAYABLE | settings | {"model_family": "flux"}), [subject()])
    assert {key: value for key, value in written.items() if key.startswith("flow_")} == keys
    assert set(keys) <= KNOWN_RUN_KEYS
    assert "disable_segmented_timestep_sampling" not in written, "it is read for DDPM's models alone"


def test_what_null_stands_for_is_written_out(tmp_path: Path) -> None:
    datasets = [subject(id="small", resolution=512), subject(resolution=768)]
    config = RunConfig(seed=9, scheduled_sampling_max_step_offset=5, scheduled_sampling_probability=0.5)
    written, _, _ = export(tmp_path, config, datasets)
    assert (written["validation_prompt"], written["validation_seed"]) == ("a photo of a sks dog", 9)
    assert written["validation_resolution"] == "768"
    assert (written["scheduled_sampling_prob_start"], written["scheduled_sampling_prob_end"]) == (0.5, 0.5)


def test_ramp_from_zero_is_one_that_simpletuner_sees(tmp_path: Path) -> None:
    rollout = {"scheduled_sampling_max_step_offset": 5, "scheduled_sampling_probability": 1.0}
    config = RunConfig(**rollout, scheduled_sampling_ramp_steps=100)
    written, _, _ = export(tmp_path, config, [subject()])
    assert 0 < written["scheduled_sampling_prob_start"] < 1e-5
    assert written["scheduled_sampling_prob_end"] == 1


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"seed": 0}, "seed"),
        ({"snr_gamma": 4.5}, "snr_gamma"),
        ({"timestep_sampling": "logit_normal"}, "timestep_sampling"),
        ({"timestep_sampling": "shifted", "model_family": "sana"}, "timestep_sampling"),
        ({"stratified_timesteps": True, "model_family": "flux"}, "stratified_timesteps"),
        ({"debiased_estimation": True}, "debiased_estimation"),
        ({"masked_loss_normalization": "area"}, "masked_loss_normalization"),
        ({"masked_background_weight": 0.1}, "masked_background_weight"),
        ({"masked_prior_weight": 0.1}, "masked_prior_weight"),
        ({"num_class_images": 5}, "num_class_images"),
        ({"lr_scheduler": "piecewise_constant", "lr_step_rules": "1:9,0.1"}, "lr_scheduler"),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 9}, "lr_warmup_steps"),
        ({"lr_scheduler": "cosine_with_restarts"}, "lr_scheduler"),
        (
            {"optimizer": "prodigy", "adam_beta2": 0.99, "adam_weight_decay": 0, "adam_epsilon": 1e-8},
            "optimizer",
        ),
        ({"adam_beta1": 0.5, "adam_weight_decay": 0.5}, "adam_beta1"),
        ({"validation_negative_prompt": ""}, "validation_negative_prompt"),
        ({"validation_preview": True}, "validation_preview"),
        (
            {"scheduled_sampling_max_step_offset": 3, "scheduled_sampling_target": "recomputed"},
            "scheduled_sampling_target",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_said_there_is_named(tmp_path: Path, settings: dict[str, Any], key: str) -> None:
    _, _, findings = export(tmp_path, RunConfig(**SAYABLE | settings), MASKED)
    assert [(f.level, f.source, f.key) for f in findings] == [("differs", "config.json", key)]


@pytest.mark.parametrize(
    ("keys", "level", "key"),
    [
        ({"resolution": 520}, "differs", "resolution"),
        (
            {"resolution": 256, "resolution_type": "pixel", "maximum_image_size": 500,
             "target_downsample_size": 512},
            "error",
            "maximum_image_size",
        ),
        (
            {"is_regularisation_data": True, "id": "class", "regularisation_target": "noise"},
            "differs",
            "regularisation_target",
        ),
    ],
)  # fmt: skip
def test_what_a_dataset_cannot_say_there_is_named(
    tmp_path: Path, keys: dict[str, Any], level: str, key: str
) -> None:
    _, entries, findings = export(tmp_path, RunConfig(**SAYABLE), [subject(id="first"), subject(**keys)])
    assert [(f.level, f.key) for f in findings] == [(level, key)]
    assert "is_regularisation_data" not in entries[1], "the paper's class images are ordinary data there"


def test_crops_by_masks_become_centre_crops_and_masks_need_whole_names(tmp_path: Path) -> None:
    for name in ("photos/a.jpg", "photos/b.png", "masks/a.png", "masks/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    photos = subject(
        instance_data_dir=tmp_path / "photos", conditioning_data="masks", crop=True, crop_style="subject"
    )
    masks = MASKED[1].model_copy(update={"instance_data_dir": tmp_path / "masks"})
    _, entries, findings = export(tmp_path, RunConfig(**SAYABLE), [photos, masks])
    assert entries[0]["crop_style"] == "center"
    assert keys_of(findings) == ["crop_style", "conditioning_data"]
    assert findings[1].level == "error"
    assert "'a.jpg'" in findings[1].message


def test_export_does_not_write_over_a_pair(tmp_path: Path) -> None:
    export(tmp_path, RunConfig(), [subject()])
    with pytest.raises(ValueError, match=r"holds a config\.json already"):
        export(tmp_path, RunConfig(), [subject()])


# The commands


def command(add_options: Any, run: Any, *arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_export_and_import_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    run_dir = tmp_path / "run"
    RunConfig(**SAYABLE).save(run_dir / "config.json")
    save_datasets(subject_datasets(photos, "a photo of a sks dog", 512), run_dir / "multidatabackend.json")

    assert command(add_export_options, run_export, run_dir, "--out", tmp_path / "theirs") == 0
    printed = capsys.readouterr().out
    assert f"Wrote {tmp_path / 'theirs' / 'config.json'}" in printed

    theirs = [tmp_path / "theirs" / name for name in ("config.json", "multidatabackend.json")]
    assert command(add_import_options, run_import, *theirs) == 0
    printed = capsys.readouterr().out
    assert "Traps, where the file does not do what it seems to say:" in printed
    assert "are fewer than a batch of 2" in printed
    assert "Wrote" not in printed, "without --out nothing is written"

    ours = tmp_path / "ours"
    assert command(add_import_options, run_import, *theirs, "--out", ours, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["files"] == [str(ours / "config.json"), str(ours / "multidatabackend.json")]
    assert {"level", "source", "key", "message"} == set(printed["findings"][0])
    assert RunConfig.load(ours / "config.json").pretrained_model_name_or_path == "owner/model"
    assert load_datasets(ours / "multidatabackend.json")[0].id == "subject"
    with pytest.raises(ValueError, match=r"holds a config\.json already"):
        command(add_import_options, run_import, *theirs, "--out", ours)


def test_import_of_what_cannot_be_trained_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_family": "kolors", "model_type": "lora"}')
    (tmp_path / "data.json").write_text(json.dumps([{"id": "a", "instance_data_dir": "/nowhere"}]))
    arguments = (tmp_path / "config.json", tmp_path / "data.json", "--out", tmp_path / "out")
    with pytest.raises(ValueError, match=r"nothing is written.*model_family: 'kolors' is not supported yet"):
        command(add_import_options, run_import, *arguments)
    assert "Cannot be done as it is written:" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "lycoris",
    [
        {},
        {
            "algo": "loha",
            "linear_dim": 8,
            "multiplier": 0.5,
            "apply_preset": {"target_module": ["Attention"]},
        },
        {"factor": 12, "apply_preset": {"target_name": ["*attn*"], "name_algo_map": {"*ff*": {"factor": 6}}}},
    ],
)
def test_what_lycoris_builds_goes_into_a_file_of_its_own_and_comes_back(
    tmp_path: Path, lycoris: dict[str, Any]
) -> None:
    config = RunConfig(**SAYABLE, lora_type="lycoris", lycoris_config=lycoris)
    written, _, findings = export(tmp_path, config, MASKED)
    assert Path(written["lycoris_config"]) == tmp_path / "out" / "lycoris_config.json"
    names_layers = bool(lycoris)
    assert ("lycoris_config" in keys_of(findings)) == (not names_layers)
    again = import_simpletuner(tmp_path / "out" / "config.json", tmp_path / "out" / "multidatabackend.json")
    assert again.config.lycoris_config == config.lycoris_config
    assert again.config.lora_type == "lycoris"
