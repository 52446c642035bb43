"""The `evaluate` job by the real command, on a run and on an adapter from elsewhere."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_runs import (
    assert_refused,
    change,
    cropped_dataset,
    draw_photos,
    run_command,
    tiny_config,
    write_run_folder,
)

from dreamspace.config import RunConfig
from dreamspace.evaluation import evaluate_job
from dreamspace.evaluation.leaks import leak_table
from dreamspace.evaluation.plan import evaluation_plan
from dreamspace.evaluation.report import write_report
from dreamspace.jobs.events import EventWriter
from dreamspace.mini import MODEL_FOLDER
from dreamspace.models.adapters import new_adapter
from dreamspace.models.base import base_config, open_model
from tests.tiny_runs import train_here

SETTINGS = {
    "max_train_steps": 4,
    "gradient_accumulation_steps": 1,
    "checkpoint_step_interval": 2,
    "validation_disable": True,
    "validation_prompts": [],
    "use_ema": True,
    "pretrained_evaluation_model_name_or_path": str(MODEL_FOLDER / "clip"),
    "pretrained_similarity_model_name_or_path": "none",
    "evaluation_prompts": ["a photo of a {subject} in the snow", "a photo of a {subject} at night"],
    "held_out_photos": True,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A run with two checkpoints and their moving averages, and a held-out photo."""
    run_dir = tmp_path_factory.mktemp("judged") / "run"
    photos = draw_photos(run_dir.with_name("photos"), 6)
    write_run_folder(run_dir, tiny_model, [cropped_dataset(photos)], **SETTINGS)
    train_here(run_dir)
    return run_dir


@pytest.fixture(scope="module")
def evaluated(run: Path) -> Path:
    result = run_command("evaluate", run)
    assert result.returncode == 0, result.stderr
    assert str(run / "evaluation.html") in result.stdout
    outcome = outcome_of(run)
    assert f"Verdict: {outcome['reason']}" in result.stdout
    for sentence in [*outcome["warnings"], *outcome["next_steps"]]:
        assert f"\n  {sentence}\n" in result.stdout
    for row in leak_table(outcome):
        assert re.search(
            rf"  {row.what} .*{re.escape(f'{row.gain:+.3f}')} .* {row.drift:.3f}\n", result.stdout
        )
    return run


def outcome_of(folder: Path) -> dict:
    return json.loads((folder / "evaluation.json").read_text())


def test_every_checkpoint_and_its_average_are_judged_and_one_is_recommended(evaluated: Path):
    outcome = outcome_of(evaluated)
    assert [each["folder"] for each in outcome["candidates"]] == [
        *("step-000002", "step-000002-ema"),
        *("step-000004", "step-000004-ema"),
    ]
    best = max(outcome["candidates"], key=lambda each: each["score"])
    chosen = next(each for each in outcome["candidates"] if each["folder"] == outcome["best"])
    assert chosen["score"] >= best["score"] - 0.01
    assert outcome["reason"].count(". ") == 1
    assert outcome["photos"]["evidence"] == "held_out"
    for each in outcome["candidates"]:
        assert set(each["figures"]["leaks"]) == {"class", "other class", "beside", "empty"}
        assert (evaluated / each["path"]).is_dir()
        images = list((evaluated / "evaluation" / each["folder"]).glob("*-[01].jpg"))
        assert len(images) >= 2 * 6


