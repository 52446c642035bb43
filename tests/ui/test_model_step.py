"""Step 4: what can be chosen, what it takes, and what a pair of SimpleTuner's brings along."""

import json
from pathlib import Path

import pytest

from dreamspace.config import RunConfig, load_datasets, load_preset, parse_run_config
from dreamspace.config.families import FLAVOURS, distilled_family, few_step_advice
from dreamspace.config.lycoris import LycorisConfig
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui import forecast, new_training, options
from dreamspace.ui.changes import choose_sample
from dreamspace.ui.choices_panels import best_preset, describe
from dreamspace.ui.forecast import Forecaster
from dreamspace.ui.history import Histories
from dreamspace.ui.import_panel import read_upload, report_of, taken
from dreamspace.ui.library import edge_px
from dreamspace.ui.model_words import FAMILIES, MODELS, model_title
from dreamspace.ui.new_training import LARGE, all_presets, shown_resolution, start_run, with_model
from dreamspace.ui.options import Need, adapter_options, precision_options, preset_options
from dreamspace.ui.page import Page, View
from dreamspace.ui.settings_step import chosen
from dreamspace.ui.subject import Subject
from tests.ui.test_settings import EXPERTS, form

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def need(fits: bool) -> Need:
    return Need(1e9, 2e9, fits, seconds=60, dollars=None, place="here")


def look(workspace: Workspace, **view: object) -> Page:
    subject = choose_sample(workspace, "biscuit")
    return Page(workspace, Histories(), View(subject_id=subject.name, step="settings", **view))


def test_every_model_that_can_be_trained_has_its_words() -> None:
    assert {name: MODELS[name] for name in MODELS}.keys() == {
        f"{family}/{flavour}" for family, flavours in FLAVOURS.items() for flavour in flavours
    }
    assert set(FAMILIES) == set(FLAVOURS)
    assert model_title(FLAVOURS["sd1x"]["1.5"]) == "Stable Diffusion 1.5"
    assert model_title("owner/name") == "owner/name"


def test_the_presets_of_this_machine_come_first() -> None:
    presets = [load_preset("mini"), *(p for p in all_presets().values() if p.name != "mini")]
    rows = preset_options(presets[::-1], "mini", lambda config, size: need(size == 128))
    assert (rows[0].title, rows[0].is_chosen) == ("mini", True)
    assert not any(row.need.fits for row in rows[1:])


def test_of_presets_that_say_the_same_the_smallest_or_the_chosen_one_stands() -> None:
    def named(chosen: str) -> list[str]:
        rows = preset_options(all_presets().values(), chosen, lambda config, size: need(True))
        return [row.choice["preset"] for row in rows if row.choice["preset"].startswith("sd1x")]

    assert named("mini") == ["sd1x-8gb"]
    assert named("sd1x-24gb") == ["sd1x-24gb"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"base_model_precision": "int8-quanto"},
        {"use_dora": True, "base_model_precision": "nf4-bnb"},
        {"model_type": "full", "learning_rate": 1e-5},
        {"lora_type": "lycoris", "lycoris_config": {"algo": "boft"}},
    ],
)
def test_every_kind_of_training_can_be_chosen_from_every_other(settings: dict[str, object]) -> None:
    config = parse_run_config({**RunConfig().model_dump(), **settings})
    rows = adapter_options(config, 1e-4, lambda config, size: need(True))
    assert [row.title for row in rows] == ["LoRA", "DoRA", "LoKr", "Whole model"]
    assert not any(row.impossible for row in rows)
    made = {row.title: parse_run_config({**config.model_dump(), **row.choice}) for row in rows}
    assert made["Whole model"].model_type == "full"
    assert made["Whole model"].learning_rate == pytest.approx(1e-5)
    assert made["LoRA"].learning_rate == pytest.approx(1e-4)
    assert made["DoRA"].use_dora
    assert (made["LoKr"].lycoris_config or LycorisConfig()).algo == "lokr"
    is_boft = config.lora_type == "lycoris"
    assert sum(row.is_chosen for row in rows) == (0 if is_boft else 1)


