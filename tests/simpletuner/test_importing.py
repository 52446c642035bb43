"""A SimpleTuner pair in our words: the guide's own examples, what is kept, and what is said of the rest."""

import json
from pathlib import Path
from typing import Any

import guide_examples
import pytest
from PIL import Image

from dreamspace.config import RunConfig
from dreamspace.config.findings import Finding
from dreamspace.simpletuner.importing import ImportedPair, import_simpletuner

PLAIN = {"model_family": "sd1x", "pretrained_model_name_or_path": "base", "model_type": "lora"}
"""A model that can be trained."""

ABSENT = [
    ("differs", "learning_rate"),
    ("differs", "train_batch_size"),
    ("differs", "optimizer"),
    ("differs", "gradient_checkpointing"),
    ("differs", "seed"),
    ("differs", "lora_dropout"),
    ("differs", "max_grad_norm"),
    ("differs", "mixed_precision"),
    ("differs", "caption_dropout_probability"),
    ("differs", "checkpoint_step_interval"),
    ("differs", "validation_guidance"),
    ("differs", "validation_num_inference_steps"),
    ("differs", "validation_negative_prompt"),
    ("differs", "validation_resolution"),
]
"""What is said of a file that is silent, whatever else is in it."""


def photos(folder: Path, count: int, suffix: str = ".png", first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (8, 8)).save(folder / f"{number:04d}{suffix}")
    return folder


def subject(folder: Path | str = "/nowhere", **keys: Any) -> dict[str, Any]:
    captions = {"caption_strategy": "instanceprompt", "instance_prompt": "a photo of a sks dog"}
    return {"id": "subject", "instance_data_dir": str(folder), **captions, **keys}


def imported(tmp_path: Path, config: Any, datasets: Any) -> ImportedPair:
    """Import a pair of files, each given as their text or as what they hold."""
    paths = []
    for name, content in (("config.json", config), ("multidatabackend.json", datasets)):
        paths.append(tmp_path / name)
        paths[-1].write_text(content if isinstance(content, str) else json.dumps(content))
    return import_simpletuner(*paths)


def settings(tmp_path: Path, **given: Any) -> tuple[RunConfig, list[Finding]]:
    pair = imported(tmp_path, {**PLAIN, **given}, [subject()])
    assert pair.config is not None
    return pair.config, [finding for finding in pair.findings if finding.source == "config.json"]


def dataset(tmp_path: Path, **keys: Any) -> tuple[Any, list[Finding]]:
    pair = imported(tmp_path, PLAIN, [subject(**keys)])
    return pair.datasets[0], [finding for finding in pair.findings if "dataset" in finding.source]


def about(findings: list[Finding], key: str) -> tuple[str, str]:
    """Level and message of the one finding about a key."""
    (found,) = [finding for finding in findings if finding.key == key]
    return found.level, found.message


def summary(findings: list[Finding]) -> list[tuple[str, str]]:
    """Level and key of each, those of a dataset under its name."""
    return [
        (f.level, f.key if f.source == "config.json" else f"{f.source.split(', ')[1][9:-1]}.{f.key}")
        for f in findings
    ]


# The guide


def test_masked_example_and_quantisation(tmp_path: Path) -> None:
    pair = imported(tmp_path, guide_examples.QUANTISED, guide_examples.MASKED)
    assert summary(pair.findings) == [
        ("differs", "pretrained_model_name_or_path"),
        ("differs", "model_type"),
        ("differs", "max_train_steps"),
        ("differs", "stratified_timesteps"),
        ("trap", "masked_loss_normalization"),
        ("differs", "grad_clip_method"),
        ("differs", "validation_prompt"),
        *ABSENT,
        ("differs", "validation_preview"),
        ("trap", "dreambooth-data.maximum_image_size"),
        ("hint", "dreambooth-data.instance_data_dir"),
        ("hint", "dreambooth-conditioning.instance_data_dir"),
    ]
    assert pair.config.masked_loss_normalization == "mean"
    photo, mask, cache = pair.datasets
    assert (photo.conditioning_data, photo.crop_style, photo.resolution) == (mask.id, "center", 1024)
    assert str(photo.cache_dir_vae) == "/training/cache/vae/sdxl/dreambooth-data"
    assert (mask.dataset_type, mask.conditioning_type) == ("conditioning", "mask")
    assert (cache.dataset_type, cache.default) == ("text_embeds", True)
    config = pair.config
    assert (config.base_model_precision, config.text_encoder_1_precision) == ("int8-quanto", "no_change")


