"""Pictures by the base model itself."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamspace.config import RunConfig
from dreamspace.config.sections import BASE_MODEL_SETTINGS
from dreamspace.jobs.events import EventWriter
from dreamspace.models import class_images
from dreamspace.models.base import base_config
from dreamspace.models.device import usual_precision
from dreamspace.prompts.drawing import base_model, draw_each


def test_what_is_not_finite_is_said_and_not_saved(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_images, "NUM_INFERENCE_STEPS", 2)
    broken, job_dir = shutil.copytree(tiny_model, tmp_path / "model"), tmp_path / "jobs" / "probe"
    job_dir.mkdir(parents=True)
    (file,) = (broken / "vae").glob("*.safetensors")
    weights = load_file(file)
    weights["decoder.conv_out.bias"].fill_(torch.nan)
    save_file(weights, file)
    model = base_model(str(broken), job_dir)
    with pytest.raises(ValueError, match="draws numbers that are not finite for 'a dog'"):
        draw_each(model, ["a dog"], job_dir, EventWriter(job_dir))
    assert not list(job_dir.rglob("*.png"))


def test_a_base_model_alone_is_kept_in_a_runs_numbers_or_in_the_devices_own(tiny_model: Path) -> None:
    assert usual_precision(torch.device("cpu")) == "no"
    assert base_config(str(tiny_model)).mixed_precision == usual_precision(torch.device("cpu"))
    given = {"mixed_precision": "bf16", "base_model_precision": "int8-quanto"}
    config = base_config(str(tiny_model), given)
    assert config.model_dump(include=given.keys()) == given
    assert given.keys() < set(BASE_MODEL_SETTINGS)
    word = {"model_type": "textual_inversion", "num_token_vectors": 1, "token": "<sks>", "class_word": "dog"}
    of_a_run = RunConfig(**word).model_dump(include=set(BASE_MODEL_SETTINGS))
    assert base_config(str(tiny_model), of_a_run).model_dump(include=of_a_run.keys()) == of_a_run
