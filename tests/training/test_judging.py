"""What a run is told of its images while it trains, and at its end."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import cropped_dataset, draw_photos, events_of, run_command, train_here, write_run_folder

from dreamspace.evaluation import painter
from dreamspace.evaluation.clip import Clip
from dreamspace.files import read_json
from dreamspace.mini import MODEL_FOLDER

CLIP = str(MODEL_FOLDER / "clip")
SETTINGS: dict[str, Any] = {
    "max_train_steps": 2,
    "lr_warmup_steps": 0,
    "gradient_accumulation_steps": 1,
    "checkpoint_step_interval": 2,
    "validation_step_interval": 2,
    "validation_preview": False,
    "evaluation_type": "clip",
    "pretrained_evaluation_model_name_or_path": CLIP,
    "pretrained_similarity_model_name_or_path": "none",
    "held_out_photos": True,
    "evaluation_prompts": ["a photo of a {subject} in the snow"],
    "num_evaluation_seeds": 1,
}


def trained(tmp_path: Path, model: Path, **settings: Any) -> Path:
    photos = draw_photos(tmp_path / "photos", 6)
    write_run_folder(tmp_path / "run", model, [cropped_dataset(photos)], **SETTINGS | settings)
    train_here(tmp_path / "run")
    return tmp_path / "run"


def test_all_validation_images_are_scored_and_at_the_end_a_checkpoint_is_recommended(
    tmp_path: Path, tiny_model: Path
):
    run = trained(tmp_path, tiny_model, evaluate_checkpoints=True)
    clip, samples = Clip(), events_of(run, "sample")
    scores = events_of(run, "clip_score")
    assert [(event["step"], event["weights"]) for event in scores] == [(0, "base"), (2, "trained")]
    for event in scores:
        shown = [sample for sample in samples if sample["step"] == event["step"]]
        assert set(event["by_prompt"]) == {sample["prompt"] for sample in shown}
        expected = []
        for sample in shown:
            said = sample["prompt"].replace("sks dog", "dog")  # the token means nothing to CLIP
            embedded = clip.embed_pictures([Image.open(run / sample["path"]).convert("RGB")])
            expected.append((embedded @ clip.embed_prompts([said]).T).item())
            assert event["by_prompt"][sample["prompt"]] == pytest.approx(expected[-1], abs=1e-5)
        assert event["mean"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
        assert (event["min"], event["max"]) == pytest.approx((min(expected), max(expected)), abs=1e-5)
    for event in events_of(run, "fidelity"):
        assert event["evidence"] == "held_out"
        assert -1 <= event["clip_i"] <= 1
        assert event["dino"] is None
    (verdict,) = events_of(run, "verdict")
    assert (verdict["step"], verdict["path"]) == (2, "checkpoints/step-000002")
    assert read_json(run / "evaluation.json")["reason"] == verdict["reason"]
    assert events_of(run, "verdict", "done")[-1]["kind"] == "done"


def test_the_token_alone_asks_for_the_subject(tmp_path: Path, tiny_model: Path):
    prompts = {"validation_prompt": "a portrait of Sks", "validation_prompts": []}
    run = trained(tmp_path, tiny_model, **prompts)
    assert [event["step"] for event in events_of(run, "fidelity")] == [0, 2]
    assert events_of(run, "warning") == []


def test_where_no_validation_prompt_asks_for_the_subject_is_said_once(tmp_path: Path, tiny_model: Path):
    run = trained(tmp_path, tiny_model, validation_prompt="a photo of a dog", validation_prompts=[])
    (warning,) = events_of(run, "warning")
    assert warning["message"].startswith("No validation prompt asks for 'sks dog'")
    assert "validation_prompts" in warning["hint"]
    assert len(events_of(run, "clip_score")) == 2
    assert events_of(run, "fidelity") == []


def test_a_report_that_cannot_be_written_is_a_warning_and_the_run_is_done(tmp_path: Path, tiny_model: Path):
    (tmp_path / "run" / "evaluation.html").mkdir(parents=True)
    run = trained(tmp_path, tiny_model, evaluate_checkpoints=True)
    (warning,) = [event for event in events_of(run, "warning") if "report" in event["message"]]
    assert "evaluation.html cannot be written: Is a directory." in warning["message"]
    (verdict,) = events_of(run, "verdict")
    assert read_json(run / "evaluation.json")["reason"] == verdict["reason"]
    assert len(list(run.glob("evaluation/step-000002/*.jpg"))) > 1
    assert events_of(run, "verdict", "done")[-1]["kind"] == "done"


def test_a_judge_that_cannot_be_had_is_a_warning_and_the_training_goes_on(tmp_path: Path, tiny_model: Path):
    nowhere = {"pretrained_evaluation_model_name_or_path": "ViT-B-32:nowhere.safetensors"}
    run = trained(tmp_path, tiny_model, evaluate_checkpoints=True, **nowhere)
    (warning,) = [event for event in events_of(run, "warning") if "scored" in event["message"]]
    assert "nowhere.safetensors" in warning["message"]
    assert "pretrained_evaluation_model_name_or_path" in warning["hint"]
    assert events_of(run, "clip_score", "fidelity", "verdict") == []
    assert events_of(run, "done")


@pytest.mark.parametrize("validation_disable", [False, True])
def test_a_judge_that_is_cut_off_is_a_warning_and_the_training_goes_on(
    validation_disable: bool, tmp_path: Path, tiny_model: Path
):
    folder = shutil.copytree(MODEL_FOLDER / "clip", tmp_path / "clip")
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    run = trained(
        tmp_path,
        tiny_model,
        evaluate_checkpoints=True,
        validation_disable=validation_disable,
        pretrained_evaluation_model_name_or_path=str(folder),
    )
    (warning,) = [event for event in events_of(run, "warning") if "scored" in event["message"]]
    assert f"The CLIP in {folder} cannot be loaded" in warning["message"]
    assert "pretrained_evaluation_model_name_or_path" in warning["hint"]
    assert events_of(run, "clip_score", "fidelity", "verdict") == []
    assert events_of(run, "done")


def break_images(monkeypatch: pytest.MonkeyPatch, of_base: bool) -> None:
    """Have the VAE give no numbers for the first image of each batch, of the base model or of others."""
    sample_images = painter.sample_images

    def broken(family: Any, pipeline: Any, *arguments: Any) -> list:
        decode = pipeline.vae.decode
        is_base = any(getattr(module, "_disable_adapters", False) for module in pipeline.unet.modules())

        def overflow(latents: Any, **options: Any) -> Any:
            (pixels,) = decode(latents, **options)
            pixels[0] = float("inf") - float("inf")
            return (pixels,)

        with pytest.MonkeyPatch.context() as patch:
            if is_base == of_base:
                patch.setattr(pipeline.vae, "decode", overflow)
            return sample_images(family, pipeline, *arguments)

    monkeypatch.setattr(painter, "sample_images", broken)


def test_images_of_a_checkpoint_that_are_not_finite_are_warned_of(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    break_images(monkeypatch, of_base=False)
    run = trained(tmp_path, tiny_model, evaluate_checkpoints=True, validation_disable=True)
    warnings = [event for event in events_of(run, "warning") if "not finite" in event["message"]]
    assert [warning["message"] for warning in warnings] == [
        f"What step 2{strength} draws is not finite in {images}: black pictures stand in their place."
        for strength, images in (
            ("", "2 of 5 images"),
            *((f" at strength {number}", "1 of 1 images") for number in ("0.5", "1", "1.5")),
        )
    ]
    assert "mixed_precision" in warnings[0]["hint"]
    assert events_of(run, "verdict")
    # What is gone on with says so again.
    assert "What step 2 draws is not finite in 2 of 5 images" in run_command("evaluate", run).stderr


def test_a_base_model_whose_images_are_not_finite_is_no_measure(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
):
    break_images(monkeypatch, of_base=True)
    run = trained(tmp_path, tiny_model, evaluate_checkpoints=True, validation_disable=True)
    (warning,) = events_of(run, "warning")
    assert "What the base model draws is not finite in 2 of 5 images, so that" in warning["message"]
    assert events_of(run, "verdict") == []
    assert events_of(run, "done")
    assert not (run / "evaluation.json").exists()


def test_nothing_is_scored_where_nothing_is_asked_for(tmp_path: Path, tiny_model: Path):
    run = trained(tmp_path, tiny_model, evaluation_type="none", evaluate_checkpoints=True)
    assert events_of(run, "clip_score", "fidelity", "verdict", "warning") == []
    assert events_of(run, "done")
    assert not (run / "evaluation").exists()
