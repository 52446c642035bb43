"""Every family against its stock pipeline, and through the real training, on a tiny random model of it."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import draw_photos, events_of, train_here
from torch import Tensor, nn

from dreamspace.config import RunConfig, save_datasets, subject_datasets
from dreamspace.data.cache import pixels_of
from dreamspace.data.geometry import GeometryRules, plan_geometry
from dreamspace.data.photos import list_photos
from dreamspace.models.adapters import load_into_pipeline
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.family import Conditioning, stack_conditioning
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.training.loop import TrainingStep
from dreamspace.training.objective import per_sample_loss, training_target
from dreamspace.training.schedule import noise_schedule
from families.cases import CASES, Case

PROMPT = "a photo of a sks dog"
NUM_STEPS = 30


class Opened(NamedTuple):
    """A case and its model on the disk."""

    case: Case
    model: BaseModel

    @property
    def edge(self) -> int:
        return self.case.resolution_px


@pytest.fixture(scope="module", params=CASES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return Opened(
        case,
        open_model(run_config(case, case.build(folder / "model")), folder / "cache", torch.device("cpu")),
    )


def run_config(case: Case, folder: Path, **settings: Any) -> RunConfig:
    values = {
        "model_family": case.family,
        "pretrained_model_name_or_path": str(folder),
        "token": "sks",
        "class_word": "dog",
        "lora_rank": 8,
        "lora_alpha": 4,
        "learning_rate": 0.02,
        "train_batch_size": 1,
        "max_train_steps": NUM_STEPS,
        "checkpoint_step_interval": 1000,
        "validation_step_interval": 1000,
        "validation_num_inference_steps": 2,
        "validation_guidance": 1.0,
    }
    return RunConfig(**values | case.settings | settings)


def stock_pipeline(model: BaseModel) -> Any:
    """The pipeline as a user of diffusers loads it."""
    options = {} if model.family.name not in ("sd1x", "sd2x") else {"safety_checker": None}
    pipeline = model.family.pipeline_class.from_pretrained(model.folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_images(opened: Opened, guidance: float, **options: Any) -> Any:
    return stock_pipeline(opened.model)(
        PROMPT,
        width=opened.edge,
        height=opened.edge,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(5),
        **options,
    ).images


def our_image(opened: Opened, pipeline: Any, guidance: float) -> Image.Image:
    model, settings = opened.model, SamplingSettings(opened.edge, opened.edge, 2, guidance)
    conditioning = model.encode_prompts([PROMPT, ""])
    return sample_images(model.family, pipeline, [conditioning[PROMPT]], conditioning[""], [5], settings)[0]


def row_conditioning(opened: Opened, latents: Tensor) -> Conditioning:
    """Of a picture that fills its photo, as pipelines draw them."""
    rules = GeometryRules(opened.edge, "pixel")
    geometry = plan_geometry(opened.edge, opened.edge, rules, opened.model.multiple_px)
    caption = opened.model.encode_prompts([PROMPT])[PROMPT]
    return caption | opened.model.family.row_conditioning(geometry, latents, seed=0)


def times_of(model: BaseModel, timestep: Tensor) -> Tensor:
    """A pipeline's timestep as `predict` takes it."""
    is_flow = noise_schedule(model.noise_scheduler()).is_flow
    return (timestep / 1000 if is_flow else timestep).reshape(1)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_cached_conditioning_draws_what_the_stock_pipeline_draws(opened: Opened, guidance: float) -> None:
    pipeline = opened.model.pipeline(opened.model.load_denoiser(), opened.model.load_vae())
    expected, image = stock_images(opened, guidance)[0], our_image(opened, pipeline, guidance)
    assert image.size == (opened.edge, opened.edge)
    assert np.ptp(np.asarray(image)) > 8, "an empty image proves nothing"
    assert np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16)).max() <= 1


