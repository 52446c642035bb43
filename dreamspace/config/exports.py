"""The formats that trained weights can be written in; free of torch, for both processes."""

from typing import Literal, get_args

from dreamspace.config.families import FamilyName
from dreamspace.config.run import RunConfig

ExportFormat = Literal["diffusers", "kohya", "lycoris", "merged"]

KOHYA_FAMILIES: frozenset[FamilyName] = frozenset(
    {"sd1x", "sd2x", "sdxl", "sd3", "flux", "flux2", "z_image", "qwen_image"}
)
"""The families whose LoRA has a form that ComfyUI and its like read; they know no DeepFloyd and no Sana."""


def kind_of_weights(config: RunConfig) -> Literal["lora", "lycoris", "full", "token"]:
    """What a run trains."""
    if config.model_type == "full":
        return "full"
    if config.model_type == "textual_inversion":
        return "token"
    return "lora" if config.lora_type == "standard" else "lycoris"


def formats(config: RunConfig) -> list[ExportFormat]:
    """The formats of what a run trains; the first is that of its own files."""
    kind = kind_of_weights(config)
    if kind in ("full", "token"):
        return ["diffusers", "merged"]
    if kind == "lycoris":
        settings = config.lycoris_config if config.lora_type == "lycoris" else None
        # LyCORIS merges some decomposed weights otherwise than it applies them, and merged weights are the
        # same at every timestep.
        is_mergeable = settings is None or not (settings.decomposes or "tlora" in settings.algos)
        return ["lycoris", "merged"] if is_mergeable else ["lycoris"]
    # A DoRA's magnitudes mean different things: ComfyUI divides by the norm of the base's weights alone,
    # older programs by that of the whole, along the other axis.
    has_kohya = config.model_family in KOHYA_FAMILIES and not config.use_dora
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
        kinds = {"full": "full model", "textual_inversion": "learned token"}
        kind = kinds.get(config.model_type, f"{config.lora_type} adapter")
        raise ValueError(
            f"A {kind} of family {config.model_family} has no form '{wanted}'. Choose {' or '.join(offered)}."
        )
