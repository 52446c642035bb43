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
from safetensors import safe_open
from tiny_runs import draw_photos, events_of, train_here
from torch import Tensor, nn

from dreamspace.config import RunConfig, read_datasets, save_datasets, subject_datasets
from dreamspace.config.exports import formats
from dreamspace.data.cache import pixels_of
from dreamspace.data.geometry import GeometryRules, plan_geometry
from dreamspace.data.photos import list_photos
from dreamspace.hub.kohya import kohya_file
from dreamspace.jobs.events import EventWriter
from dreamspace.models.adapters import load_into_pipeline, new_adapter
from dreamspace.models.base import BaseModel, open_model
from dreamspace.models.family import (
    Conditioning,
    PictureFamily,
    num_trained_timesteps,
    stack_conditioning,
)
from dreamspace.models.generate import generate
from dreamspace.models.offloading import blocks
from dreamspace.models.preview_choice import new_previewer
from dreamspace.models.previews import Previewer, unpacked
from dreamspace.models.sampling import SamplingSettings, sample_images
from dreamspace.models.tlora import ActiveRanks
from dreamspace.run_folder import WEIGHTS_NAME, step_name
from dreamspace.training.loop import TrainingStep
from dreamspace.training.objective import per_sample_loss, training_target
from dreamspace.training.proof import grey_levels_apart
from dreamspace.training.schedule import noise_schedule
from families.cases import CASES, Case, picture_px

PROMPT = "a photo of a sks dog"
PROMPTS = [PROMPT, "a dog", ""]
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


def stock_pipeline(opened: Opened) -> Any:
    """The pipeline as a user of diffusers loads it."""
    absent = dict.fromkeys(opened.case.absent_parts)
    pipeline = opened.model.family.pipeline_class.from_pretrained(opened.model.folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_images(opened: Opened, guidance: float, **options: Any) -> Any:
    return stock_pipeline(opened)(
        prompt=PROMPT,
        **opened.case.arguments(opened.edge),
        num_inference_steps=opened.case.two_steps,
        **opened.case.guided(guidance),
        generator=torch.Generator().manual_seed(5),
        **options,
    ).images


def our_images(opened: Opened, pipeline: Any, guidance: float, prompts: list[str]) -> list[Image.Image]:
    model, settings = opened.model, SamplingSettings(opened.edge, opened.edge, 2, guidance)
    conditioning = model.encode_prompts([*prompts, ""])
    rows = [conditioning[prompt] for prompt in prompts]
    if isinstance(model.family, PictureFamily):
        rows = [row | {"picture": pixels_of(picture_px(opened.edge))} for row in rows]
    return sample_images(model.family, pipeline, rows, conditioning[""], [5] * len(rows), settings)


def row_conditioning(opened: Opened, latents: Tensor, prompt: str = PROMPT) -> Conditioning:
    """Of a picture that fills its photo, as pipelines draw them."""
    rules = GeometryRules(opened.edge, "pixel")
    geometry = plan_geometry(opened.edge, opened.edge, rules, opened.model.multiple_px)
    caption = opened.model.encode_prompts([prompt])[prompt]
    return caption | opened.model.family.row_conditioning(geometry, latents, seed=0)


def times_of(model: BaseModel, timestep: Tensor) -> Tensor:
    """A pipeline's timestep as `predict` takes it."""
    is_flow = noise_schedule(model.noise_scheduler()).is_flow
    return (timestep / 1000 if is_flow else timestep).reshape(1)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_cached_conditioning_draws_what_the_stock_pipeline_draws(opened: Opened, guidance: float) -> None:
    pipeline = opened.model.pipeline(opened.model.load_denoiser(), opened.model.load_vae())
    expected, (image,) = stock_images(opened, guidance)[0], our_images(opened, pipeline, guidance, [PROMPT])
    assert image.size == (opened.edge, opened.edge)
    assert np.ptp(np.asarray(image)) > 8, "an empty image proves nothing"
    assert np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16)).max() <= 1


def test_images_of_one_batch_are_those_that_are_drawn_alone(opened: Opened) -> None:
    pipeline = opened.model.pipeline(opened.model.load_denoiser(), opened.model.load_vae())
    together = our_images(opened, pipeline, 4.0, PROMPTS)
    for prompt, image in zip(PROMPTS, together, strict=True):
        (alone,) = our_images(opened, pipeline, 4.0, [prompt])
        assert np.abs(np.asarray(image, np.int16) - np.asarray(alone, np.int16)).max() <= 1
    assert grey_levels_apart(*together[:2]) > 0.5, "prompts that make no difference prove nothing"


