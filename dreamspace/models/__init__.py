"""Base models: a file for each family, and what all families share."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from dreamspace.config.families import FamilyName
from dreamspace.config.sections import ModelSettings

if TYPE_CHECKING:  # torch stays out of what asks only where a model's files are
    from dreamspace.models.family import Family

MODULES: dict[FamilyName, str] = {
    "sd1x": "dreamspace.models.sd1x",
    "sd2x": "dreamspace.models.sd1x",
    "sdxl": "dreamspace.models.sdxl",
    "sd3": "dreamspace.models.sd3",
    "flux": "dreamspace.models.flux",
    "deepfloyd": "dreamspace.models.deepfloyd",
    "flux2": "dreamspace.models.flux2",
    "z_image": "dreamspace.models.z_image",
    "sana": "dreamspace.models.sana",
    "qwen_image": "dreamspace.models.qwen_image",
}
"""The module of each family, imported when it is asked for; its `family` makes the family of a model."""

PIPELINES: dict[str, tuple[FamilyName, ...]] = {
    "StableDiffusion3Pipeline": ("sd3",),
    "FluxPipeline": ("flux",),
    "StableDiffusionPipeline": ("sd1x", "sd2x"),
    "StableDiffusionXLPipeline": ("sdxl",),
    "StableDiffusionXLImg2ImgPipeline": ("sdxl",),
    "IFPipeline": ("deepfloyd",),
    "IFSuperResolutionPipeline": ("deepfloyd",),
    "Flux2KleinPipeline": ("flux2",),
    "ZImagePipeline": ("z_image",),
    "SanaPipeline": ("sana",),
    "QwenImagePipeline": ("qwen_image",),
}
"""The families of a model whose model_index.json names this pipeline."""


def load_family(settings: ModelSettings, folder: Path) -> "Family":
    """The family of a model in a folder."""
    return importlib.import_module(MODULES[settings.model_family]).family(settings, folder)
