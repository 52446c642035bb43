"""The formats that trained weights can be written in; free of torch, for both processes."""

from typing import Literal, get_args

from dreamspace.config.families import FamilyName
from dreamspace.config.run import RunConfig

ExportFormat = Literal["diffusers", "kohya", "lycoris", "merged"]

MODELSPEC_ARCHITECTURES: dict[FamilyName, str] = {
    "sd1x": "stable-diffusion-v1",
    "sd2x": "stable-diffusion-v2",
    "sdxl": "stable-diffusion-xl-v1-base",
}
"""The families whose LoRA has a kohya form, by the names of https://github.com/Stability-AI/ModelSpec."""


def kind_of_weights(config: RunConfig) -> Literal["lora", "lycoris", "full"]:
    """What a run trains."""
    if config.model_type == "full":
        return "full"
    return "lycoris" if config.lora_type == "lycoris" else "lora"


def formats(config: RunConfig) -> list[ExportFormat]:
    """The formats of what a run trains; the first is that of its own files."""
    kind = kind_of_weights(config)
    if kind == "full":
        return ["diffusers", "merged"]
    if kind == "lycoris":
        # LyCORIS merges some decomposed weights otherwise than it applies them.
        is_decomposed = config.lycoris_config is not None and config.lycoris_config.decomposes
        return ["lycoris"] if is_decomposed else ["lycoris", "merged"]
    # kohya's form of a DoRA has its magnitudes in another shape than diffusers reads them in.
    has_kohya = config.model_family in MODELSPEC_ARCHITECTURES and not config.use_dora
    return ["diffusers", "kohya", "merged"] if has_kohya else ["diffusers", "merged"]


def check_format(wanted: str, config: RunConfig) -> None:
    """Whether what a run trains has a form.

    Raises:
        ValueError: if it has none, with those that it has.
    """
    known = get_args(ExportFormat)
    if wanted not in known:
        raise ValueError(f"There is no format '{wanted}'. Choose one of {', '.join(known)}.")
    offered = formats(config)
    if wanted not in offered:
        kind = "full model" if config.model_type == "full" else f"{config.lora_type} adapter"
        raise ValueError(
            f"A {kind} of family {config.model_family} has no form '{wanted}'. Choose {' or '.join(offered)}."
        )
