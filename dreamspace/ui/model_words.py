"""What the app says of models, adapters and levels of precision: a plain sentence each."""

from dataclasses import dataclass

from dreamspace.config.families import FLAVOURS, FamilyName
from dreamspace.config.precision import Precision


@dataclass(frozen=True)
class ModelWords:
    """A model in words.

    Attributes:
        text: what it is good for.
        terms: what its licence or its page asks for, where that matters; "" where it does not.
    """

    title: str
    text: str
    terms: str = ""


MINI = ModelWords(
    "mini",
    "The model that comes with Dreamspace: it knows a small drawn world, and shows in minutes how all works.",
)

FAMILIES: dict[FamilyName, tuple[str, str]] = {
    "sd1x": ("Stable Diffusion 1", "Small and quick, with more community models than any other."),
    "sd2x": ("Stable Diffusion 2", "The successor of 1.5; few programs and models follow it."),
    "sdxl": ("Stable Diffusion XL", "The usual choice: good pictures, and every program loads its adapters."),
    "sd3": ("Stable Diffusion 3.5", "Follows longer prompts, and writes short words into pictures."),
    "flux": ("FLUX.1", "Very good likeness and prompts; large."),
    "flux2": ("FLUX.2 klein", "The newest small models of this house: quick to train for their quality."),
    "z_image": ("Z-Image", "A newer model of six billion weights, strong in photographs."),
    "qwen_image": ("Qwen-Image", "The best at long prompts and at text in pictures; the largest here."),
    "sana": ("Sana", "Light and fast, for small GPUs; weaker in hands, faces and text."),
    "deepfloyd": ("DeepFloyd IF", "Works on pixels in stages: one draws small, one enlarges."),
}
"""The families in the order in which they are shown: a title, and what they are good for."""

NATIVE_PX: dict[str, int] = {
    "sd1x": 512,
    "sd2x": 768,
    "sd2x/2.1-base": 512,
    "sana/600m-512": 512,
    "deepfloyd": 64,
    "deepfloyd/ii-medium-450m": 256,
    "deepfloyd/ii-large-1.2b": 256,
}
"""By family, or family and flavour: the pictures that a model was made for, where not of 1024 px."""

PREFIXES: dict[FamilyName, str] = {
    "sd1x": "Stable Diffusion",
    "sd2x": "Stable Diffusion",
    "sd3": "Stable Diffusion",
    "flux2": "FLUX.2",
    "sana": "Sana",
    "deepfloyd": "DeepFloyd IF,",
}
"""What goes before the title of a model where its family is not named."""

_OPEN_RAIL = "OpenRAIL licence"
_STABILITY = "Gated; Stability's community licence"
_NON_COMMERCIAL = "Gated; not for commercial use"

MODELS: dict[str, ModelWords] = {
    "sd1x/1.4": ModelWords("1.4", "The first one; take 1.5.", _OPEN_RAIL),
    "sd1x/1.5": ModelWords("1.5", "The one that most adapters are made for.", _OPEN_RAIL),
    "sd1x/dreamshaper": ModelWords("DreamShaper 8", "1.5, trained on for prettier pictures.", _OPEN_RAIL),
    "sd2x/2.1-base": ModelWords("2.1 base", "At 512 px.", _OPEN_RAIL),
    "sd2x/2.1": ModelWords("2.1", "At 768 px.", _OPEN_RAIL),
    "sdxl/base-1.0": ModelWords("SDXL base", "At 1024 px; the one to begin with.", _OPEN_RAIL),
    "sdxl/refiner-1.0": ModelWords(
        "SDXL refiner", "Refines pictures that SDXL base has drawn: wants sharp photos.", _OPEN_RAIL
    ),
    "sd3/medium": ModelWords("3.5 medium", "The smaller one.", _STABILITY),
    "sd3/large": ModelWords("3.5 large", "The better one, three times as large.", _STABILITY),
    "flux/dev": ModelWords("FLUX.1 dev", "The one to train.", _NON_COMMERCIAL),
    "flux/schnell": ModelWords("FLUX.1 schnell", "Draws in four steps.", "Apache 2.0"),
    "flux2/klein-base-4b": ModelWords("klein base 4B", "The one to train.", "Apache 2.0"),
    "flux2/klein-4b": ModelWords("klein 4B", "Draws in four steps.", "Apache 2.0"),
    "flux2/klein-base-9b": ModelWords("klein base 9B", "The larger one to train.", _NON_COMMERCIAL),
    "flux2/klein-9b": ModelWords("klein 9B", "The larger one, in four steps.", _NON_COMMERCIAL),
    "z_image/base": ModelWords("Z-Image", "The one to train.", "Apache 2.0"),
    "z_image/turbo": ModelWords("Z-Image Turbo", "Draws in eight steps.", "Apache 2.0"),
    "qwen_image/v1.0": ModelWords("Qwen-Image", "Twenty billion weights.", "Apache 2.0"),
    "sana/600m-512": ModelWords("0.6B, 512 px", "The smallest of the new models.", "NVIDIA's own licence"),
    "sana/1600m-1024": ModelWords("1.6B, 1024 px", "The better one.", "NVIDIA's own licence"),
    "deepfloyd/i-medium-400m": ModelWords("Stage I, medium", "Draws at 64 px.", _NON_COMMERCIAL),
    "deepfloyd/i-large-900m": ModelWords("Stage I, large", "Draws at 64 px.", _NON_COMMERCIAL),
    "deepfloyd/i-xlarge-4.3b": ModelWords("Stage I, extra large", "Draws at 64 px.", _NON_COMMERCIAL),
    "deepfloyd/ii-medium-450m": ModelWords("Stage II, medium", "Enlarges to 256 px.", _NON_COMMERCIAL),
    "deepfloyd/ii-large-1.2b": ModelWords("Stage II, large", "Enlarges to 256 px.", _NON_COMMERCIAL),
}
"""By family and flavour, in the order in which they are shown."""

PRECISIONS: dict[Precision, tuple[str, str]] = {
    "no_change": ("As it is", "Nothing is lost."),
    "int8-quanto": ("int8, quanto", "The guide's choice: half the size, about 1 % off."),
    "int8-torchao": ("int8, torchao", "Half the size, about 0.3 % off."),
    "fp8-torchao": ("fp8, torchao", "Half the size, 1 to 2 % off; quick on the newest GPUs."),
    "fp8-quanto": ("fp8, quanto", "Half the size, about 6 % off."),
    "nf4-bnb": ("nf4", "A quarter of the size, 4 to 7 % off: the usual way to a large model on a small GPU."),
    "int4-torchao": ("int4, torchao", "A quarter of the size, 3 to 5 % off."),
    "int4-quanto": ("int4, quanto", "A quarter of the size, about 15 % off."),
    "int2-quanto": ("int2, quanto", "An eighth of the size, more than half is lost: only to try."),
}
"""How the base model's weights are kept: a title, and how far an image is off, as README measures it."""


def model_title(model: str) -> str:
    """A model in words, such as "Stable Diffusion 1.5"; its Hub id where it has none."""
    if model == "mini":
        return MINI.title
    for name, words in MODELS.items():
        family, _, flavour = name.partition("/")
        if FLAVOURS[family][flavour] == model:
            return f"{PREFIXES.get(family, '')} {words.title}".strip()
    return model
