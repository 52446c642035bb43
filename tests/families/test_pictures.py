"""Families that draw from pictures: what they train on, what they draw from, and what they share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from tiny_runs import change, cropped_dataset, draw_photos, events_of
from torch import Tensor
from torch.nn import functional

from dreamspace.config import RunConfig
from dreamspace.data.cache import pixels_of
from dreamspace.data.geometry import GeometryRules, plan_geometry
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.class_images import draw_class_images
from dreamspace.models.deepfloyd import DeepFloyd, DeepFloydUpscaler, shrunk
from dreamspace.models.generate import generate
from dreamspace.models.sampling import SamplingSettings, with_pictures
from dreamspace.models.sdxl import StableDiffusionXL
from dreamspace.training.batches import Batches
from dreamspace.training.preparation import TrainingSet, read_training_set, validation_photos
from dreamspace.training.ranks import new_accelerator
from families.cases import picture_px
from families.deepfloyd import build_stage_one, build_stage_two
from families.sdxl import build_sdxl, build_sdxl_refiner

PROMPTS = ["a photo of a sks dog", "a sks dog in snow"]
NUM_ROWS = 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model folder of each kind."""
    folder = tmp_path_factory.mktemp("models")
    builds: dict[str, Callable[[Path], Path]] = {
        "base": build_sdxl,
        "refiner": build_sdxl_refiner,
        "i": build_stage_one,
        "ii": build_stage_two,
    }
    return {name: build(folder / name) for name, build in builds.items()}


def opened(folder: Path, cache: Path, **settings: Any) -> tuple[RunConfig, BaseModel]:
    family = "deepfloyd" if folder.name.startswith("i") else "sdxl"
    config = RunConfig(
        model_family=family,
        pretrained_model_name_or_path=str(folder),
        train_batch_size=NUM_ROWS,
        validation_prompt=PROMPTS[0],
        validation_prompts=PROMPTS[1:],
        **settings,
    )
    return config, open_model(config, cache, torch.device("cpu"))


def read(config: RunConfig, model: BaseModel, photos: Path, job_dir: Path) -> TrainingSet:
    datasets = [cropped_dataset(photos, repeats=1)]
    job_dir.mkdir(exist_ok=True)
    return read_training_set(config, datasets, model, EventWriter(job_dir), NUM_ROWS)