def test_the_report_holds_everything_in_one_file(evaluated: Path):
    report = (evaluated / "evaluation.html").read_text()
    outcome = outcome_of(evaluated)
    assert outcome["reason"] in report
    assert 'src="data:image/jpeg;base64,/9j/' in report
    assert report.count("<svg") == 2
    assert "http" not in report.replace("http-equiv", "")
    grid = report[report.index("Checkpoint by prompt") : report.index("What should not show")]
    assert grid.count("<img") == 2 * 5 * len(outcome["seeds"])
    leaked = report[report.index("What should not show") : report.index("Strength by prompt")]
    assert leaked.count("<img") == 4 * 2 * len(outcome["seeds"])
    leaks = leak_table(outcome)
    assert [row.prompt for row in leaks] == list(outcome["leak_prompts"].values())
    for row in leaks:
        share = "" if row.share is None else f"{row.share:.0%}"
        assert f"<td>{row.gain:+.3f}</td><td>{share}</td><td>{row.drift:.3f}</td>" in report
    strengths = report[report.index("Strength by prompt") :]
    assert strengths.count("<img") == 3 * 2
    assert str(evaluated) not in report


def test_a_report_that_would_be_too_large_shows_one_seed_and_says_so(
    evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = shutil.copytree(evaluated, tmp_path / "copy")
    words = "would make this file too large"
    assert words not in (copy / "evaluation.html").read_text()
    monkeypatch.setattr("dreamspace.evaluation.report.MAX_IMAGE_BYTES", 10_000)
    report = write_report(copy, outcome_of(copy)).read_text()
    assert words in report
    grid = report[report.index("Checkpoint by prompt") : report.index("What should not show")]
    assert grid.count("<img") == 2 * 5


def test_what_was_finished_is_gone_on_with_and_scores_the_same(evaluated: Path, tmp_path: Path):
    copy = shutil.copytree(evaluated, tmp_path / "copy")
    before = outcome_of(copy)
    shutil.rmtree(copy / "evaluation" / "step-000004-ema")
    (copy / "evaluation.json").unlink()
    kept = copy / "evaluation" / "step-000002" / "0-0.jpg"
    drawn_at = kept.stat().st_mtime_ns
    result = run_command("evaluate", copy)
    assert result.returncode == 0, result.stderr
    assert kept.stat().st_mtime_ns == drawn_at
    assert "Evaluating step 4 (moving average)" in result.stdout
    assert "Evaluating step 2:" not in result.stdout
    assert [each["figures"] for each in outcome_of(copy)["candidates"]] == [
        each["figures"] for each in before["candidates"]
    ]


def judge_adapter(out: Path, model: Path, adapter: Path, photos: Path) -> dict[str, bytes]:
    """Evaluate an adapter in this process; returns the images by their paths in `out`."""
    arguments = {
        **{"model": str(model), "adapter": str(adapter), "photos": str(photos), "out": str(out)},
        **{"class_word": "dog", "token": "sks", "clip": str(MODEL_FOLDER / "clip"), "dino": "none"},
    }
    quick = {"validation_num_inference_steps": 2, "num_evaluation_seeds": 1}
    out.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_job, "base_config", lambda name, words: base_config(name, words | quick))
        evaluate_job.evaluate(out, arguments, EventWriter(out))
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("evaluation/*/*.jpg"))}


def multiplied(file: Path, factor: float) -> None:
    """Multiply all weights of a file."""
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({name: weight * factor for name, weight in load_file(file).items()}, file, metadata)


def test_another_base_model_or_adapter_in_the_same_place_is_drawn_anew(
    run: Path, tiny_model: Path, tmp_path: Path
):
    photos = run.with_name("photos")
    adapter = shutil.copytree(run / "adapter", tmp_path / "adapter")
    stronger = shutil.copytree(run / "adapter", tmp_path / "stronger")
    multiplied(stronger / "pytorch_lora_weights.safetensors", 3)
    model = shutil.copytree(tiny_model, tmp_path / "model")
    multiplied(model / "unet" / "diffusion_pytorch_model.safetensors", 0.9)
    kept = tmp_path / "kept"
    before = judge_adapter(kept, tiny_model, adapter, photos)
    assert judge_adapter(kept, tiny_model, adapter, photos) == before
    for base, other in ((tiny_model, stronger), (model, stronger)):
        found = judge_adapter(kept, base, other, photos)
        assert found == judge_adapter(tmp_path / f"new-{base.name}", base, other, photos)
        assert found.keys() == before.keys()
        same = {name for name in found if found[name] == before[name]}
        assert same == ({name for name in found if "/base/" in name} if base == tiny_model else set())


