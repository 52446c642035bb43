"""A LoRA as the one file that ComfyUI, A1111 and Forge read; made without torch, in the app too.

UNets go by kohya's names. For transformers these programs read diffusers' own names, but not the metadata
that hold diffusers' alpha, and diffusers' loaders do not agree on another place for it: so alpha / rank is
multiplied into the weights.
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from dreamspace.config import DatasetConfig, RunConfig, is_hub_id, subject_dataset, subject_prompt
from dreamspace.hub.architecture import architecture

_VERSIONS = {
    "stable-diffusion-v1": "sd_v1",
    "stable-diffusion-xl-v1-base": "sdxl_base_v1-0",
    "stable-diffusion-xl-v1-refiner": "sdxl_refiner_v1-0",
    "flux-1-dev": "flux1",
    "flux-1-schnell": "flux1",
}
"""kohya's own names of base models, by their architecture."""

_PARTS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}

Weights = dict[str, np.ndarray]


def kohya_file(file: Path, config: RunConfig, datasets: list[DatasetConfig]) -> bytes:
    """The content of the file for the adapter in `file`.

    Its metadata tells base, rank, alpha and instance prompt; no path and no name of a person.

    Args:
        config: of a run with a LoRA of a family in `KOHYA_FAMILIES`.
        datasets: of the run.
    """
    with safe_open(file, framework="numpy") as opened:
        settings = json.loads(opened.metadata()["lora_adapter_metadata"])
    part = "unet" if "unet.r" in settings else "transformer"
    rank, alpha = settings[f"{part}.r"], settings[f"{part}.lora_alpha"]
    weights = load_file(file)
    if part == "unet":
        weights = _kohya_names(weights, alpha)
    else:
        weights, alpha = _scaled(weights, alpha / rank), rank
    prompt, base = subject_prompt(config, datasets), config.pretrained_model_name_or_path
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture(config)}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": prompt,
        "modelspec.resolution": _resolution(subject_dataset(datasets)),
        "modelspec.trigger_phrase": prompt,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        **_version(architecture(config)),
        "ss_sd_model_name": base if base == "mini" or is_hub_id(base) else "",
    }
    return save(weights, metadata)


def _version(model: str) -> dict[str, str]:
    """What A1111 tells by whether a file is for the model at hand; it does not list the others.

    Args:
        model: its `modelspec.architecture`.
    """
    if model.startswith("stable-diffusion-v2"):
        is_v = model.endswith("-v")
        return {"ss_base_model_version": "sd_v2_v" if is_v else "sd_v2", "ss_v2": "True"}
    return {"ss_base_model_version": _VERSIONS.get(model, model)}


def _kohya_names(weights: Weights, alpha: float) -> Weights:
    # SDXL's text encoders are told apart; the one of Stable Diffusion has no number.
    several = any(name.startswith("text_encoder_2.") for name in weights)
    models = {"unet": "unet", "text_encoder": "te1" if several else "te", "text_encoder_2": "te2"}
    named = {}
    for name, weight in weights.items():
        layer, _, part = _with_text_model(name).partition(".lora_")
        model, _, layer = layer.partition(".")
        layer = f"lora_{models[model]}_{layer.replace('.', '_')}"
        named[f"{layer}.{_PARTS[f'lora_{part}']}"] = weight
        named[f"{layer}.alpha"] = np.array(alpha, np.float32)
    return named


def _with_text_model(name: str) -> str:
    """A weight's name, in a text encoder with the level that transformers has left out of some since 5.0."""
    part, _, layer = name.partition(".")
    is_flat = part.startswith("text_encoder") and not layer.startswith("text_model.")
    return f"{part}.text_model.{layer}" if is_flat else name


def _scaled(weights: Weights, scale: float) -> Weights:
    """Weights that are meant at alpha = rank."""
    return {
        _with_text_model(name): weight * np.float32(scale) if name.endswith("lora_B.weight") else weight
        for name, weight in weights.items()
    }


def _resolution(dataset: DatasetConfig) -> str:
    """The size of the square that a dataset's pictures are trained at, or are as large as."""
    edge = dataset.resolution
    if dataset.resolution_type == "area":
        edge = 8 * round(math.sqrt(edge * 1e6) / 8)
    return f"{edge:g}x{edge:g}"
