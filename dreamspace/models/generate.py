"""The `generate` job: images from a run, a checkpoint of it, or an adapter."""

from pathlib import Path
from typing import Any

import torch

from dreamspace.config import RunConfig, load_datasets
from dreamspace.data.geometry import edge_px
from dreamspace.files import replace_file
from dreamspace.jobs.control import consume_control
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.adapters import WEIGHTS_NAME
from dreamspace.models.base import open_model
from dreamspace.models.previews import load_tiny_vae
from dreamspace.models.sampling import SamplingSettings, sample_images


def generate(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Draw an image of each prompt, with previews; all from the same seed.

    Args:
        arguments: `prompts` (list), `seed`; `run_dir` (and `checkpoint`, a step, or null for the final adapter),
            or `model` and `adapter`; `num_inference_steps` and `guidance` (null takes the run's); `out`, a
            folder for the images (null takes `images/` in the job folder).

    Raises:
        ValueError: if there is no such adapter, or it belongs to another model.
    """
    config, adapter, resolution_px = _subject(arguments)
    model = open_model(config.pretrained_model_name_or_path, config.model_family, cache_of(job_dir))
    resolution_px = resolution_px or model.family.native_resolution_px(model.folder)
    settings = SamplingSettings(
        resolution_px,
        resolution_px,
        arguments.get("num_inference_steps") or config.validation_num_inference_steps,
        config.validation_guidance if arguments.get("guidance") is None else arguments["guidance"],
        config.validation_preview_steps,
    )
    prompts, seed = arguments["prompts"], arguments["seed"]
    conditioning = model.encode_prompts([*prompts, config.validation_negative_prompt])
    events.write("stage", name="loading", message="Loading the model and the adapter.")
    denoiser = model.family.load_denoiser(model.folder, model.device, torch.float32)
    pipeline = model.family.pipeline(
        model.folder, denoiser, model.family.load_vae(model.folder, model.device)
    )
    if adapter is not None:
        pipeline.load_lora_weights(adapter)
    tiny_vae = load_tiny_vae(model.folder, model.device)
    out = Path(arguments.get("out") or job_dir / "images")
    events.write("stage", name="generating", message="Drawing.")
    for index, prompt in enumerate(prompts):
        if consume_control(job_dir, "stop"):
            events.write("stopped", step=index, path=out)
            return

        def announce(_: int, inference_step: int, picture, index=index, prompt=prompt) -> None:
            path = job_dir / "previews" / f"{index}-{inference_step:03d}.png"
            with replace_file(path) as temporary:
                picture.save(temporary)
            events.write(
                "preview",
                step=None,
                prompt=prompt,
                index=index,
                inference_step=inference_step,
                num_inference_steps=settings.num_inference_steps,
                path=path.relative_to(job_dir),
            )

        image = sample_images(
            model.family,
            pipeline,
            [conditioning[prompt]],
            conditioning[config.validation_negative_prompt],
            [seed],
            settings,
            tiny_vae,
            announce,
        )[0]
        path = out / f"{index}.png"
        with replace_file(path) as temporary:
            image.save(temporary)
        shown = path.relative_to(job_dir) if path.is_relative_to(job_dir) else path
        weights = "base" if adapter is None else "trained"
        events.write(
            "sample", step=arguments.get("checkpoint"), prompt=prompt, seed=seed, path=shown, weights=weights
        )
    events.write("done", step=None, path=out)


def _subject(arguments: dict[str, Any]) -> tuple[RunConfig, Path | None, int | None]:
    """The configuration to draw with, the adapter's folder, and the resolution in px where a run decides it."""
    if not arguments.get("run_dir"):
        config = RunConfig(pretrained_model_name_or_path=arguments["model"])
        adapter = Path(arguments["adapter"]) if arguments.get("adapter") else None
        resolution_px = None
    else:
        run_dir, step = Path(arguments["run_dir"]), arguments.get("checkpoint")
        config = RunConfig.load(run_dir / "config.json")
        adapter = run_dir / "adapter" if step is None else run_dir / "checkpoints" / f"step-{step:06d}"
        dataset = load_datasets(run_dir / "multidatabackend.json")[0]
        resolution_px = edge_px(dataset.resolution, dataset.resolution_type, 1)
    if adapter is not None and not (adapter / WEIGHTS_NAME).is_file():
        raise ValueError(
            f"There is no adapter in {adapter}: it holds no {WEIGHTS_NAME}. Train the run to its end first."
        )
    return config, adapter, resolution_px
