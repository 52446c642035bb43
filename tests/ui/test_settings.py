"""The form of the steps, and what becomes of it."""

import html
import shutil
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from dreamspace.config import RunConfig, load_datasets, load_preset, prior_of, subject_datasets
from dreamspace.data.captions import captions_of
from dreamspace.data.held_out import held_out_files
from dreamspace.data.masks import find_mask
from dreamspace.jobs.new_run import prior_folder, write_run
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import choices_panels, new_training
from dreamspace.ui.changes import caption_photo, choose_for, choose_sample
from dreamspace.ui.choices_panels import rollout_settings
from dreamspace.ui.history import Histories
from dreamspace.ui.new_training import Form, made_prompts, start_job, start_run
from dreamspace.ui.page import Page, View
from dreamspace.ui.settings_form import (
    ELSEWHERE,
    SHELL_ONLY,
    build_field,
    changed_config,
    choices_of,
    expert_settings,
    label_of,
    shown_value,
)
from dreamspace.ui.subject import Subject
from tests.ui.recorded import mask_sample

MINI = load_preset("mini").config
EXPERTS = [name for names in expert_settings().values() for name in names]


def form(**changes: object) -> Form:
    experts = {name: shown_value(name, MINI) for name in EXPERTS}
    values = Form("dog", "sks", "mini", 20, "none", 24, "", 128, experts)
    return replace(values, **changes)


def biscuit(workspace: Workspace) -> Subject:
    return Subject.read(choose_sample(workspace, "biscuit"))


def test_every_setting_is_asked_for_once_with_its_own_sentence() -> None:
    without_a_choice = [n for n, field in RunConfig.model_fields.items() if len(choices_of(field)) == 1]
    assert sorted([*EXPERTS, *ELSEWHERE, *SHELL_ONLY, *without_a_choice]) == sorted(RunConfig.model_fields)
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
    assert label_of("scheduled_sampling_max_step_offset") == "Rollout max step offset"
    assert label_of("use_ema") == "Use EMA"


def test_settings_stand_under_the_title_of_their_section() -> None:
    groups = expert_settings()
    assert "masked_background_weight" in groups["Loss"]
    assert "scheduled_sampling_order" in groups["Rollout (scheduled sampling)"]
    assert list(groups)[:2] == ["Model", "Adapter"]


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
        ("scheduled_sampling_reflexflow", "", None),
        ("scheduled_sampling_reflexflow", False, False),
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
        ({"preset": "mimi"}, "There is no preset 'mimi'. Did you mean 'mini'? The presets are: mini,"),
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
    subject = biscuit(workspace)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        start_run(workspace, subject, form(**changes))
    assert str(error.value).startswith(sentence)
    assert workspace.list_runs() == []


@pytest.mark.parametrize(
    "name", ["/home/alice/model", "../model", "model", "./a/b", "a/b/c", "presets/mini.json"]
)
def test_a_base_model_from_a_browser_is_no_path(workspace: Workspace, name: str) -> None:
    subject = biscuit(workspace)
    experts = {"pretrained_model_name_or_path": name}
    with pytest.raises(ValueError, match="In the app the base model is 'mini' or a Hub id"):
        start_run(workspace, subject, form(experts=experts))
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
    subject = biscuit(workspace)
    with pytest.raises(ValueError, match="lock cannot be used"):
        start_run(workspace, subject, form())
    assert workspace.list_runs() == []


def test_without_photos_nothing_is_left_behind(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty" / "photos").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no photo"):
        start_run(workspace, Subject(tmp_path / "empty"), form())
    assert workspace.list_runs() == []