def test_a_level_that_cannot_be_had_says_why() -> None:
    rows = precision_options(RunConfig(), "cuda", (8, 6), lambda config, size: need(True))
    said = {row.choice["base_model_precision"]: row.impossible for row in rows}
    assert said["fp8-torchao"] == "It needs a GPU of compute capability 8.9 or newer, and this one has 8.6."
    assert said["int8-quanto"] == ""
    full = RunConfig(model_type="full")
    rows = precision_options(full, "cpu", None, lambda config, size: need(True))
    assert [bool(row.impossible) for row in rows] == [False] + [True] * (len(rows) - 1)
    boft = RunConfig(lora_type="lycoris", lycoris_config={"algo": "boft"})
    [row] = [r for r in precision_options(boft, "cpu", None, lambda c, s: need(True)) if r.title == "nf4"]
    assert row.impossible.startswith("On weights in base_model_precision 'nf4-bnb', LyCORIS trains")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise options.PackageNotFoundError(package)

    monkeypatch.setattr(options, "version", version)
    rows = precision_options(RunConfig(), "cpu", None, lambda config, size: need(True))
    assert rows[1].impossible == "It needs the package optimum-quanto, which is not installed."


def test_mini_is_for_this_machine_and_what_does_not_fit_is_told_for_a_rented_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = forecast.here().__class__("here", "cuda", "L4", 9 * 10**9, 10**10, 121e12, None, 9 * 10**9)
    monkeypatch.setattr(forecast, "here", lambda: small)
    forecast._memory.cache_clear()
    reckon = Forecaster("none", 0.0, 0)
    mini = reckon(load_preset("mini").config, 128)
    assert (mini.fits, mini.place, mini.dollars, mini.change) == (True, "here", None, None)
    sdxl = RunConfig(model_family="sdxl", pretrained_model_name_or_path=SDXL, mixed_precision="bf16")
    large = reckon(sdxl, 1024)
    assert not large.fits
    assert large.place.startswith("on ")
    assert large.dollars > 0
    assert reckon(RunConfig(pretrained_model_name_or_path="owner/name"), 512) is None
    changed = parse_run_config(
        {**sdxl.model_dump(), **{k: v for k, v in large.change.settings.items() if k != "resolution"}}
    )
    assert reckon(changed, large.change.settings.get("resolution", 1024)).fits
    forecast._memory.cache_clear()


def test_a_model_comes_with_its_preset_and_its_own_size(workspace: Workspace) -> None:
    page = look(workspace)
    assert shown_resolution(page) == 128
    view, settings = chosen(page, json.dumps({"model": "sdxl/base-1.0"}), {"resolution", *EXPERTS})
    assert settings["learning_rate"] < 5e-4, "mini's would burn it"
    assert (settings["resolution"], settings["pretrained_model_name_or_path"]) == (1024, SDXL)
    there = Page(workspace, Histories(), View.parse(view.address))
    assert shown_resolution(there) == 1024
    assert there.view == view
    assert best_preset("mini") == "mini"
    view, settings = chosen(there, json.dumps({"resolution": 512}), {"resolution"})
    assert (view.resolution, settings) == (512, {"resolution": 512})


@pytest.mark.parametrize("choice", ["", "[]", "{", '{"preset": "none"}', '{"init_lora": "/etc/passwd"}'])
def test_a_click_that_says_nothing_changes_nothing(workspace: Workspace, choice: str) -> None:
    page = look(workspace)
    assert chosen(page, choice, set(EXPERTS)) == (page.view, {})