def test_regularised_example_and_rollout(tmp_path: Path) -> None:
    pair = imported(tmp_path, guide_examples.ROLLOUT, guide_examples.REGULARISED)
    ids = ["subjectname-data-512px", "subjectname-data-1024px"]
    ids += ["regularisation-data", "regularisation-data-1024px"]
    assert summary(pair.findings) == [
        ("differs", "pretrained_model_name_or_path"),
        ("differs", "model_type"),
        ("differs", "max_train_steps"),
        ("differs", "stratified_timesteps"),
        ("differs", "scheduled_sampling_target"),
        ("trap", "scheduled_sampling_ramp_steps"),
        ("differs", "grad_clip_method"),
        ("differs", "validation_prompt"),
        *ABSENT,
        ("differs", "validation_preview"),
        ("trap", "is_regularisation_data"),
        *(("hint", f"{name}.instance_data_dir") for name in ids),
    ]
    assert about(pair.findings, "scheduled_sampling_ramp_steps")[1] == (
        "SimpleTuner's ramp runs from 1 to 0.5, since a start of 0 counts as absent; here it runs from 0 "
        "to 1, as its document means it."
    )
    config = pair.config
    assert (config.scheduled_sampling_max_step_offset, config.scheduled_sampling_probability) == (10, 1.0)
    assert (config.scheduled_sampling_ramp_steps, config.scheduled_sampling_prob_start) == (1000, None)
    assert config.scheduled_sampling_target == "original_noise"
    assert [d.id for d in pair.datasets] == [*ids, "textembeds"]
    assert [d.repeats for d in pair.datasets] == [100, 100, 0, 0, 0]
    assert [d.is_regularisation_data for d in pair.datasets] == [False, False, True, True, False]
    assert not any(d.crop for d in pair.datasets)


def test_previews_and_the_aesthetic_score_with_its_dashes(tmp_path: Path) -> None:
    config = json.dumps({"validation_preview_steps": 5, "validation_preview": True})[:-1]
    config += f", {guide_examples.AESTHETIC_SCORE}}}"  # it ends with a comma
    pair = imported(tmp_path, config, [subject()])
    assert pair.config.data_aesthetic_score == 5.6
    assert "data_aesthetic_score" not in [finding.key for finding in pair.findings]
    assert about(pair.findings, "validation_preview_steps") == (
        "trap",
        "SimpleTuner also sends the first step; here every 5th is sent alone.",
    )
    assert (pair.config.validation_preview, pair.config.validation_preview_steps) == (True, 5)
    every = imported(
        tmp_path, guide_examples.PREVIEWS, [subject(), *json.loads(guide_examples.REFINER_CACHE)]
    )
    assert every.config.validation_preview_steps == 1
    assert not [finding for finding in every.findings if finding.key == "validation_preview_steps"]


# Reading


def test_dashes_comments_and_last_commas_are_read(tmp_path: Path) -> None:
    config = """{
        # a comment of bash, with a "quote"
        "--learning_rate": 1e-4, // and one of C
        "-seed": 7, /* over
        two lines */
        "validation_prompt": "a dog # on // a /* street, }",
        "model_family": "sd1x",
        "pretrained_model_name_or_path": "https://host/base",
    }"""
    pair = imported(tmp_path, config, f"[{json.dumps(subject())}, # the only one\n]")
    assert (pair.config.learning_rate, pair.config.seed) == (1e-4, 7)
    assert pair.config.validation_prompt == "a dog # on // a /* street, }"
    assert pair.config.pretrained_model_name_or_path == "https://host/base"


def test_cut_off_json_names_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON at line 3, column 13: .* cut off"):
        imported(tmp_path, '{\n# here\n  "seed": 7,', [subject()])
    with pytest.raises(ValueError, match=r"multidatabackend\.json is not valid JSON at line 2, column 4: "):
        imported(tmp_path, PLAIN, "[\n  {id: 1}]")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        import_simpletuner(tmp_path / "config.json", tmp_path / "multidatabackend.json")
    with pytest.raises(ValueError, match=r"There is no file .*nowhere\.json"):
        import_simpletuner(tmp_path / "nowhere.json", tmp_path / "multidatabackend.json")
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"config\.json nests lists and objects more than 50 deep"):
        import_simpletuner(tmp_path / "config.json", tmp_path / "multidatabackend.json")


