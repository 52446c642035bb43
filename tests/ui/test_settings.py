"""The form of steps 1 and 2, and what becomes of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from dreamspace.config import RunConfig, load_preset
from dreamspace.jobs.new_run import prior_folder, write_run
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import new_training
from dreamspace.ui.estimate import estimate, measured_seconds_per_row, rows_per_step
from dreamspace.ui.history import History
from dreamspace.ui.library import choose_sample
from dreamspace.ui.new_training import Form, made_prompts, start_job, start_run
from dreamspace.ui.settings_form import (
    ELSEWHERE,
    build_field,
    changed_config,
    choices_of,
    expert_settings,
    label_of,
    shown_value,
)

MINI = load_preset("mini").config
EXPERTS = [name for names in expert_settings().values() for name in names]


def form(**changes: object) -> Form:
    experts = {name: shown_value(name, MINI) for name in EXPERTS}
    values = Form("dog", "sks", "mini", 20, False, 24, experts)
    return replace(values, **changes)


def test_every_setting_is_asked_for_once_with_its_own_sentence() -> None:
    without_a_choice = [n for n, field in RunConfig.model_fields.items() if len(choices_of(field)) == 1]
    assert sorted([*EXPERTS, *ELSEWHERE, *without_a_choice]) == sorted(RunConfig.model_fields)
    with gr.Blocks():
        for name in EXPERTS:
            component = build_field(name, MINI)
            assert component.info.startswith(RunConfig.model_fields[name].description)
            assert component.elem_id == f"setting-{name}"


def test_labels_are_words() -> None:
    assert label_of("lora_rank") == "LoRA rank"
    assert label_of("lr_warmup_steps") == "LR warmup steps"
    assert label_of("pretrained_model_name_or_path") == "Base model"
    assert label_of("seed") == "Seed"
    assert label_of("snr_gamma") == "SNR gamma"


def test_the_form_gives_back_what_it_was_filled_with() -> None:
    config = MINI.model_copy(
        update={"lora_alpha": 8.0, "validation_prompts": ["a", "b c"], "validation_seed": 3, "snr_gamma": 5.0}
    )
    for source in (MINI, config):
        values = {name: shown_value(name, source) for name in EXPERTS}
        assert changed_config(MINI, values) == source


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lora_alpha", "", None),
        ("lora_alpha", "12", 12.0),
        ("snr_gamma", "5", 5.0),
        ("validation_seed", "7", 7),
        ("train_batch_size", 4.0, 4),
        ("validation_prompts", " one \n\n two", ["one", "two"]),
        ("validation_prompt", "", None),
        ("gradient_checkpointing", True, True),
        ("lr_scheduler", "cosine", "cosine"),
    ],
)
def test_what_a_field_holds_becomes_the_setting(name: str, value: object, expected: object) -> None:
    assert getattr(changed_config(MINI, {name: value}), name) == expected


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_steps": 0}, "Settings: max_train_steps must be at least 1, got 0."),
        ({"num_steps": None}, "Settings: max_train_steps must be a whole number, got null."),
        ({"class_word": "  "}, "class_word is empty. Say what the subject is, such as 'dog'."),
        (
            {"token": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"},
            "The words for the subject hold an access token, and they are written to disk. Take it out",
        ),
        ({"preset": "mimi"}, "There is no preset 'mimi'. Did you mean 'mini'? The presets are: mini."),
        (
            {"experts": {"lora_alpha": "much"}},
            'Settings: lora_alpha must be a number, got "much".',
        ),
        (
            {"experts": {"lr_scheduler": "cosine", "lr_warmup_steps": 20}},
            "Settings: lr_warmup_steps must be below max_train_steps (20), got 20. "
            "Shorten the warm-up or train longer.",
        ),
    ],
)
def test_a_wrong_form_starts_nothing_and_says_why_in_one_sentence(
    workspace: Workspace, changes: dict[str, object], sentence: str
) -> None:
    photos_dir = choose_sample(workspace, "biscuit") / "photos"
    with pytest.raises(ValueError) as error:  # noqa: PT011
        start_run(workspace, photos_dir, form(**changes))
    assert str(error.value).startswith(sentence)
    assert workspace.list_runs() == []


@pytest.mark.parametrize(
    "name", ["/home/alice/model", "../model", "model", "./a/b", "a/b/c", "presets/mini.json"]
)
def test_a_base_model_from_a_browser_is_no_path(workspace: Workspace, name: str) -> None:
    photos_dir = choose_sample(workspace, "biscuit") / "photos"
    experts = {"pretrained_model_name_or_path": name}
    with pytest.raises(ValueError, match="In the app the base model is 'mini' or a Hub id"):
        start_run(workspace, photos_dir, form(experts=experts))
    assert workspace.list_runs() == []


def test_a_job_that_is_refused_leaves_no_folder(workspace: Workspace) -> None:
    arguments = {"repo_id": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"}
    with pytest.raises(ValueError, match="hold an access token"):
        start_job(workspace, "publish", "publish", arguments)
    assert workspace.list_jobs() == []


def test_a_run_that_is_refused_leaves_no_folder(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise ValueError("The machine's lock cannot be used.")

    monkeypatch.setattr(new_training, "submit", refuse)
    photos_dir = choose_sample(workspace, "biscuit") / "photos"
    with pytest.raises(ValueError, match="lock cannot be used"):
        start_run(workspace, photos_dir, form())
    assert workspace.list_runs() == []


def test_without_photos_nothing_is_left_behind(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no photo"):
        start_run(workspace, tmp_path / "empty", form())
    assert workspace.list_runs() == []


def test_a_nearly_full_disk_is_said_before_anything_is_written(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos_dir = choose_sample(workspace, "biscuit") / "photos"
    usage = shutil.disk_usage(workspace.root)._replace(free=12_000_000)
    monkeypatch.setattr(new_training.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="The disk has 12 MB free, and a run needs 500 MB"):
        start_run(workspace, photos_dir, form())
    assert workspace.list_runs() == []


def test_a_run_is_written_as_the_shell_writes_it_and_submitted(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = []
    monkeypatch.setattr(new_training, "submit", lambda *arguments: submitted.append(arguments))
    photos_dir = choose_sample(workspace, "biscuit") / "photos"
    run_dir = start_run(workspace, photos_dir, form(with_prior=True, num_class_images=8))
    assert submitted == [(run_dir, "train", {})]
    by_shell = workspace.root / "by-shell"
    prior_dir = prior_folder(workspace, "mini", "dog")
    settings = ["max_train_steps=20"]
    write_run(
        by_shell, load_preset("mini"), photos_dir,
        class_word="dog", token="sks", num_class_images=8, prior_dir=prior_dir, settings=settings,
    )  # fmt: skip
    for name in ("config.json", "multidatabackend.json"):
        assert (run_dir / name).read_text() == (by_shell / name).read_text()
    config = RunConfig.load(run_dir / "config.json")
    assert made_prompts(config) == config.validation_prompts


def test_the_estimate_follows_its_rule_and_the_machine() -> None:
    plain = estimate(MINI, None)
    assert plain.seconds == pytest.approx(
        15 + plain.num_steps * plain.seconds_per_step + plain.num_images * plain.seconds_per_image
    )
    assert plain.num_images == 4 * 5  # four prompts, before and after each 100 of 400 steps
    assert not plain.is_measured
    uneven = MINI.model_copy(update={"max_train_steps": 410})
    assert estimate(uneven, None).num_images == 4 * 6, "the last step has images of its own"
    past = History(progress={"steps_per_second": 2.0})
    per_row = measured_seconds_per_row([(MINI, History()), (MINI, past)], MINI)
    assert per_row == 0.5 / rows_per_step(MINI)
    again = estimate(MINI, per_row)
    assert again.seconds_per_step == 0.5
    assert again.num_images == 4, "those between the steps are in the measured speed"
    with_prior = MINI.model_copy(update={"num_class_images": 24})
    assert [estimate(with_prior, None, ready).num_images - 20 for ready in (0, 10, 30)] == [24, 14, 0]
    other = MINI.model_copy(update={"pretrained_model_name_or_path": "owner/big"})
    assert measured_seconds_per_row([(MINI, past)], other) is None
    assert estimate(other, None) is None