def test_predict_equals_the_denoisers_output_inside_the_stock_pipeline(opened: Opened) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    pipeline = stock_pipeline(opened.model)
    step = pipeline.scheduler.step

    def captured(output: Tensor, timestep: Tensor, sample: Tensor, *arguments, **options):
        calls.append((output.clone(), timestep.clone(), sample.clone()))
        return step(output, timestep, sample, *arguments, **options)

    pipeline.scheduler.step = captured
    # Schedulers of DDPM's kind scale what the denoiser sees; those whose own input differs draw first.
    scale = getattr(pipeline.scheduler, "scale_model_input", lambda sample, timestep: sample)
    seen: list[Tensor] = []

    def scaled(sample: Tensor, timestep: Tensor) -> Tensor:
        seen.append(scale(sample, timestep).clone())
        return seen[-1]

    pipeline.scheduler.scale_model_input = scaled
    size = {"width": opened.edge, "height": opened.edge}
    generator = torch.Generator().manual_seed(5)
    pipeline(PROMPT, **size, num_inference_steps=2, guidance_scale=opened.case.guidance, generator=generator)
    assert len(calls) == 2
    denoiser = opened.model.load_denoiser()
    for number, (output, timestep, sample) in enumerate(calls):
        noisy = opened.case.unpack(seen[number] if seen else sample, opened.edge, opened.edge)
        expected = opened.case.unpack(output, opened.edge, opened.edge)
        conditioning = stack_conditioning([row_conditioning(opened, noisy[0])])
        with torch.no_grad():
            prediction = opened.model.family.predict(
                denoiser, noisy, times_of(opened.model, timestep), conditioning
            )
        assert prediction.shape == noisy.shape
        torch.testing.assert_close(prediction, expected[:, : prediction.shape[1]], rtol=1e-4, atol=1e-5)
        assert prediction.std() > 1e-4, "a prediction of zeros proves nothing"


def test_encoding_inverts_the_scale_of_the_stock_pipelines_decoding(opened: Opened) -> None:
    if opened.model.family.vae_part is None:
        pytest.skip("a model of pixels has no autoencoder")
    decoded: list[Tensor] = []
    pipeline = stock_pipeline(opened.model)
    decode = pipeline.vae.decode

    def captured(latents: Tensor, *arguments, **options):
        decoded.append(latents.clone())
        return decode(latents, *arguments, **options)

    pipeline.vae.decode = captured
    settings = {"width": opened.edge, "height": opened.edge, "num_inference_steps": 1}
    for output_type in ("latent", "pil"):
        generator = torch.Generator().manual_seed(5)
        images = pipeline(PROMPT, **settings, generator=generator, output_type=output_type).images
        if output_type == "latent":
            latents = opened.case.unpack(images, opened.edge, opened.edge)
    vae = opened.model.load_vae()
    pixels = torch.rand(1, 3, opened.edge, opened.edge) * 2 - 1
    assert opened.model.family.encode_image(vae, pixels).shape == latents.shape
    vae.encode = lambda pixels: SimpleNamespace(
        latent_dist=SimpleNamespace(mode=lambda: decoded[0]), latent=decoded[0]
    )
    torch.testing.assert_close(opened.model.family.encode_image(vae, pixels), latents, rtol=1e-4, atol=1e-5)


class Trained(NamedTuple):
    """A finished run, its photo, and references to the text encoders that were alive at its first step."""

    run_dir: Path
    photos: Path
    living_encoders: list[nn.Module]