@pytest.mark.parametrize(
    ("config", "datasets", "words"),
    [
        ([1], [], "config.json: a JSON object with settings is expected, got [1]."),
        (
            [subject()],
            PLAIN,
            "config.json is a list of datasets and multidatabackend.json holds the settings: the two are "
            "swapped. Name the settings first, the datasets second.",
        ),
        (PLAIN, {}, "multidatabackend.json must hold a list of datasets, got {}. Put [ ] around it."),
        (PLAIN, ["x"], 'multidatabackend.json: a JSON object with settings is expected, got "x".'),
        (PLAIN, [], "no dataset shows the subject"),
        (PLAIN, [subject(is_regularisation_data=True)], "no dataset shows the subject"),
        ({"seed": 1, "--seed": 2}, [subject()], "the key 'seed' is given twice. Keep one of the two."),
    ],
)
def test_files_without_a_pair_in_them_are_refused(
    tmp_path: Path, config: Any, datasets: Any, words: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011, the words are compared
        imported(tmp_path, config, datasets)
    assert words in str(caught.value)


def test_null_and_empty_texts_count_as_absent(tmp_path: Path) -> None:
    config, findings = settings(tmp_path, seed=None, validation_prompt="", webhook_config=None)
    assert (config.seed, config.validation_prompt) == (42, None)
    assert about(findings, "seed")[0] == "differs"
    assert not [finding for finding in findings if finding.key == "webhook_config"]


# Settings


def test_what_both_know_is_kept_as_it_is_written(tmp_path: Path) -> None:
    given = {
        "lora_rank": 8, "lora_alpha": 4, "lora_dropout": 0.0, "learning_rate": "2e-4", "train_batch_size": 3,
        "gradient_accumulation_steps": 2, "max_train_steps": 700, "num_train_epochs": 0, "seed": 5,
        "mixed_precision": "fp16", "loss_type": "huber", "huber_c": 0.2, "snr_gamma": 5, "use_ema": "true",
        "ema_decay": 0.99, "rescale_betas_zero_snr": True, "caption_dropout_probability": 0.05,
        "validation_step_interval": 50, "data_backend_sampling": "uniform", "lr_scheduler": "linear",
        "lr_warmup_steps": 20, "grad_clip_method": "norm", "max_grad_norm": 0.5, "checkpointing_steps": 70,
        "disable_segmented_timestep_sampling": True, "validation_prompt": "a dog", "optimizer": "torch-adamw",
        "validation_guidance": 4, "validation_num_inference_steps": 25, "validation_negative_prompt": "fog",
        "validation_resolution": "512x448", "validation_preview": False, "gradient_checkpointing": True,
    }  # fmt: skip
    config, findings = settings(tmp_path, **given)
    assert findings == [], "nothing differs"
    renamed = {"checkpointing_steps": "checkpoint_step_interval"}
    gone = ("num_train_epochs", "grad_clip_method", "disable_segmented_timestep_sampling", "optimizer")
    kept = {renamed.get(key, key): value for key, value in given.items() if key not in gone}
    expected = RunConfig(**PLAIN | kept | {"optimizer": "adamw", "held_out_photos": False})
    assert config == expected


def test_absent_keys_take_simpletuners_defaults_unless_unfit(tmp_path: Path) -> None:
    config, findings = settings(tmp_path)
    assert (config.lora_dropout, config.caption_dropout_probability) == (0.1, 0.1)
    assert (config.mixed_precision, config.max_grad_norm, config.checkpoint_step_interval) == ("bf16", 2, 500)
    assert config.stratified_timesteps is True
    ours = RunConfig()
    for key in ("learning_rate", "optimizer", "train_batch_size", "seed", "validation_resolution"):
        assert getattr(config, key) == getattr(ours, key)
    assert about(findings, "lora_dropout") == (
        "differs",
        "absent: SimpleTuner's default 0.1 is written (ours is 0.0).",
    )
    assert about(findings, "learning_rate") == (
        "differs",
        "absent: SimpleTuner's default is 4e-07; ours, 0.0001, is taken: theirs is a full model's, and would "
        "teach an adapter nothing.",
    )


@pytest.mark.parametrize(
    ("given", "key", "level", "words"),
    [
        ({"report_to": "wandb"}, "report_to", "ignored", '"wandb" is left out. Dreamspace writes its own'),
        ({"report_too": "wandb"}, "report_too", "ignored", "this key. Did you mean 'report_to'?"),
        ({"text_encoder_limit": 9}, "text_encoder_limit", "ignored", "where train_text_encoder says so"),
        ({"learning_rate": "fast"}, "learning_rate", "error", 'a number, got "fast". It is left out.'),
        ({"scheduled_sampling_sampler": "rk4"}, "scheduled_sampling_sampler", "error", "It is left out."),
        ({"model_type": "full"}, "learning_rate", "differs", "for a full model, is written"),
        ({"lora_type": "lycoris"}, "lycoris_config", "error", "there is no file config/lycoris_config.json"),
        ({"max_train_steps": 9}, "max_train_steps", "trap", "refuses it unless num_train_epochs is 0"),
        ({"seed": 0}, "seed", "trap", "takes 0 for a new seed in each run"),
        ({"gradient_checkpointing": False}, "gradient_checkpointing", "trap", "drops a false"),
        ({"enable_group_offload": True}, "gradient_checkpointing", "differs", "enable_group_offload needs"),
        ({"enable_group_offload": True, "model_type": "full"}, "enable_group_offload", "ignored", "adapters"),
        ({"dynamo_backend": "inductor", "gradient_checkpointing": 1}, "dynamo_backend", "ignored", "nothing"),
        ({"evaluation_type": "clip"}, "evaluation_type", "trap", "only the last image of each prompt"),
        ({"noise_offset": 0.1}, "noise_offset", "trap", "does nothing in SimpleTuner without offset_noise"),
        ({"optimizer": "optimi-lion"}, "optimizer", "differs", "own adam_beta2 0.99, adam_weight"),
        ({"optimizer": "muon"}, "optimizer", "differs", "'muon': adamw, the nearest of ours, is written."),
        ({"optimizer": "adamw8bit"}, "optimizer", "trap", "refuses 'adamw8bit' by now"),
        ({"optimizer": "lion"}, "optimizer", "trap", "has no 'lion'"),
        ({"use_dora": True, "base_model_precision": "int8-quanto"}, "use_dora", "trap", "switches it off"),
        ({"base_model_precision": "fp8uz-quanto"}, "base_model_precision", "error", "It is left out."),
        ({"quantize_via": "pipeline"}, "quantize_via", "differs", "on the GPU, layer by layer"),
        ({"validation_resolution": "1.0"}, "validation_resolution", "differs", "'1024' is written"),
        ({"validation_prompt_library": True}, "validation_prompt_library", "ignored", "'living' or"),
        ({"model_flavour": "1.5"}, "model_flavour", "ignored", "model_name_or_path names the model"),
        ({"data_backend_config": "x.json"}, "data_backend_config", "ignored", "the second file"),
        ({"resolution": 512}, "resolution", "differs", "512 is written into each dataset that has none"),
    ],
)  # fmt: skip
def test_one_finding_says_it(tmp_path: Path, given: dict[str, Any], key: str, level: str, words: str) -> None:
    _, findings = settings(tmp_path, **given)
    found = [f for f in findings if f.key == key and f.level == level]
    assert any(words in finding.message for finding in found), findings


@pytest.mark.parametrize("family", ["kolors", "pixart"])
def test_model_that_cannot_be_trained_gives_no_config(tmp_path: Path, family: str) -> None:
    pair = imported(tmp_path, {**PLAIN, "model_family": family}, [subject()])
    assert pair.config is None
    assert about(pair.findings, "model_family") == ("error", f"'{family}' is not supported yet.")
    assert pair.datasets


@pytest.mark.parametrize(
    ("flavour", "model"),
    [(None, "Lykon/dreamshaper-8"), ("1.4", "CompVis/stable-diffusion-v1-4"), ("1.6", None)],
)
def test_flavour_becomes_the_model(tmp_path: Path, flavour: str | None, model: str | None) -> None:
    given = {"model_family": "sd1x", "model_flavour": flavour}
    config = imported(tmp_path, given, [subject()]).config
    assert (config and config.pretrained_model_name_or_path) == model


def test_epochs_are_counted_in_steps_where_the_photos_are_there(tmp_path: Path) -> None:
    entries = [
        subject(photos(tmp_path / "photos", 5), repeats=3),
        subject(photos(tmp_path / "class", 7), id="class", is_regularisation_data=True),
    ]
    given = {**PLAIN, "num_train_epochs": 10, "train_batch_size": 2, "gradient_accumulation_steps": 3}
    pair = imported(tmp_path, given, entries)
    # An epoch: ceil(5 * 4 / 2) + ceil(7 / 2) = 14 batches; 10 of them in threes.
    assert pair.config.max_train_steps == 47
    assert about(pair.findings, "max_train_steps")[0] == "differs"


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 100}, ("cosine", 0), "falls within 100 steps"),
        ({"lr_scheduler": "cosine_with_warmup"}, ("cosine", 0), "falls within 1000 steps"),
        ({"lr_scheduler": "cosine", "lr_warmup_steps": 400}, ("cosine", 0), None),
        (
            {"lr_scheduler": "sine", "lr_warmup_steps": 50},
            ("cosine", 0),
            "wave from half the rate up, of 2 x 50",
        ),
        ({"lr_scheduler": "cosine_with_restarts"}, ("cosine_with_restarts", 0), "stays at the full rate"),
        (
            {"lr_scheduler": "constant", "lr_warmup_steps": 9},
            ("constant_with_warmup", 9),
            "by lr_warmup_steps",
        ),
        ({"lr_warmup_steps": 9}, ("constant_with_warmup", 9), None),
        (
            {"optimizer": "adamw_schedulefree", "lr_scheduler": "linear"},
            ("constant_with_warmup", 0),
            "without",
        ),
    ],
)
def test_schedules_mean_what_simpletuner_does(
    tmp_path: Path, given: dict[str, Any], expected: tuple[str, int], words: str | None
) -> None:
    config, findings = settings(tmp_path, max_train_steps=400, num_train_epochs=0, **given)
    assert (config.lr_scheduler, config.lr_warmup_steps) == expected
    found = [finding.message for finding in findings if finding.key == "lr_scheduler"]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_polynomial_takes_simpletuners_power(tmp_path: Path) -> None:
    config, findings = settings(tmp_path, lr_scheduler="polynomial", lr_end=1e-6)
    assert config.lr_power == 0.8
    assert about(findings, "lr_power")[0] == about(findings, "lr_end")[0] == "differs"


