"""Base models: a file for each family, and what all families share."""

from dreamspace.models.family import Family
from dreamspace.models.sd1x import StableDiffusion1

FAMILIES: dict[str, Family] = {family.name: family for family in (StableDiffusion1(),)}
