"""Every export, loaded again by what it is for, draws what the run drew."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_runs import INSTANCE_PROMPT, QUICK, draw_photos, events_of, train_here, write_run_folder

from dreamspace.jobs.events import EventWriter
from dreamspace.models.adapters import load_into_pipeline
from dreamspace.models.export import export
from dreamspace.models.sd1x import StableDiffusion
from dreamspace.run_folder import adapter_folder

LYCORIS = {"lora_type": "lycoris", "lycoris_config": {"algo": "lokr", "linear_dim": 4}}
RUNS = {
    "lora": {"lora_rank": 4, "lora_alpha": 2, "learning_rate": 0.05},
    "dora": {"lora_rank": 4, "lora_alpha": 2, "learning_rate": 0.05, "use_dora": True},
    "lokr": {**LYCORIS, "learning_rate": 0.05},
    "full": {"model_type": "full", "learning_rate": 1e-3},
}


@pytest.fixture(scope="module")
def run_of(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trains each kind of run once."""
    trained: dict[str, Path] = {}
    photos = draw_photos(tmp_path_factory.mktemp("photos"), 2)

    def find(kind: str) -> Path:
        if kind not in trained:
            run_dir = tmp_path_factory.mktemp(kind) / "runs" / "run"
            write_run_folder(run_dir, tiny_model, photos, **QUICK | {"lora_dropout": 0.0} | RUNS[kind])
            assert train_here(run_dir)[-1]["kind"] == "done"
            trained[kind] = run_dir
        return trained[kind]

    return find


def exported(run_dir: Path, wanted: str, out: Path) -> Path:
    job_dir = out.with_name("job")
    job_dir.mkdir(parents=True)
    events = EventWriter(job_dir)
    export(job_dir, {"run_dir": str(run_dir), "format": wanted, "out": str(out)}, events)
    events.close()
    assert events_of(job_dir, "done")[0]["path"] == str(out)
    return out


def image(pipeline: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    options = {"width": 64, "height": 64, "num_inference_steps": 3, "guidance_scale": 4.0}
    generator = torch.Generator().manual_seed(3)
    return np.asarray(pipeline(INSTANCE_PROMPT, **options, generator=generator).images[0], np.int16)


def base_pipeline(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)


def trained_image(tiny_model: Path, run_dir: Path) -> np.ndarray:
    pipeline = base_pipeline(tiny_model)
    load_into_pipeline(pipeline, StableDiffusion(), adapter_folder(run_dir))
    drawn = image(pipeline)
    assert np.abs(drawn - image(base_pipeline(tiny_model))).mean() > 0.5, "the run changed nothing"
    return drawn


@pytest.mark.parametrize(
    ("kind", "wanted"), [("lora", "diffusers"), ("lora", "kohya"), ("dora", "diffusers")]
)
def test_lora_files_load_in_stock_diffusers(
    run_of: Any, tiny_model: Path, tmp_path: Path, kind: str, wanted: str
) -> None:
    file = exported(run_of(kind), wanted, tmp_path / "subject.safetensors")
    pipeline = base_pipeline(tiny_model)
    pipeline.load_lora_weights(tmp_path, weight_name=file.name)
    assert np.abs(image(pipeline) - trained_image(tiny_model, run_of(kind))).max() <= 1


def test_kohya_file_has_the_names_and_facts_that_other_programs_read(run_of: Any, tmp_path: Path) -> None:
    file = exported(run_of("lora"), "kohya", tmp_path / "subject.safetensors")
    weights = load_file(file)
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    assert {f"{layer}.{part}" for part in ("lora_down.weight", "lora_up.weight", "alpha")} <= weights.keys()
    assert all(name.startswith("lora_unet_") for name in weights)
    assert weights[f"{layer}.alpha"].item() == 2
    assert weights[f"{layer}.lora_down.weight"].shape[0] == 4
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert metadata["ss_network_dim"] == "4"
    assert metadata["ss_network_alpha"].rstrip("0").rstrip(".") == "2"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["modelspec.trigger_phrase"] == INSTANCE_PROMPT
    assert metadata["modelspec.resolution"] == "64x64"
    assert "/" not in json.dumps(list(metadata.values())).replace("/lora", ""), "no path of this machine"


def test_lycoris_file_is_the_runs_own(run_of: Any, tiny_model: Path, tmp_path: Path) -> None:
    file = exported(run_of("lokr"), "lycoris", tmp_path / "subject.safetensors")
    file.rename(tmp_path / "pytorch_lora_weights.safetensors")
    pipeline = base_pipeline(tiny_model)
    load_into_pipeline(pipeline, StableDiffusion(), tmp_path)
    assert np.abs(image(pipeline) - trained_image(tiny_model, run_of("lokr"))).max() <= 1


@pytest.mark.parametrize("kind", RUNS)
def test_merged_folder_is_a_whole_stock_model(
    run_of: Any, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = exported(run_of(kind), "merged", tmp_path / "merged")
    merged = StableDiffusionPipeline.from_pretrained(folder)
    assert not [name for name in merged.unet.state_dict() if "lora" in name or "lycoris" in name]
    assert not [file for file in folder.rglob("*.json") if str(tiny_model) in file.read_text()], "a path"
    assert np.abs(image(merged) - trained_image(tiny_model, run_of(kind))).max() <= 1


@pytest.mark.parametrize(
    ("kind", "wanted", "offered"),
    [
        ("lokr", "kohya", "lycoris or merged"),
        ("dora", "kohya", "diffusers or merged"),
        ("full", "kohya", "diffusers or merged"),
        ("lora", "lycoris", "diffusers or kohya or merged"),
    ],
)
def test_form_that_there_is_not_is_refused(
    run_of: Any, tmp_path: Path, kind: str, wanted: str, offered: str
) -> None:
    with pytest.raises(ValueError, match=rf"has no form '{wanted}'\. Choose {offered}\."):
        exported(run_of(kind), wanted, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_full_disk_leaves_nothing_half_written(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = run_of("lora")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 100})())
    for wanted in ("kohya", "merged"):
        with pytest.raises(ValueError, match=r"has 0 MB free and the export needs .* MB\. Free some space"):
            exported(run_dir, wanted, tmp_path / wanted / "out")
        assert [path.name for path in (tmp_path / wanted).iterdir()] == ["job"]