def test_optimizer_brings_its_own_numbers(tmp_path: Path) -> None:
    config, findings = settings(tmp_path, optimizer="optimi-adamw", adam_weight_decay=0.3)
    assert (config.optimizer, config.adam_beta2, config.adam_epsilon) == ("adamw", 0.99, 1e-6)
    assert config.adam_weight_decay == 0
    assert about(findings, "adam_weight_decay") == (
        "trap",
        "SimpleTuner reads it under DeepSpeed alone, else optimizer_config: the optimizer's own 0 is "
        "written, and not 0.3.",
    )
    config, findings = settings(
        tmp_path,
        optimizer="adamw_bf16",
        optimizer_config="weight_decay=0.2, eps=1e-7,amsgrad=true",
        optimizer_beta1=0.5,
        optimizer_beta2=0.6,
    )
    assert (config.optimizer, config.adam_weight_decay, config.adam_epsilon) == ("adamw_bf16", 0.2, 1e-7)
    assert (config.adam_beta1, config.adam_beta2) == (0.9, 0.999)
    assert about(findings, "optimizer_beta1")[0] == "trap"
    assert about(findings, "optimizer_config") == (
        "ignored",
        "'amsgrad=true' is left out: there is no such setting.",
    )
    config, _ = settings(tmp_path, optimizer="torch-adamw", optimizer_beta1=0.5, optimizer_beta2=0.6)
    assert (config.adam_beta1, config.adam_beta2) == (0.5, 0.6)