def test_the_folder_says_which_model_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    assert isinstance(opened(folders["base"], tmp_path)[1].family, StableDiffusionXL)
    assert isinstance(opened(folders["i"], tmp_path)[1].family, DeepFloyd)
    assert isinstance(opened(folders["ii"], tmp_path)[1].family, DeepFloydUpscaler)
    _, refiner = opened(folders["refiner"], tmp_path, data_aesthetic_score=5.5)
    geometry = plan_geometry(80, 64, GeometryRules(64, "pixel", crop=True), refiner.multiple_px)
    numbers = refiner.family.row_conditioning(geometry, torch.zeros(4, 8, 8), 0)["time_ids"]
    assert numbers.tolist() == [64, 80, 0, 8, 5.5]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timestep_sampling": "logit_normal"},
        {"timestep_sampling": "shifted", "timestep_shift": 3.0},
        {"stratified_timesteps": True},
        {"stratified_timesteps": True, "timestep_sampling": "shifted", "timestep_shift": 3.0},
    ],
)
def test_refiner_trains_on_the_fifth_of_the_timesteps_with_the_least_noise(
    folders: dict[str, Path], photos: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    rollout = {"scheduled_sampling_max_step_offset": 50, "scheduled_sampling_probability": 0.5}
    config, model = opened(folders["refiner"], tmp_path / "cache", **settings, **rollout)
    training_set = read(config, model, photos, tmp_path)
    batches = Batches(config, model.family, training_set, 1000, new_accelerator(config))
    drawn = [batches.batch(step, 0) for step in range(100)]
    timesteps = torch.stack([batch.timesteps for batch in drawn])
    assert timesteps.max() < 200
    assert timesteps.min() < 20
    assert timesteps.max() > 180
    shifted = settings.get("timestep_shift", 1.0)
    # Half of the draws lie below the share that the median goes to: 1/2, or s / (1 + s) when it is shifted.
    assert timesteps.float().median().item() == pytest.approx(200 * shifted / (1 + shifted), abs=12)
    if settings.get("stratified_timesteps"):
        shares = (timesteps + 0.5) / 200
        parts = (shares / (shifted - (shifted - 1) * shares) * NUM_ROWS).sort(dim=1).values
        middles = torch.arange(NUM_ROWS) + 0.5
        assert (parts - middles).abs().max() < 0.6, "one in each of the equal parts"
    starts = [rollout.start for batch in drawn for rollout in batch.rollouts]
    assert len(starts) > 100
    assert max(starts) < 200


def test_other_models_train_on_all_timesteps(folders: dict[str, Path], photos: Path, tmp_path: Path) -> None:
    for name in ("base", "ii"):
        config, model = opened(folders[name], tmp_path / "cache")
        training_set = read(config, model, photos, tmp_path)
        batches = Batches(config, model.family, training_set, 1000, new_accelerator(config))
        timesteps = torch.stack([batches.batch(step, 0).timesteps for step in range(50)])
        assert timesteps.max() > 950, name


def test_base_and_refiner_share_latents_and_keep_their_prompts_apart(
    folders: dict[str, Path], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one cache, in either order: the VAE is the same, the text encoders are one of two."""
    config, base = opened(folders["base"], tmp_path / "cache")
    _, refiner = opened(folders["refiner"], tmp_path / "cache")
    change(refiner.folder / "vae" / "config.json", _diffusers_version="0.19.0", _name_or_path="../vae")
    first = read(config, base, photos, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "load_vae", lambda model: pytest.fail("the base model's latents are cached"))
        second = read(config, refiner, photos, tmp_path)
        patch.setattr(BaseModel, "load_text_encoders", lambda model: pytest.fail("all prompts are cached"))
        again = read(config, base, photos, tmp_path)
    torch.testing.assert_close(second.latents, first.latents, rtol=0, atol=0)
    alone = refiner.encode_prompts([*PROMPTS, ""], tmp_path / "other cache")
    for prompt in (*PROMPTS, ""):
        assert first.conditioning[prompt]["prompt_embeds"].shape[-1] == 16 + 24
        assert second.conditioning[prompt]["prompt_embeds"].shape[-1] == 24
        for name, values in alone[prompt].items():
            assert torch.equal(second.conditioning[prompt][name], values)
            assert torch.equal(again.conditioning[prompt][name], first.conditioning[prompt][name])


def test_validation_draws_from_the_first_photos(
    folders: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    settings = SamplingSettings(32, 32, 2, 1.0)
    for name in ("refiner", "ii"):
        config, model = opened(folders[name], tmp_path / "cache")
        training_set = read(config, model, photos, tmp_path)
        drawn_from = validation_photos(model.family, PROMPTS, training_set)
        rows = [training_set.conditioning[prompt] for prompt in PROMPTS]
        samples = [drawn_from[prompt] for prompt in PROMPTS]
        found = dict(zip(PROMPTS, with_pictures(rows, samples, settings), strict=True))
        for prompt, path in zip(PROMPTS, sorted(photos.iterdir()), strict=False):
            expected = ImageOps.fit(Image.open(path).convert("RGB").crop((8, 0, 72, 64)), (32, 32))
            torch.testing.assert_close(found[prompt]["picture"], pixels_of(expected))
        assert "picture" not in training_set.conditioning[PROMPTS[0]]


def test_upscaler_is_trained_on_the_small_picture_that_its_pipeline_makes(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """The pipeline's own enlarging and noising, captured; only the noise is the row's."""
    _, model = opened(folders["ii"], tmp_path)
    pipeline = model.family.pipeline_class.from_pretrained(model.folder)
    noising, calls = pipeline.image_noising_scheduler.add_noise, []

    def captured(enlarged: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        calls.append((enlarged, timesteps))
        return noising(enlarged, noise, timesteps)

    pipeline.image_noising_scheduler.add_noise = captured
    pixels = pixels_of(picture_px(32))
    pipeline(PROMPTS[0], image=shrunk(pixels[None]), num_inference_steps=1, height=32, width=32)
    ((enlarged, level),) = calls
    noise = torch.randn(enlarged.shape, generator=torch.Generator().manual_seed(7))
    geometry = plan_geometry(32, 32, GeometryRules(32, "pixel"), model.multiple_px)
    row = model.family.row_conditioning(geometry, pixels, seed=7)
    torch.testing.assert_close(row["small_picture"], noising(enlarged, noise, level)[0])


def test_deepfloyd_prompts_are_cleaned_as_its_pipelines_do_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """The stock pipelines' embeddings of raw prompts, captured where the UNet takes them."""
    prompt = " A Photo of an SKS dog!!! at https://dogs.com, 1234567 &amp; a ball"
    _, model = opened(folders["i"], tmp_path)
    pipeline = model.family.pipeline_class.from_pretrained(model.folder)
    forward, calls = pipeline.unet.forward, []

    def captured(*arguments: Any, encoder_hidden_states: Tensor, **options: Any) -> Any:
        calls.append(encoder_hidden_states)
        return forward(*arguments, encoder_hidden_states=encoder_hidden_states, **options)

    pipeline.unet.forward = captured
    pipeline(prompt, num_inference_steps=1, guidance_scale=4.0)
    found = model.encode_prompts([prompt, ""])
    torch.testing.assert_close(found[""]["prompt_embeds"], calls[0][0])
    torch.testing.assert_close(found[prompt]["prompt_embeds"], calls[0][1])


def test_small_picture_has_a_quarter_of_the_edges_and_the_same_colours() -> None:
    pixels = pixels_of(picture_px(64))[None]
    small = shrunk(pixels)
    assert small.shape == (1, 3, 16, 16)
    torch.testing.assert_close(small, functional.avg_pool2d(pixels, 4), rtol=0, atol=0.1)


def test_class_images_are_not_drawn_from_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("refiner", "ii"):
        _, model = opened(folders[name], tmp_path)
        with pytest.raises(ValueError, match="cannot draw class images from nothing"):
            draw_class_images(model, ["a dog"], 2, tmp_path, lambda *progress: None, lambda: False)


def test_without_a_run_there_is_no_picture_to_draw_from(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("refiner", "ii"):
        arguments = {"model": str(folders[name]), "prompts": PROMPTS, "seed": 0}
        with pytest.raises(ValueError, match="takes the photos of a run"):
            generate(tmp_path, arguments, EventWriter(tmp_path))


def test_models_that_learn_detail_warn_of_soft_photos(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "photos", 2)
    with Image.open(folder / "01.png") as photo:
        photo.filter(ImageFilter.GaussianBlur(4)).save(folder / "01.png")
    for name, expected in (("base", []), ("refiner", ["01.png: it is blurred."])):
        config, model = opened(folders[name], tmp_path / "cache")
        read(config, model, folder, tmp_path / name)
        assert [event["message"] for event in events_of(tmp_path / name, "warning")] == expected