def test_a_preset_trains_at_its_own_size(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_training, "submit", lambda *arguments: None)
    subject = Subject.read(choose_sample(workspace, "biscuit"))
    run_dir = start_run(workspace, subject, form(resolution=1024.0))
    assert edge_px(load_datasets(run_dir / "multidatabackend.json")[0]) == 1024
    with pytest.raises(ValueError, match="multiple of 64 px, from 64 to 2048, got 100"):
        start_run(workspace, subject, form(resolution=100))


def test_a_distilled_model_is_warned_of(workspace: Workspace) -> None:
    schnell = FLAVOURS["flux"]["schnell"]
    values = {"model_family": "flux", "pretrained_model_name_or_path": schnell}
    page = look(workspace)
    experts = {**form().experts, **values}
    shown = describe(page, form(experts=experts))[1]
    assert "was distilled to draw in a few steps" in shown
    assert "Train on FLUX.1-dev" in shown
    assert "distilled" not in describe(page, form())[1]
    assert distilled_family(FLAVOURS["flux"]["dev"]) is None
    drawn = [with_model(LARGE, model) for model in ("z_image/turbo", "flux/schnell", "z_image/base")]
    assert [config.validation_num_inference_steps for config in drawn[:2]] == [8, 4]
    assert [config.validation_guidance for config in drawn] == [0, 1, LARGE.validation_guidance]
    assert "set validation_num_inference_steps to 8 and validation_guidance to 0" in few_step_advice(
        "z_image", 28, 4.0
    )
    assert "validation_guidance" not in few_step_advice("z_image", 8, 0.0)


PAIR = {
    "model_type": "lora",
    "model_family": "sdxl",
    "pretrained_model_name_or_path": SDXL,
    "lora_type": "lycoris",
    "lycoris_config": "/somewhere/else/lycoris_config.json",
    "--max_train_steps": 700,
    "num_train_epochs": 0,
    "user_prompt_library": "/etc/hostname",
    "init_lora": "/etc/passwd",
}


def upload(folder: Path, **changes: object) -> list[Path]:
    subject = {
        "id": "subject",
        "instance_data_dir": str(folder),
        "caption_strategy": "instanceprompt",
        "instance_prompt": "a photo of a ohwx dog",
        "resolution": 1.0,
        "resolution_type": "area",
    }
    held = {
        "config.json": {**PAIR, **changes},
        "multidatabackend.json": [subject],
        "lycoris_config.json": {"algo": "loha", "linear_dim": 8, "linear_alpha": 4},
    }
    for name, content in held.items():
        (folder / name).write_text(json.dumps(content))
    return [folder / name for name in held]


def test_a_pair_is_taken_over_and_opens_nothing_of_this_machine(tmp_path: Path) -> None:
    pair = read_upload(upload(tmp_path))
    assert all(dataset.instance_data_dir is None for dataset in pair.datasets)
    settings, findings = taken(pair)
    assert settings["pretrained_model_name_or_path"] == SDXL
    assert (settings["max_train_steps"], settings["resolution"]) == (700, 1024)
    assert settings["lycoris_config"]["algo"] == "loha"
    assert "init_lora" not in settings
    said = {finding.key: finding.message for finding in findings}
    assert "there is no file /etc/hostname here" in said["user_prompt_library"]
    assert "a photo of a ohwx dog" in said["instance_prompt"]
    report = report_of(pair, findings, True)
    assert "The settings are in the fields." in report
    assert "user_prompt_library" in report


def test_a_pair_on_a_folder_leaves_the_chosen_model(tmp_path: Path) -> None:
    settings, findings = taken(read_upload(upload(tmp_path, pretrained_model_name_or_path="/models/own")))
    assert not {"pretrained_model_name_or_path", "model_family", "model_flavour"} & settings.keys()
    assert any("'/models/own' is no Hub id" in finding.message for finding in findings)


def test_one_file_alone_is_no_pair(tmp_path: Path) -> None:
    files = upload(tmp_path)
    for wrong in (files[:1], files[1:2], []):
        with pytest.raises(ValueError, match="Choose both files together"):
            read_upload(wrong)