def test_switches_that_mean_zero_or_none(tmp_path: Path) -> None:
    config, findings = settings(
        tmp_path,
        snr_gamma=0,
        max_grad_norm=0,
        checkpoints_total_limit=0,
        offset_noise=True,
        noise_offset=0.05,
        ema_cpu_only=True,
        ema_device="accelerator",
    )
    assert (config.snr_gamma, config.noise_offset, config.ema_device) == (None, 0.05, "cpu")
    assert config.max_grad_norm > 1e5
    assert config.checkpoints_total_limit > 1e5
    assert "a share of 0.25" in about(findings, "noise_offset_probability")[1]


@pytest.mark.parametrize(
    ("given", "end", "has_trap"),
    [
        ({"scheduled_sampling_prob_start": 0.2, "scheduled_sampling_prob_end": 0.9}, 0.9, False),
        ({"scheduled_sampling_prob_start": 0.2}, 0.5, False),
        ({"scheduled_sampling_prob_start": 0.0, "scheduled_sampling_prob_end": 0.9}, 0.9, True),
        ({}, None, True),
    ],
)
def test_ramp_obeys_what_is_explicit(
    tmp_path: Path, given: dict[str, Any], end: float | None, has_trap: bool
) -> None:
    rollout = {"scheduled_sampling_max_step_offset": 5, "scheduled_sampling_probability": 1.0}
    config, findings = settings(tmp_path, **rollout, scheduled_sampling_ramp_steps=100, **given)
    assert config.scheduled_sampling_prob_end == end
    assert config.scheduled_sampling_prob_start == given.get("scheduled_sampling_prob_start")
    assert any(f.key == "scheduled_sampling_ramp_steps" for f in findings) == has_trap


FLUX = {"model_family": "flux"}
UNIFORM = {"flow_use_uniform_schedule": True}


@pytest.mark.parametrize(
    ("given", "sampling", "shift"),
    [
        ({}, "shifted_logit_normal", 3),
        ({"flow_schedule_shift": 1.73}, "shifted_logit_normal", 1.73),
        (UNIFORM, "shifted", 3),
        (UNIFORM | {"flow_schedule_shift": 1.5}, "shifted", 1.5),
        (UNIFORM | {"flow_schedule_shift": 0}, "uniform", 3),
        (UNIFORM | {"flow_schedule_shift": 1, "flux_fast_schedule": True}, "uniform", 3),
        ({"flow_schedule_shift": 1}, "logit_normal", 3),
        ({"flow_schedule_shift": "0", "flow_sigmoid_scale": 1.0}, "logit_normal", 3),
    ],
)
def test_timesteps_of_a_flow_that_are_the_same_here_are_written(
    tmp_path: Path, given: dict[str, Any], sampling: str, shift: float
) -> None:
    config, findings = settings(tmp_path, **FLUX, **given)
    assert (config.timestep_sampling, config.timestep_shift) == (sampling, shift)
    assert config.stratified_timesteps is False, "SimpleTuner spreads DDPM's timesteps alone"
    named = {finding.key for finding in findings}
    assert not named & {"timestep_sampling", "stratified_timesteps", *given}