def test_rows_of_one_batch_are_predicted_as_they_are_alone(opened: Opened) -> None:
    model = opened.model
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(len(PROMPTS), 3, opened.edge, opened.edge, generator=generator) * 2 - 1
    latents = model.family.encode_image(model.load_vae(), pixels)
    rows = [row_conditioning(opened, row, prompt) for row, prompt in zip(latents, PROMPTS, strict=True)]
    times = noise_schedule(model.noise_scheduler()).model_timesteps(torch.tensor([100, 500, 900]))
    denoiser = model.load_denoiser()
    with torch.no_grad():
        together = model.family.predict(denoiser, latents, times, stack_conditioning(rows))
        for number in range(len(PROMPTS)):
            one, conditioning = slice(number, number + 1), stack_conditioning([rows[number]])
            alone = model.family.predict(denoiser, latents[one], times[one], conditioning)
            torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_denoiser_is_told_of_noise_what_its_family_says(opened: Opened) -> None:
    model, denoiser = opened.model, opened.model.load_denoiser()
    schedule = noise_schedule(model.noise_scheduler())
    latents = model.family.encode_image(model.load_vae(), torch.rand(2, 3, opened.edge, opened.edge))
    conditioning = stack_conditioning([row_conditioning(opened, row) for row in latents])
    shares = torch.tensor([0.25, 0.999]) if schedule.is_flow else torch.tensor([250, 999])
    ranks = ActiveRanks(min_rank=1, exponent=1.0)
    ranks.follow(denoiser, model.family)
    model.family.predict(denoiser, latents, shares, conditioning)
    assert ranks.mask(5).sum(dim=1).tolist() == [4, 1]


def test_predict_equals_the_denoisers_output_inside_the_stock_pipeline(opened: Opened) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    pipeline = stock_pipeline(opened)
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
    pipeline(
        prompt=PROMPT,
        **opened.case.arguments(opened.edge),
        num_inference_steps=opened.case.two_steps,
        **opened.case.guided(opened.case.guidance),
        generator=torch.Generator().manual_seed(5),
    )
    assert len(calls) == 2
    denoiser = opened.model.load_denoiser()
    for number, (output, timestep, sample) in enumerate(calls):
        noisy = opened.case.unpack(seen[number] if seen else sample, opened.edge, opened.edge)
        expected = opened.case.unpack(output, opened.edge, opened.edge)
        seen_conditioning = opened.case.seen_conditioning(seen[number] if seen else sample)
        conditioning = stack_conditioning([row_conditioning(opened, noisy[0]) | seen_conditioning])
        with torch.no_grad():
            prediction = opened.model.family.predict(
                denoiser, noisy, times_of(opened.model, timestep), conditioning
            )
        assert prediction.shape == noisy.shape
        torch.testing.assert_close(prediction, expected[:, : prediction.shape[1]], rtol=1e-4, atol=1e-5)
        assert prediction.std() > 1e-4, "a prediction of zeros proves nothing"