@pytest.fixture(scope="module")
def trained(opened: Opened, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of 30 steps on one photo, by the real job, with nothing cached."""
    folder = tmp_path_factory.mktemp("trained")
    photos = draw_photos(folder / "photos", 1)
    with pytest.MonkeyPatch.context() as patch:
        living = _watch_encoders(patch)
        run(opened, folder / "runs" / "first", photos)
    return Trained(folder / "runs" / "first", photos, living)


def _watch_encoders(patch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Fills a list with the parts of text encoders that are there when the first step begins."""
    loaded: list[Callable[[], nn.Module | None]] = []
    living: list[nn.Module] = []
    load, call = BaseModel.load_text_encoders, TrainingStep.__call__

    def watched_load(model: BaseModel) -> Any:
        pipeline = load(model)
        parts = [getattr(pipeline, name) for name in model.family.text_parts]
        modules = [part for part in parts if isinstance(part, nn.Module)]
        assert modules, "no text encoder was loaded"
        loaded.extend(weakref.ref(module) for part in modules for module in part.modules())
        return pipeline

    def watched_call(step: TrainingStep, *arguments):
        gc.collect()
        assert loaded, "the prompts were cached before"
        living.extend(module for reference in loaded if (module := reference()) is not None)
        return call(step, *arguments)

    patch.setattr(BaseModel, "load_text_encoders", watched_load)
    patch.setattr(TrainingStep, "__call__", watched_call)
    return living


def run(opened: Opened, run_dir: Path, photos: Path, **settings: Any) -> None:
    """Train in this process, in the workspace that the run lies in."""
    run_dir.mkdir(parents=True)
    save_datasets(subject_datasets(photos, PROMPT, opened.edge), run_dir / "multidatabackend.json")
    run_config(opened.case, opened.model.folder, **settings).save(run_dir / "config.json")
    train_here(run_dir)


def losses(run_dir: Path) -> list[float]:
    return [event["loss"] for event in events_of(run_dir, "loss")]


def fixed_loss(opened: Opened, photo: Path, adapter: Path | None) -> float:
    """The loss at fixed noise and timesteps, with an adapter as the stock loader loads it."""
    model = opened.model
    pipeline = model.pipeline(model.load_denoiser(), model.load_vae())
    if adapter is not None:
        load_into_pipeline(pipeline, adapter)
    picture = Image.open(photo).convert("RGB").resize((opened.edge, opened.edge))
    latents = model.family.encode_image(model.load_vae(), pixels_of(picture)[None])
    schedule = noise_schedule(model.noise_scheduler())
    timesteps = torch.linspace(0.05, 0.95, 8).mul(schedule.num_timesteps).long()
    latents = latents.expand(8, -1, -1, -1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    levels = schedule.alphas[timesteps], schedule.sigmas[timesteps]
    target = training_target(latents, noise, *levels, schedule.prediction_type)
    conditioning = stack_conditioning([row_conditioning(opened, latents[0])] * 8)
    denoiser = getattr(pipeline, model.family.denoiser_part).eval()
    with torch.no_grad():
        prediction = model.family.predict(
            denoiser,
            schedule.add_noise(latents, noise, timesteps),
            schedule.model_timesteps(timesteps),
            conditioning,
        )
    return per_sample_loss(prediction, target).mean().item()


def test_thirty_steps_on_a_photo_reduce_its_loss(opened: Opened, trained: Trained) -> None:
    assert events_of(trained.run_dir, "done"), "the adapter was loaded again and drew what was trained"
    photo = list_photos(trained.photos)[0]
    before = fixed_loss(opened, photo, None)
    assert fixed_loss(opened, photo, trained.run_dir / "adapter") < 0.97 * before


def test_stock_loader_keeps_rank_and_alpha(opened: Opened, trained: Trained) -> None:
    pipeline = stock_pipeline(opened.model)
    pipeline.load_lora_weights(trained.run_dir / "adapter")
    (loaded,) = getattr(pipeline, opened.model.family.denoiser_part).peft_config.values()
    assert (loaded.r, loaded.lora_alpha) == (8, 4)


def test_text_encoders_are_gone_when_training_starts(trained: Trained) -> None:
    assert trained.living_encoders == []


def test_cached_latents_and_embeddings_give_the_same_losses(opened: Opened, trained: Trained) -> None:
    again = trained.run_dir.with_name("again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "load_text_encoders", lambda model: pytest.fail("all is cached"))
        run(opened, again, trained.photos, max_train_steps=3, validation_disable=True)
    assert losses(again)[:2] == losses(trained.run_dir)[:2]