def test_a_nearly_full_disk_is_said_before_anything_is_written(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = biscuit(workspace)
    usage = shutil.disk_usage(workspace.root)._replace(free=12_000_000)
    monkeypatch.setattr(new_training.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match="The disk has 12 MB free, and a run needs 500 MB"):
        start_run(workspace, subject, form())
    assert workspace.list_runs() == []


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What was submitted instead of starting a job."""
    calls: list[tuple] = []
    monkeypatch.setattr(new_training, "submit", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize("prior", ["none", "image-free", "noise", "base"])
def test_a_run_is_written_as_the_shell_writes_it_and_submitted(
    workspace: Workspace, submitted: list[tuple], prior: str
) -> None:
    subject = biscuit(workspace)
    prompts, needs_images = ["a photo of a dog", "two dogs"], prior in ("noise", "base")
    run_dir = start_run(
        workspace,
        subject,
        form(prior=prior, num_class_images=8, class_prompts="a photo of a dog\n\n two  dogs "),
    )
    assert submitted == [(run_dir, "train", {})]
    by_shell = workspace.root / "by-shell"
    write_run(
        by_shell, load_preset("mini"), subject.photos_dir,
        class_word="dog", token="sks", prior=prior, class_prompts=prompts if needs_images else None,
        num_class_images=8 if needs_images else 0,
        prior_dir=prior_folder(workspace, "mini", "dog", prompts), settings=["max_train_steps=20"],
    )  # fmt: skip
    for name in ("config.json", "multidatabackend.json"):
        assert (run_dir / name).read_text() == (by_shell / name).read_text()
    config = RunConfig.load(run_dir / "config.json")
    assert made_prompts(config) == config.validation_prompts
    assert prior_of(load_datasets(run_dir / "multidatabackend.json")) == prior


def test_a_prior_that_does_not_exist_is_refused(workspace: Workspace) -> None:
    with pytest.raises(
        ValueError, match=r"There is no prior 'more'\. It is one of none, image-free, noise, base"
    ):
        start_run(workspace, biscuit(workspace), form(prior="more"))
    assert workspace.list_runs() == []


def test_the_checkbox_writes_what_the_guide_recommends() -> None:
    assert rollout_settings(True, 5000) == [10, 1.0, 1000]
    assert rollout_settings(True, 400) == [10, 1.0, 400]
    assert rollout_settings(False, 400) == [0, 0.0, 0]


def test_masks_and_captions_go_into_the_run(workspace: Workspace, submitted: list[tuple]) -> None:
    subject = choose_for(biscuit(workspace), use_masks=True)
    mask_sample(subject)
    first = subject.photos[0]
    caption_photo(workspace, subject, first.stem, "a photo of a sks dog on a beach")
    run_dir = start_run(workspace, subject, form(token="ohwx"))
    datasets = load_datasets(run_dir / "multidatabackend.json")
    assert [(d.id, d.instance_data_dir) for d in datasets] == [
        ("subject", subject.photos_dir),
        ("masks", subject.masks_dir),
    ]
    assert all(find_mask(photo, [subject.masks_dir]) for photo in subject.photos)
    captions = [captions_of(datasets[0], photo) for photo in subject.photos]
    assert captions == [("a photo of a ohwx dog on a beach",), *[("a photo of a ohwx dog",)] * 5]
    assert len(Subject.read(subject.dir).captions()) == 1, "those that were filled in are none of their own"


def test_without_masks_of_all_photos_a_run_with_masks_does_not_start(
    workspace: Workspace, submitted: list[tuple]
) -> None:
    subject = choose_for(biscuit(workspace), use_masks=True)
    with pytest.raises(ValueError, match=r"^Photos 1, 2, 3, 4, 5, 6 have no mask yet\."):
        start_run(workspace, subject, form())
    assert workspace.list_runs() == []


def test_what_is_legal_and_hardly_meant_is_said_before_the_start(workspace: Workspace) -> None:
    page = Page(workspace, Histories(), View(subject_id=biscuit(workspace).dir.name, step="settings"))
    experts = {name: shown_value(name, MINI) for name in EXPERTS}
    assert "has no warm-up" not in choices_panels._plan(page, form(experts=experts))
    plan = choices_panels._plan(page, form(experts={**experts, "lr_warmup_steps": 10}))
    assert (
        "lr_warmup_steps: lr_scheduler 'constant' has no warm-up: use 'constant_with_warmup'."
        in html.unescape(plan)
    )


def test_the_plan_says_what_the_run_will_be_judged_by(workspace: Workspace) -> None:
    subject = biscuit(workspace)
    page = Page(workspace, Histories(), View(subject_id=subject.dir.name))
    (held_out,) = held_out_files(RunConfig(), subject_datasets(subject.photos_dir, "a photo", 128))
    number, num_photos = page.photos.index(held_out) + 1, len(page.photos)
    shown = choices_panels._plan(page, form())
    assert f"Held out to judge the run by, never trained on: photo {number}." in shown
    assert f"<dd>{num_photos - 1} of {num_photos} photos" in shown
    assert f'photos/{held_out.name}?v=0&amp;w=160" alt="held out"' in shown
    for photo in page.photos[5:]:
        photo.unlink()
    shown = choices_panels._plan(Page(workspace, Histories(), page.view), form())
    assert "scores are weak evidence" in shown
    assert "<dd>5 photos" in shown