def test_adapter_learns_the_same_above_offloaded_blocks(opened: Opened) -> None:
    found = []
    for is_offloaded in (False, True):
        settings = {"gradient_checkpointing": True, "enable_group_offload": is_offloaded}
        config = run_config(opened.case, opened.model.folder, **settings)
        model = open_model(config, opened.model.cache, torch.device("cpu"))
        adapter = new_adapter(config, model)
        generator = torch.Generator().manual_seed(0)
        for parameter in adapter.parameters:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        adapter.denoiser.train().enable_gradient_checkpointing()
        pixels = torch.rand(1, 3, opened.edge, opened.edge, generator=generator) * 2 - 1
        latents = model.family.encode_image(model.load_vae(), pixels)
        times = noise_schedule(model.noise_scheduler()).model_timesteps(torch.tensor([500]))
        conditioning = stack_conditioning([row_conditioning(opened, latents[0])])
        prediction = model.family.predict(adapter.denoiser, latents, times, conditioning)
        prediction.square().mean().backward()
        found.append((prediction.detach(), [parameter.grad for parameter in adapter.parameters]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-6)
    inside = {weight for block in blocks(adapter.denoiser) for weight in block.parameters()}
    assert inside, "no block was found"
    assert next(adapter.denoiser.parameters()) not in inside, "by which pipelines tell the device"


def test_attention_is_torchs_own(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all layers that attend by a softmax; half of Sana's are linear in their length."""
    model, sdpa = opened.model, torch.nn.functional.scaled_dot_product_attention
    calls: list[torch.Size] = []

    def watched(query: Tensor, *arguments, **options) -> Tensor:
        calls.append(query.shape)
        return sdpa(query, *arguments, **options)

    def by_hand(*arguments, **options) -> Tensor:
        pytest.fail("a softmax outside of scaled_dot_product_attention")

    pixels = torch.rand(1, 3, opened.edge, opened.edge) * 2 - 1
    latents = model.family.encode_image(model.load_vae(), pixels)
    conditioning = stack_conditioning([row_conditioning(opened, latents[0])])
    times = noise_schedule(model.noise_scheduler()).model_timesteps(torch.tensor([500]))
    denoiser = model.load_denoiser()
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(Tensor, "softmax", by_hand)
    monkeypatch.setattr(torch.nn.functional, "softmax", by_hand)
    with torch.no_grad():
        model.family.predict(denoiser, latents, times, conditioning)
    assert calls


def test_encoding_inverts_the_scale_of_the_stock_pipelines_decoding(opened: Opened) -> None:
    if opened.model.family.vae_part is None:
        pytest.skip("a model of pixels has no autoencoder")
    drawn: list[Tensor] = []
    decoded: list[Tensor] = []
    pipeline = stock_pipeline(opened)
    step, decode = pipeline.scheduler.step, pipeline.vae.decode

    def captured_step(*arguments, **options):
        output = step(*arguments, **options)
        drawn.append(output[0].clone())
        return output

    def captured(latents: Tensor, *arguments, **options):
        decoded.append(latents.clone())
        return decode(latents, *arguments, **options)

    pipeline.scheduler.step, pipeline.vae.decode = captured_step, captured
    settings = opened.case.arguments(opened.edge) | {"num_inference_steps": opened.case.two_steps}
    pipeline(prompt=PROMPT, **settings, generator=torch.Generator().manual_seed(5))
    latents = opened.case.unpack(drawn[-1], opened.edge, opened.edge)
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
    (folder / "cache").mkdir()  # else that of all tests, in which the prompts may be cached
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

    def watched_call(step: TrainingStep, number: int, *arguments):
        if number == 0:
            gc.collect()
            assert loaded, "the prompts were cached before"
            living.extend(module for reference in loaded if (module := reference()) is not None)
        return call(step, number, *arguments)

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
        load_into_pipeline(pipeline, model.family, adapter)
    picture = Image.open(photo).convert("RGB").resize((opened.edge, opened.edge))
    latents = model.family.encode_image(model.load_vae(), pixels_of(picture)[None])
    schedule = noise_schedule(model.noise_scheduler())
    num_timesteps = num_trained_timesteps(model.family, schedule.num_timesteps)
    timesteps = torch.linspace(0.05, 0.95, 8).mul(num_timesteps).long()
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
    pipeline = stock_pipeline(opened)
    pipeline.load_lora_weights(trained.run_dir / "adapter")
    (loaded,) = getattr(pipeline, opened.model.family.denoiser_part).peft_config.values()
    assert (loaded.r, loaded.lora_alpha) == (8, 4)


def test_file_for_other_programs_loads_in_stock_diffusers_and_draws_the_same(
    opened: Opened, trained: Trained, tmp_path: Path
) -> None:
    config = RunConfig.load(trained.run_dir / "config.json")
    assert ("kohya" in formats(config)) == bool(opened.case.architecture)
    if not opened.case.architecture:
        pytest.skip("these programs do not know the family")
    datasets = read_datasets(trained.run_dir / "multidatabackend.json")
    file = tmp_path / "subject.safetensors"
    file.write_bytes(kohya_file(trained.run_dir / "adapter" / WEIGHTS_NAME, config, datasets))

    def drawn(folder: Path, name: str) -> np.ndarray:
        pipeline = opened.model.pipeline(opened.model.load_denoiser(), opened.model.load_vae())
        pipeline.load_lora_weights(folder, weight_name=name)
        return np.asarray(our_images(opened, pipeline, 1.0, [PROMPT])[0], np.int16)

    assert np.abs(drawn(tmp_path, file.name) - drawn(trained.run_dir / "adapter", WEIGHTS_NAME)).max() <= 1
    with safe_open(file, "numpy") as opened_file:
        metadata, names = opened_file.metadata(), set(opened_file.keys())
    assert metadata["modelspec.architecture"] == f"{opened.case.architecture}/lora"
    assert metadata["modelspec.trigger_phrase"] == PROMPT
    # By these A1111 lists a file for SDXL and for Stable Diffusion 2 alone.
    assert metadata["ss_base_model_version"].startswith("sdxl_") == (opened.case.family == "sdxl")
    assert (metadata.get("ss_v2") == "True") == (opened.case.family == "sd2x")
    assert not any(value.startswith(("/", "~")) for value in metadata.values()), "no path of this machine"
    prefix = {"unet": "lora_unet_", "transformer": "transformer."}[opened.model.family.denoiser_part]
    assert all(name.startswith(prefix) for name in names)


def test_generating_draws_the_last_validation_image_again(opened: Opened, trained: Trained) -> None:
    job_dir = trained.run_dir.parents[1] / "jobs" / "generate"
    job_dir.mkdir(parents=True)
    arguments = {"run_dir": str(trained.run_dir), "prompts": [PROMPT], "seed": 42}
    generate(job_dir, arguments, EventWriter(job_dir))
    validation = trained.run_dir / "validation"
    image = Image.open(job_dir / "images" / "0.png")
    assert grey_levels_apart(image, Image.open(validation / step_name(NUM_STEPS) / "0.png")) < 0.1
    assert grey_levels_apart(image, Image.open(validation / step_name(0) / "0.png")) > 0.5


def test_pixels_are_their_own_previews(opened: Opened, trained: Trained, tmp_path: Path) -> None:
    if opened.model.family.vae_part is not None:
        pytest.skip("latents are shown by a tiny decoder")
    previews = [event for event in events_of(trained.run_dir, "preview") if event["step"] == NUM_STEPS]
    assert [preview["inference_step"] for preview in previews] == [2], "the last step has one"
    image = Image.open(trained.run_dir / "validation" / step_name(NUM_STEPS) / "0.png")
    image.save(tmp_path / "compressed.jpg", quality=90)
    shown = Image.open(trained.run_dir / previews[0]["path"])
    assert grey_levels_apart(shown, Image.open(tmp_path / "compressed.jpg")) < 0.5


def test_distilled_model_is_warned_of(opened: Opened, trained: Trained) -> None:
    warnings = [event for event in events_of(trained.run_dir, "warning") if "distilled" in event["message"]]
    expected = opened.case.distilled_hints
    assert len(warnings) == len(expected)
    for warning, hint in zip(warnings, expected, strict=True):
        assert warning["hint"].startswith(hint)
        assert "set validation_num_inference_steps to" in warning["hint"], "it is drawn otherwise here"


def test_text_encoders_are_gone_when_training_starts(trained: Trained) -> None:
    assert trained.living_encoders == []


def test_cached_latents_and_embeddings_give_the_same_losses(opened: Opened, trained: Trained) -> None:
    again = trained.run_dir.with_name("again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseModel, "load_text_encoders", lambda model: pytest.fail("all is cached"))
        run(opened, again, trained.photos, max_train_steps=3, validation_disable=True)
    assert losses(again)[:2] == losses(trained.run_dir)[:2]


def test_previews_show_the_pipelines_latents_unpacked(opened: Opened, tmp_path: Path) -> None:
    """Against what the stock pipeline's own unpacking makes of them, on pictures that are not square."""
    model = opened.model
    seen: list[tuple[Tensor, Tensor]] = []
    sizes: list[tuple[int, tuple[int, int]]] = []
    width = opened.edge if isinstance(model.family, PictureFamily) else 2 * opened.edge
    settings = SamplingSettings(width, opened.edge, 2, 1.0, preview_every=1)

    class Recording(Previewer):
        def pictures(self, latents: Tensor, *arguments: Any) -> Any:
            seen.append((latents, unpacked(self.family, latents, settings)))
            return super().pictures(latents, *arguments)

    plain = new_previewer(model, EventWriter(tmp_path))
    conditioning = model.encode_prompts([PROMPT, "a dog"])
    rows = [conditioning[PROMPT], conditioning["a dog"]]
    if isinstance(model.family, PictureFamily):
        rows = [row | {"picture": pixels_of(picture_px(opened.edge))} for row in rows]
    sample_images(
        model.family,
        model.pipeline(model.load_denoiser(), model.load_vae()),
        rows,
        conditioning["a dog"],
        [1, 2],
        settings,
        Recording(model.family, plain.tiny, plain.linear),
        lambda row, step, picture: sizes.append((row, picture.size)),
    )
    assert sizes == 2 * [(0, (width, opened.edge)), (1, (width, opened.edge))]
    for packed, ours in seen:
        expected = packed if packed.ndim == 4 else opened.case.unpack(packed, opened.edge, width)
        torch.testing.assert_close(ours, expected.reshape(ours.shape))
        if model.family.vae_part is not None:
            pixels = torch.zeros(1, 3, opened.edge, width)
            assert ours.shape[1:] == model.family.encode_image(model.load_vae(), pixels).shape[1:]
    assert events_of(tmp_path, "warning") == []