@pytest.mark.parametrize(
    "settings",
    [{"lora_type": "standard", "lora_alpha": 8}, {"lora_type": "lycoris"}, {"lora_type": "lokr"}],
    ids=lambda settings: settings["lora_type"],
)
def test_an_adapter_from_elsewhere_is_drawn_once_and_at_three_strengths(
    settings: dict[str, Any], run: Path, tiny_model: Path, tmp_path: Path
):
    config = tiny_config(tiny_model, lora_dropout=0, **settings)
    trained = new_adapter(config, open_model(config, tmp_path / "cache"))
    generator = torch.Generator().manual_seed(1)
    for parameter in trained.parameters:
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    (tmp_path / "adapter").mkdir()
    trained.save(tmp_path / "adapter")
    images = judge_adapter(tmp_path / "out", tiny_model, tmp_path / "adapter", run.with_name("photos"))
    paths = [
        "base/0-0",
        *(f"adapter/{name}-0" for name in ("0", "strength-0.5", "strength-1", "strength-1.5")),
    ]
    base, once, half, whole, more = (
        np.asarray(Image.open(BytesIO(images[f"evaluation/{path}.jpg"])), np.float32) for path in paths
    )
    assert np.abs(whole - once).mean() < 0.1  # what is drawn beside it may round it otherwise
    distances = [np.abs(image - base).mean() for image in (half, whole, more)]
    assert distances == sorted(distances)
    assert min(np.diff([0, *distances])) > 1


def test_another_negative_prompt_is_drawn_anew(evaluated: Path, tmp_path: Path):
    copy = shutil.copytree(evaluated, tmp_path / "copy")
    change(copy / "config.json", validation_negative_prompt="a cat")
    result = run_command("evaluate", copy)
    assert result.returncode == 0, result.stderr
    for path in evaluated.glob("evaluation/*/*.jpg"):
        assert (copy / path.relative_to(evaluated)).read_bytes() != path.read_bytes(), path


def test_a_report_that_cannot_be_written_is_said_and_takes_nothing_along(evaluated: Path, tmp_path: Path):
    copy = shutil.copytree(evaluated, tmp_path / "copy")
    before = outcome_of(copy)
    (copy / "evaluation.json").unlink()
    (copy / "evaluation.html").unlink()
    (copy / "evaluation.html").mkdir()
    files = {path.relative_to(copy): path.stat().st_mtime_ns for path in copy.glob("evaluation/*/*")}
    result = run_command("evaluate", copy)
    assert_refused(
        (result.returncode, result.stdout, result.stderr),
        f"The report {copy / 'evaluation.html'} cannot be written: Is a directory. Make room for it there",
    )
    assert outcome_of(copy) == before
    assert {path.relative_to(copy): path.stat().st_mtime_ns for path in copy.glob("evaluation/*/*")} == files
    assert not list(copy.glob(".evaluation*"))
    (copy / "evaluation.html").rmdir()
    result = run_command("evaluate", copy)
    assert result.returncode == 0, result.stderr
    assert before["reason"] in (copy / "evaluation.html").read_text()


def test_an_adapter_from_elsewhere_is_judged_by_photos_that_are_given(
    evaluated: Path, tiny_model: Path, tmp_path: Path
):
    adapter = shutil.copytree(evaluated / "adapter", tmp_path / "adapter")
    config = RunConfig.load(evaluated / "config.json")
    words = ["--class-word", config.class_word, "--token", config.token]
    photos = evaluated.with_name("photos")
    command = ["evaluate", "--model", tiny_model, "--adapter", adapter, "--photos", photos, *words]
    result = run_command(*command, "--out", tmp_path / "out")
    # The usual CLIP cannot be had here, and the sentence says what to do.
    assert result.returncode == 2
    assert "could not be downloaded" in result.stderr
    result = run_command(
        *command, "--out", tmp_path / "out", "--clip", MODEL_FOLDER / "clip", "--dino", "none"
    )
    assert result.returncode == 0, result.stderr
    outcome = outcome_of(tmp_path / "out")
    assert [each["name"] for each in outcome["candidates"]] == ["the adapter"]
    assert outcome["photos"]["evidence"] == "weak"
    assert any("Weak evidence" in warning for warning in outcome["warnings"])
    assert not any("Overfit" in warning for warning in outcome["warnings"])


