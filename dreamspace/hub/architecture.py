"""What kind of model an adapter is for, by the names that other programs know it by; without torch."""

from typing import Any

from dreamspace.config import RunConfig
from dreamspace.files import read_json
from dreamspace.hub.base_model import local_file


def architecture(config: RunConfig) -> str:
    """The `modelspec.architecture` of a run's base model, of a family with a kohya form.

    Those of Stable Diffusion are the standard's (https://github.com/Stability-AI/ModelSpec), the others those
    that kohya's sd-scripts and musubi-tuner write. What a family leaves open is read from the model's own
    small files, where they are on this machine.
    """
    name = config.pretrained_model_name_or_path
    match config.model_family:
        case "sd1x":
            return "stable-diffusion-v1"
        case "sd2x":
            scheduler = _base_file(name, "scheduler/scheduler_config.json")
            is_epsilon = scheduler.get("prediction_type") == "epsilon"
            return "stable-diffusion-v2-512" if is_epsilon else "stable-diffusion-v2-768-v"
        case "sdxl":
            pipeline = _base_file(name, "model_index.json").get("_class_name")
            is_refiner = pipeline == "StableDiffusionXLImg2ImgPipeline"
            return "stable-diffusion-xl-v1-refiner" if is_refiner else "stable-diffusion-xl-v1-base"
        case "sd3":
            denoiser = _base_file(name, "transformer/config.json")
            is_medium_3_5 = bool(denoiser.get("dual_attention_layers"))
            size = "5-large" if denoiser.get("num_layers") == 38 else "5-medium" if is_medium_3_5 else "m"
            return f"stable-diffusion-3-{size}"
        case "flux":
            denoiser = _base_file(name, "transformer/config.json")
            return "flux-1-dev" if denoiser.get("guidance_embeds") else "flux-1-schnell"
        case "flux2":
            denoiser = _base_file(name, "transformer/config.json")
            return "Flux.2-klein-9b" if denoiser.get("num_attention_heads") == 32 else "Flux.2-klein-4b"
        case "z_image":
            return "Z-Image"
        case "qwen_image":
            return "Qwen-Image"
    raise AssertionError(config.model_family)


def _base_file(name: str, path: str) -> dict[str, Any]:
    """A JSON file of a base model; empty where it is not on this machine."""
    file = local_file(name, path)
    return {} if file is None else read_json(file)