@pytest.mark.parametrize(
    ("given", "written", "level", "key", "words"),
    [
        (
            {"flow_schedule_shift": 1, "flow_sigmoid_scale": 0.5},
            ("logit_normal", 3),
            "differs",
            "timestep_sampling",
            "normal numbers times 0.5: 'logit_normal' is written, the sigmoid of normal numbers.",
        ),
        (
            {"flow_use_beta_schedule": 1, "flow_beta_schedule_beta": 4},
            ("shifted_logit_normal", 3),
            "differs",
            "timestep_sampling",
            "a beta distribution (2, 4): 'shifted_logit_normal' is written",
        ),
        (
            UNIFORM | {"flow_schedule_auto_shift": True, "flow_schedule_shift": 0},
            ("shifted", 3),
            "differs",
            "flow_schedule_auto_shift",
            "by each picture's size; here all are shifted by 3.",
        ),
        (
            UNIFORM | {"flow_schedule_auto_shift": True, "flow_schedule_shift": 2},
            ("shifted", 2),
            "trap",
            "flow_schedule_auto_shift",
            "refuses it unless flow_schedule_shift is 0 (3 where it is absent): the shift by 2 is taken.",
        ),
        ({"flux_fast_schedule": True}, ("uniform", 3), "differs", "flux_fast_schedule", "pure noise and"),
        (
            {"flow_custom_timesteps": "1000,900"},
            ("uniform", 3),
            "differs",
            "flow_custom_timesteps",
            "the timesteps of that list alone",
        ),
        (
            {"model_family": "sana", "flow_schedule_shift": 2},
            ("uniform", 3),
            "trap",
            "flow_schedule_shift",
            "does not read it for sana",
        ),
        (
            {"model_family": "sd1x", "flow_schedule_shift": 2},
            ("uniform", 3),
            "ignored",
            "flow_schedule_shift",
            "2 is left out. It is of the timesteps of flow models, and this is none that Dreamspace trains.",
        ),
        (
            {"flux_guidance_value": 3},
            ("shifted_logit_normal", 3),
            "ignored",
            "flux_guidance_value",
            "a guidance of 1 in",
        ),
    ],
)
def test_timesteps_of_a_flow_that_differ_are_said(
    tmp_path: Path,
    given: dict[str, Any],
    written: tuple[str, float],
    level: str,
    key: str,
    words: str,
) -> None:
    config, findings = settings(tmp_path, **FLUX | given)
    assert (config.timestep_sampling, config.timestep_shift) == written
    found = about(findings, key)
    assert found[0] == level
    assert words in found[1]


def test_lycoris_options_that_do_nothing_are_left_out(tmp_path: Path) -> None:
    preset = {"module_algo_map": {"Attention": {"factor": 4, "dropout": 0.1, "use_scalar": True}}}
    written = {"algo": "boft", "linear_dim": 8, "dora_wd": True, "rank_dropout": 0.1, "module_dropout": 0.2}
    (tmp_path / "lycoris.json").write_text(json.dumps(written | {"apply_preset": preset}))
    config, findings = settings(tmp_path, lora_type="lycoris", lycoris_config="lycoris.json")
    kept = config.lycoris_config
    assert (kept.algo, kept.linear_dim, kept.module_dropout) == ("boft", 8, 0.2)
    assert (kept.dora_wd, kept.rank_dropout) == (False, 0)
    assert kept.apply_preset.module_algo_map == {"Attention": {"factor": 4}}
    assert about(findings, "lycoris_config.dora_wd") == (
        "ignored",
        "LyCORIS does nothing by it with boft, only with locon, loha, lokr, lora: it is left out.",
    )
    in_map = "lycoris_config.apply_preset.module_algo_map.Attention"
    assert about(findings, f"{in_map}.dropout") == (
        "ignored",
        "LyCORIS has it for the whole adapter alone and stops at it there: it is left out.",
    )
    for key in ("lycoris_config.rank_dropout", f"{in_map}.use_scalar"):
        assert about(findings, key)[0] == "ignored"


@pytest.mark.parametrize(("precision", "dropout"), [("no_change", 0), ("int8-quanto", 0.1)])
def test_lycoris_dropout_is_kept_where_it_acts(tmp_path: Path, precision: str, dropout: float) -> None:
    (tmp_path / "lycoris.json").write_text('{"algo": "lora", "dropout": 0.1}')
    given = {"lora_type": "lycoris", "lycoris_config": "lycoris.json", "base_model_precision": precision}
    config, _ = settings(tmp_path, **given)
    assert config.lycoris_config.dropout == dropout