def test_the_plan_asks_for_the_subject_in_eight_ways_and_for_what_should_not_show_it(tmp_path: Path):
    datasets = [cropped_dataset(draw_photos(tmp_path / "photos", 1))]
    plan = evaluation_plan(RunConfig(token="sks", class_word="dog"), datasets)
    assert len(plan.prompts) == 8
    assert all("sks dog" in prompt for prompt in plan.prompts)
    assert plan.leaks["class"] == "a photo of a dog"
    assert plan.leaks["other class"] == "a photo of a cat"
    assert plan.leaks["empty"] == ""
    assert len(plan.drawings) == 2 * (8 + 4)
    thing = evaluation_plan(RunConfig(token="sks", class_word="red mug"), datasets)
    assert thing.leaks["other class"] == "a photo of a mug"
    assert thing.prompts != plan.prompts
    untold = evaluation_plan(RunConfig(), datasets)  # imported: the caption alone says what it is
    assert untold.subject == "sks dog"
    assert set(untold.leaks) == {"other class", "empty"}
    assert untold.class_word == "dog"
    assert untold.text_side(untold.prompts[0]) == plan.text_side(plan.prompts[0])


@pytest.mark.parametrize(
    ("caption", "token", "subject", "class_word"),
    [
        ("a photo of a sks cat", None, "sks cat", "cat"),
        ("a photo of a sks cat.", "sks", "sks cat", "cat"),
        ("a photo of a dog", None, "dog", "dog"),
        ("a photo of sks", None, "sks", None),
        ("a photo of a red sks", "sks", "sks", None),
        ("a sks dog in the snow", None, "sks dog in the snow", None),
        ("sks mug, on a table", "sks", "sks", None),
    ],
)
def test_where_the_run_names_no_class_a_caption_that_is_a_name_does(
    caption: str, token: str | None, subject: str, class_word: str | None, tmp_path: Path
):
    dataset = cropped_dataset(draw_photos(tmp_path / "photos", 1), instance_prompt=caption)
    plan = evaluation_plan(RunConfig(token=token), [dataset])
    assert (plan.subject, plan.class_word) == (subject, class_word)
    assert plan.leaks["other class"] == ("a photo of a dog" if class_word == "cat" else "a photo of a cat")
    assert ("raincoat" in " ".join(plan.prompts)) == (class_word is not None)  # nobody dresses a thing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["RUN", "--token", "sks"], ["--token"]),
        (["NOWHERE"], ["There is no run in"]),
        (["--adapter", "NOWHERE", "--photos", "PHOTOS"], ["--class-word is missing"]),
        ([], ["--adapter is missing"]),
        (["--adapter", "NOWHERE", "--photos", "PHOTOS", "--class-word", "dog"], ["There is no adapter in"]),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    arguments: list[str], words: list[str], run: Path, photos: Path, tmp_path: Path
):
    given = {"RUN": run, "NOWHERE": tmp_path / "nowhere", "PHOTOS": photos}
    result = run_command("evaluate", *(given.get(each, each) for each in arguments))
    assert_refused((result.returncode, result.stdout, result.stderr), *words)


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path, tiny_model: Path, photos: Path):
    write_run_folder(tmp_path / "run", tiny_model, photos, **SETTINGS)
    result = run_command("evaluate", tmp_path / "run")
    assert_refused((result.returncode, result.stdout, result.stderr), "has no checkpoint yet")
