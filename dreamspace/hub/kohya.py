"""A LoRA as one file under kohya's names, for ComfyUI and A1111; made without torch, in the app too."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from dreamspace.config import RunConfig, is_hub_id
from dreamspace.config.exports import MODELSPEC_ARCHITECTURES

_PARTS = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}


def kohya_file(file: Path, config: RunConfig, prompt: str) -> bytes:
    """The content of the file for the adapter in `file`.

    Its metadata tells base, rank, alpha and instance prompt; no path and no name of a person.

    Args:
        config: of a run with a LoRA of a family in `MODELSPEC_ARCHITECTURES`.
        prompt: that calls the subject.
    """
    with safe_open(file, framework="numpy") as tensors:
        settings = json.loads(tensors.metadata()["lora_adapter_metadata"])
    rank, alpha = settings["unet.r"], settings["unet.lora_alpha"]
    weights = {}
    for name, weight in load_file(file).items():
        layer, _, part = name.removeprefix("unet.").partition(".lora_")
        layer = f"lora_unet_{layer.replace('.', '_')}"
        weights[f"{layer}.{_PARTS[f'lora_{part}']}"] = weight
        weights[f"{layer}.alpha"] = np.array(alpha, np.float32)
    base = config.pretrained_model_name_or_path
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{MODELSPEC_ARCHITECTURES[config.model_family]}/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": prompt,
        "modelspec.trigger_phrase": prompt,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
        "ss_base_model_version": config.model_family,
        "ss_sd_model_name": base if base == "mini" or is_hub_id(base) else "",
    }
    return save(weights, metadata)
