"""Previews: what shows latents, what it costs, and what happens where a tiny decoder cannot be had."""

import re
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import events_of

from dreamspace.config import RunConfig
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter
from dreamspace.mini.subjects import subject_photos
from dreamspace.mini.world import all_sceneries, render
from dreamspace.models import preview_choice, tiny_vae
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import PreviewCallback, Previewer, pictures_of
from dreamspace.models.sampling import SamplingSettings

SETTINGS = SamplingSettings(64, 64, num_inference_steps=20, guidance_scale=1.0, preview_every=5)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return open_model(RunConfig(), tmp_path_factory.mktemp("cache"), torch.device("cpu"))


def mini_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([pixels_of(each.resize((128, 128), Image.Resampling.BICUBIC)) for each in pictures])


@pytest.mark.parametrize("num_photos", [6, 0], ids=["photos and fields", "fields alone"])
def test_linear_map_shows_other_images_of_minis_world(
    mini: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_photos: int
) -> None:
    monkeypatch.setattr(preview_choice, "load_tiny_vae", lambda model, name: None)
    photos = [photo for photo, _ in subject_photos("biscuit")[:num_photos]]
    sceneries = all_sceneries()[:: len(all_sceneries()) // 40]
    others = mini_pixels([render(scenery, seed).image for seed, scenery in enumerate(sceneries)])
    vae, latents, pictures = mini.load_vae(), [], []
    if photos:
        pictures = list(mini_pixels(photos))
        latents = list(mini.family.encode_image(vae, torch.stack(pictures)))
    previewer = new_previewer(mini, EventWriter(tmp_path), latents=latents, pictures=pictures)
    pictures = pictures_of(previewer.linear.decode(mini.family.encode_image(vae, others)))
    shown = mini_pixels(pictures)  # enlarged as the callback does it
    errors = ((shown - others) / 2).square().flatten(1).mean(dim=1)
    assert (-10 * errors.log10()).mean() >= 17


def test_fields_are_encoded_once(mini: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_previewer(mini, EventWriter(tmp_path), latents=[], pictures=[])
    monkeypatch.setattr(BaseModel, "load_vae", lambda model: pytest.fail("the fields are cached"))
    second = new_previewer(mini, EventWriter(tmp_path), latents=[], pictures=[])
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_tiny_decoder_shows_what_its_share_of_the_time_allows_and_the_map_the_rest(
    mini: BaseModel, tmp_path: Path
) -> None:
    previewer = new_previewer(mini, EventWriter(tmp_path), latents=[], pictures=[])
    latents, calls = torch.randn(1, 4, 16, 16), []
    decode = previewer.tiny.decode
    previewer.tiny.decode = lambda rows: calls.append(1) or time.sleep(0.02) or decode(rows)
    settings = SamplingSettings(128, 128, 20, 1.0)
    for _ in range(2):
        previewer.pictures(latents, settings, affordable_seconds=0.0)
    assert len(calls) == 2, "by these its time is known"
    previewer.pictures(latents, settings, affordable_seconds=0.01)
    assert len(calls) == 2
    (picture,) = previewer.pictures(latents, settings, affordable_seconds=60.0)
    assert len(calls) == 3
    assert picture.size == (128, 128)


def callback_steps(previewer: Previewer, settings: SamplingSettings, latents: torch.Tensor) -> list:
    seen = []
    with PreviewCallback(previewer, settings, lambda *preview: seen.append(preview)) as callback:
        for step in range(settings.num_inference_steps):
            callback(None, step, None, {"latents": latents})
    return seen


def test_with_twenty_steps_and_five_there_are_four_previews_in_order(
    model: BaseModel, tmp_path: Path
) -> None:
    previewer = new_previewer(model, EventWriter(tmp_path))
    seen = callback_steps(previewer, SETTINGS, torch.randn(2, 4, 8, 8))
    assert [(row, step) for row, step, _ in seen] == [(r, s) for s in (5, 10, 15, 20) for r in (0, 1)]
    assert {picture.size for _, _, picture in seen} == {(64, 64)}


def test_latents_that_are_not_finite_have_no_preview(model: BaseModel, tmp_path: Path) -> None:
    latents = torch.randn(2, 4, 8, 8)
    latents[0] = float("nan")
    seen = callback_steps(new_previewer(model, EventWriter(tmp_path)), SETTINGS, latents)
    assert {row for row, _, _ in seen} == {1}


def test_what_the_sink_raises_ends_the_drawing(model: BaseModel, tmp_path: Path) -> None:
    def full(*preview: object) -> None:
        raise OSError("No space left on device")

    with (
        pytest.raises(OSError, match="No space left"),
        PreviewCallback(new_previewer(model, EventWriter(tmp_path)), SETTINGS, full) as callback,
    ):
        callback(None, 4, None, {"latents": torch.randn(1, 4, 8, 8)})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "there is no folder 'nowhere', and it is no Hub id"),
        ("nobody/nothing", r"nobody/nothing is not on this machine and cannot be downloaded \(\w+\)"),
        ("{empty}", "holds no diffusion_pytorch_model.safetensors"),
        ("{damaged}", "cannot be loaded: "),
    ],
)
def test_tiny_decoder_that_cannot_be_had_is_one_warning_and_a_map(
    model: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_bytes((model.folder / "tiny_vae/config.json").read_bytes())
    (tmp_path / "damaged" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut off")
    given = name.format(empty=tmp_path / "empty", damaged=tmp_path / "damaged")
    previewer = new_previewer(model, EventWriter(tmp_path), given)
    assert previewer.tiny is None
    assert previewer.linear is not None
    (warning,) = events_of(tmp_path, "warning")
    assert warning["message"].startswith("Previews show colours alone: ")
    assert re.search(reason, warning["message"])
    assert "validation_preview_model" in warning["hint"]


def test_tiny_decoder_by_folder_is_the_models_own(model: BaseModel) -> None:
    own, named = tiny_vae.load_tiny_vae(model), tiny_vae.load_tiny_vae(model, str(model.folder / "tiny_vae"))
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(own.decode(latents).sample, named.decode(latents).sample)