def test_lycoris_file_that_holds_no_object_is_said(tmp_path: Path) -> None:
    (tmp_path / "lycoris.json").write_text("[]")
    config, findings = settings(tmp_path, lora_type="lycoris", lycoris_config="lycoris.json")
    assert config.lycoris_config is None
    assert "holds no JSON object" in about(findings, "lycoris_config")[1]


def test_files_that_the_config_names_are_found_beside_it(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(
        '{"beach": "a dog at a beach", "snow": {"prompt": "a dog in snow"}}'
    )
    (tmp_path / "lycoris.json").write_text('{"algo": "lokr", "multiplier": 1.0, "linear_alpha": 0.5}')
    config, findings = settings(tmp_path, user_prompt_library="prompts.json", lycoris_config="lycoris.json")
    assert config.validation_prompts == ["a dog at a beach", "a dog in snow"]
    assert (config.lycoris_config.algo, config.lycoris_config.linear_alpha) == ("lokr", 0.5)
    assert ("trap", "lycoris_config") in summary(findings)
    library = {"validation_prompt_library": "prompts.json", "validation_resolution": "512,96x64"}
    config, _ = settings(tmp_path, **library, num_validation_images=2, validation_epoch_interval=1)
    assert config.validation_prompts == ["a dog at a beach", "a dog in snow"]
    assert (config.validation_resolution, config.num_validation_images) == ("512,96x64", 2)
    assert config.validation_epoch_interval == 1
    (tmp_path / "hook.json").write_text('{"webhook_type": "discord", "webhook_url": "https://discord.com/x"}')
    assert settings(tmp_path, webhook_config="hook.json")[0].webhook_config == str(tmp_path / "hook.json")
    _, findings = settings(tmp_path, user_prompt_library="nowhere.json")
    assert about(findings, "user_prompt_library")[0] == "ignored"


# Datasets


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"--repeats": 3, "is_regularization_data": False}, {"repeats": 3, "is_regularisation_data": False}),
        ({"crop": True, "crop_style": "centre"}, {"crop": True, "crop_style": "center"}),
        ({"crop": True}, {"crop_style": "random"}),
        ({"crop": False}, {"crop_style": "center"}),
        ({"caption_strategy": None}, {"caption_strategy": "filename"}),
        ({"caption_strategy": "instance_prompt"}, {"caption_strategy": "instanceprompt"}),
        ({"minimum_image_size": 0}, {"minimum_image_size": None}),
        ({"vae_cache_clear_each_epoch": True}, {"vae_cache_clear_each_epoch": False}),
        (
            {"crop_aspect_buckets": [{"aspect_bucket": 1.5, "weight": 0.9}, 0.75]},
            {"crop_aspect_buckets": [1.5, 0.75]},
        ),
        ({"instance_prompt": ["a", "b"]}, {"instance_prompts": ["a", "b"]}),
    ],
)
def test_dataset_means_the_same(tmp_path: Path, keys: dict[str, Any], expected: dict[str, Any]) -> None:
    found, _ = dataset(tmp_path, **keys)
    assert {key: getattr(found, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("keys", "key", "level", "words"),
    [
        ({"caption_strategy": None}, "caption_strategy", "differs", "default 'filename' is written"),
        ({"caption_strategy": "instance_prompt"}, "caption_strategy", "trap", "'instanceprompt' is written"),
        ({"crop": True}, "crop_style", "differs", "default 'random' is written"),
        ({"crop": True}, "vae_cache_clear_each_epoch", "differs", "draws random crops anew in each epoch"),
        (
            {"crop": True, "crop_style": "face", "maximum_image_size": 2048, "target_downsample_size": 1024},
            "maximum_image_size",
            "trap",
            "never compares it with the maximum",
        ),
        ({"crop": True, "crop_aspect": "closest"}, "crop_aspect_buckets", "trap", "SimpleTuner demands it"),
        ({"start_epoch": 2}, "start_epoch", "ignored", "2 is left out. Datasets begin and end by steps here"),
        ({"repeat": 2}, "repeat", "ignored", "nobody knows this key. Did you mean 'repeats'?"),
        ({"repeats": -1}, "repeats", "error", "must be at least 0, got -1. It is left out."),
        ({"metadata_backend": "parquet"}, "metadata_backend", "ignored", "photos are looked at"),
    ],
)
def test_dataset_findings(tmp_path: Path, keys: dict[str, Any], key: str, level: str, words: str) -> None:
    _, findings = dataset(tmp_path, **keys)
    assert about(findings, key)[0] == level
    assert words in about(findings, key)[1]


def test_settings_for_all_datasets_are_written_into_each(tmp_path: Path) -> None:
    config = {**PLAIN, "resolution": 512, "caption_strategy": "textfile", "minimum_image_size": 256}
    own = subject("/own", id="own", resolution=768)
    silent = {"id": "silent", "instance_data_dir": "/nowhere"}
    cache = {"id": "cache", "dataset_type": "text_embeds"}
    pair = imported(tmp_path, config, [own, silent, cache])
    first, second, third = pair.datasets
    assert (first.resolution, first.caption_strategy, first.minimum_image_size) == (
        768,
        "instanceprompt",
        256,
    )
    assert (second.resolution, second.caption_strategy, second.minimum_image_size) == (512, "textfile", 256)
    assert third.resolution == 1024, "a cache has no size"


@pytest.mark.parametrize(
    ("entry", "key", "level"),
    [
        ({"type": "aws"}, "type", "error"),
        ({"type": "csv", "disabled": True}, "disabled", "ignored"),
        ({"dataset_type": "video"}, "dataset_type", "error"),
        ({"conditioning_type": "controlnet"}, "conditioning_type", "error"),
        ({"caption_strategy": "parquet"}, "caption_strategy", "error"),
        ({"dataset_type": "text_embeds", "type": "aws"}, "dataset_type", "ignored"),
        ({"dataset_type": "conditioning_image_embeds"}, "dataset_type", "ignored"),
        ({"instance_prompt": None}, None, "error"),
    ],
)
def test_dataset_that_cannot_be_read_is_left_out(
    tmp_path: Path, entry: dict[str, Any], key: str | None, level: str
) -> None:
    pair = imported(tmp_path, PLAIN, [subject(), subject(**{"id": "other", **entry})])
    assert [d.id for d in pair.datasets] == ["subject"]
    found = [f for f in pair.findings if f.source.endswith("'other'")]
    assert [(f.level, f.key) for f in found] == [(level, key)]


def test_dataset_of_the_hub_says_its_columns_in_one_place(tmp_path: Path) -> None:
    entry = {
        "id": "hub",
        "type": "huggingface",
        "dataset_name": "owner/name",
        "metadata_backend": "huggingface",
        "image_column": "picture",
        "huggingface": {"caption_column": "text", "split": "test", "streaming": True},
    }
    pair = imported(tmp_path, PLAIN, [entry])
    (found,) = pair.datasets
    assert (found.dataset_name, found.split, found.caption_strategy) == ("owner/name", "test", "huggingface")
    assert found.huggingface.model_dump() == {"image_column": "picture", "caption_column": "text"}
    assert about(pair.findings, "huggingface.streaming")[0] == "ignored"


def test_masks_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    masks = {"id": "masks", "conditioning_type": "mask", "instance_data_dir": "/nowhere"}
    pair = imported(tmp_path, PLAIN, [subject(conditioning_data=["mask", "masks"]), masks])
    assert pair.datasets[0].conditioning_data == ["masks"]
    assert about(pair.findings, "conditioning_data") == (
        "error",
        "there are no masks 'mask', and it is left out. Did you mean 'masks'?",
    )


# Folders


def test_folders_are_looked_into(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 2)
    photos(folder, 1, ".jpg", first=2)
    photos(folder / "inner", 3)
    photos(tmp_path / "masks", 3)
    masks = {"id": "masks", "conditioning_type": "mask", "instance_data_dir": str(tmp_path / "masks")}
    entry = subject(folder, conditioning_data="masks")
    pair = imported(tmp_path, {**PLAIN, "train_batch_size": 4}, [entry, masks])
    found = {f.key: (f.level, f.message) for f in pair.findings if f.source.endswith("'subject'")}
    assert found == {
        "instance_data_dir": (
            "differs",
            "3 photos in folders inside are read by SimpleTuner and not here: move them up.",
        ),
        "repeats": (
            "trap",
            "3 photos and repeats 0 are fewer than a batch of 4, which SimpleTuner refuses; here the step is "
            "smaller.",
        ),
        "conditioning_data": (
            "trap",
            "the mask of 0002.jpg has another name, which is fine here; SimpleTuner wants the photo's, "
            "extension included.",
        ),
    }


def test_class_images_that_outnumber_the_subject_are_weighed(tmp_path: Path) -> None:
    entries = [
        subject(photos(tmp_path / "photos", 3)),
        subject(photos(tmp_path / "class", 30), id="class", is_regularisation_data=True),
    ]
    pair = imported(tmp_path, {**PLAIN, "train_batch_size": 2}, entries)
    found = [f for f in pair.findings if f.key == "repeats"]
    assert [(f.level, "set repeats to 9" in f.message) for f in found] == [("hint", True)]


@pytest.mark.parametrize("key", ["max_train_steps", "flow_schedule_shift", "noise_offset_probability"])
def test_a_text_in_the_place_of_a_number_is_an_error_and_no_absent_key(tmp_path: Path, key: str) -> None:
    _, findings = settings(tmp_path, **FLUX, **{key: "many"})
    said = [(finding.level, finding.message) for finding in findings if finding.key == key]
    assert ("error", "must be a number, got 'many'. It is left out.") in said
