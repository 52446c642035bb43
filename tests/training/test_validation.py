"""Validation images through the real training: seeds, sizes, libraries, epochs, webhooks, broken images."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_runs
from PIL import Image
from tiny_runs import INSTANCE_PROMPT, events_of, train_here, write_run_folder

from dreamspace.config import RunConfig
from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.files import write_json
from dreamspace.jobs.control import request
from dreamspace.training import run as run_module
from dreamspace.training import validation

DRAWING = tiny_runs.QUICK | {
    "validation_disable": False,
    "max_train_steps": 2,
    "lr_warmup_steps": 0,
    "checkpoint_step_interval": 100,
    "validation_step_interval": None,
}


def test_each_prompt_seed_and_size_has_an_image_and_a_request_draws_all(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"num_validation_images": 2, "validation_seed": 2**32 - 1, "validation_resolution": "64,96x32"}
    given = DRAWING | settings | {"validation_prompts": ["a cat"]}
    write_run_folder(tmp_path, tiny_model, photos, **given)
    take_step = run_module.TrainingStep.__call__

    def ask(step: run_module.TrainingStep, index: int, learning_rate: float) -> Any:
        if index == 0:
            request(tmp_path, "sample")
        return take_step(step, index, learning_rate)

    monkeypatch.setattr(run_module.TrainingStep, "__call__", ask)
    train_here(tmp_path)
    samples = events_of(tmp_path, "sample")
    assert [event["step"] for event in samples] == 8 * [0] + 8 * [1] + 8 * [2]
    assert [
        (event["prompt"], event["seed"], event["width"], event["height"], Path(event["path"]).name)
        for event in samples[:8]
    ] == [
        (prompt, seed, *size, f"{4 * size_number + 2 * seed_number + number}.png")
        for size_number, size in enumerate([(64, 64), (96, 32)])
        for seed_number, seed in enumerate([2**32 - 1, 0])
        for number, prompt in enumerate([INSTANCE_PROMPT, "a cat"])
    ]
    for event in events_of(tmp_path, "sample", "preview"):
        with Image.open(tmp_path / event["path"]) as image:
            assert image.size == (event["width"], event["height"])
    assert len({(tmp_path / event["path"]).read_bytes() for event in samples[:8]}) == 8
    previews = [event for event in events_of(tmp_path, "preview") if event["step"] == 0]
    # Four of a size are drawn together.
    assert [(e["index"], e["seed"], e["inference_step"]) for e in previews[-8:]] == [
        (index, seed, inference_step)
        for inference_step in (1, 2)
        for index, seed in enumerate([2**32 - 1, 2**32 - 1, 0, 0], 4)
    ]


def test_first_and_last_step_are_drawn_and_those_that_end_an_interval_of_epochs() -> None:
    plan = StepPlan([PlannedDataset("subject", ((64, 64),) * 5, 1)], seed=0, step_rows=1)

    def due(**settings: Any) -> list[int]:
        run = run_module.Run(RunConfig(max_train_steps=12, **settings), *[None] * 7)
        return [step for step in range(13) if run.is_validation_due(step, plan)]

    assert due(validation_step_interval=None) == [0, 12]
    assert due(validation_step_interval=None, validation_epoch_interval=1) == [0, 5, 10, 12]
    assert due(validation_step_interval=None, validation_epoch_interval=0.5) == [0, 3, 5, 8, 10, 12]
    assert due(validation_step_interval=4, validation_epoch_interval=2) == [0, 4, 8, 10, 12]


def test_library_prompts_are_drawn_after_the_others(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "own.json", {"beach": "a {subject} at a beach"})
    library = {"validation_prompt_library": str(tmp_path / "own.json"), "validation_preview": False}
    write_run_folder(tmp_path, tiny_model, photos, **DRAWING | library)
    train_here(tmp_path)
    prompts = [event["prompt"] for event in events_of(tmp_path, "sample") if event["step"] == 2]
    assert prompts == [INSTANCE_PROMPT, "a sks dog at a beach"]
    assert events_of(tmp_path, "preview") == []


def test_image_that_is_not_finite_is_a_warning_and_no_image(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run_folder(tmp_path, tiny_model, photos, **DRAWING | {"validation_prompts": ["a cat"]})
    sample_images = validation.sample_images

    def second_broken(family: Any, pipeline: Any, rows: list, *arguments: Any) -> list:
        if len(rows) == 1:  # of the proof
            return sample_images(family, pipeline, rows, *arguments)
        decode = pipeline.vae.decode

        def overflow(latents: Any, **options: Any) -> Any:
            (pixels,) = decode(latents, **options)
            pixels[1] = float("inf") - float("inf")
            return (pixels,)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.vae, "decode", overflow)
            return sample_images(family, pipeline, rows, *arguments)

    monkeypatch.setattr(validation, "sample_images", second_broken)
    assert train_here(tmp_path)[-1]["kind"] == "done"
    assert {event["prompt"] for event in events_of(tmp_path, "sample")} == {INSTANCE_PROMPT}
    first, last = events_of(tmp_path, "warning")
    assert first["message"].startswith("At step 0, what the base weights draw for 'a cat' is not finite")
    assert last["message"].startswith("At step 2, what the trained weights draw for 'a cat' is not finite")
    assert "mixed_precision" in last["hint"]
    assert not (tmp_path / "validation" / "step-000002" / "1.png").exists()


def test_dead_webhook_is_one_warning_and_its_address_is_nowhere_in_the_run(
    tiny_model: Path, photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "hook.json", {"webhook_type": "raw", "webhook_url": "http://127.0.0.1:9/s3cret"})
    webhook = {"webhook_config": str(tmp_path / "hook.json")}
    write_run_folder(tmp_path / "run", tiny_model, photos, **DRAWING | webhook)
    assert train_here(tmp_path / "run")[-1]["kind"] == "done"
    (warning,) = events_of(tmp_path / "run", "warning")
    assert "could not be sent to the raw webhook (ConnectionRefusedError)" in warning["message"]
    texts = [path.read_text() for path in (tmp_path / "run").rglob("*.json*")]
    assert any(json.dumps(webhook)[1:-1] in text for text in texts)
    assert not any("s3cret" in text for text in [*texts, *capfd.readouterr()])


def test_missing_webhook_file_is_refused_before_anything_is_loaded(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    write_run_folder(
        tmp_path, tiny_model, photos, **DRAWING | {"webhook_config": str(tmp_path / "gone.json")}
    )
    with pytest.raises(ValueError, match=r"There is no file .*gone\.json"):
        train_here(tmp_path)
    assert events_of(tmp_path, "stage") == []


def test_folder_that_may_not_be_written_to_is_one_sentence(
    shell: Any, files: Path, tmp_path: Path, photos: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    result = shell(
        "train", "--config", files / "config.json", "--datasets", files / "multidatabackend.json",
        "--run", tmp_path / "file" / "run",
    )  # fmt: skip
    tiny_runs.assert_refused(result, "cannot be", "Choose another")
