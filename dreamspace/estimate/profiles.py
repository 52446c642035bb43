"""What is known of a base model before it is here: a few numbers that no run changes."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dreamspace.config import RunConfig
from dreamspace.config.families import FLAVOURS, flavour_model
from dreamspace.files import read_json

PROFILES_FILE = Path(__file__).with_name("profiles.json")
"""Those of the flavours of `FLAVOURS`; made by `python -m benchmarks.profiles` from the models' configs."""

Format = Literal["fp32", "bf16"]
"""In which numbers a step is computed; fp16 takes what bf16 takes."""


@dataclass(frozen=True)
class PartProfile:
    """How many weights a part has.

    Attributes:
        linear: that every level of precision quantises.
        convolution: that quanto alone quantises.
        rest: that stay as they are.
        largest_layer: of those that are quantised: it is made whole while it is computed with.
        in_blocks: of all, those that group offloading keeps on the CPU.
        largest_block: of these, the most that are on the device at once.
        buffers: numbers that lie with the weights and are never trained, such as SD3's table of positions.
    """

    linear: int
    convolution: int
    rest: int
    largest_layer: int
    in_blocks: int
    largest_block: int
    buffers: int = 0

    @property
    def total(self) -> int:
        """All weights."""
        return self.linear + self.convolution + self.rest


@dataclass(frozen=True)
class TrainingPeak:
    """Memory of a forward and a backward pass besides the weights, at its largest.

    Activations fall during the backward pass while gradients grow, and only the former grow with the number
    of rows: which moment is the largest depends on it.

    Attributes:
        lines: (bytes for each row, bytes besides) at the moments that are the highest, for many rows and one.
    """

    model_type: Literal["lora", "full"]
    format: Format
    gradient_checkpointing: bool
    lines: tuple[tuple[int, int], ...]

    def bytes_of(self, num_rows: int) -> int:
        return max(per_row * num_rows + besides for per_row, besides in self.lines)


@dataclass(frozen=True)
class SizeProfile:
    """One row of one size of picture.

    Attributes:
        forward_flops: of the denoiser; a multiplication and an addition are two.
        forward_bytes: by format, what the denoiser takes besides its weights without gradients.
        decode_bytes: by format, the same of the VAE; 0 where there is none.
        encode_bytes: of the VAE, which encodes in fp32.
    """

    width_px: int
    height_px: int
    forward_flops: int
    encode_flops: int
    decode_flops: int
    forward_bytes: dict[Format, int]
    decode_bytes: dict[Format, int]
    encode_bytes: int
    training: tuple[TrainingPeak, ...]

    @property
    def area(self) -> int:
        return self.width_px * self.height_px

    def training_bytes(
        self, model_type: str, number_format: Format, gradient_checkpointing: bool, num_rows: int
    ) -> int:
        wanted = (model_type, number_format, gradient_checkpointing)
        for peak in self.training:
            if (peak.model_type, peak.format, peak.gradient_checkpointing) == wanted:
                return peak.bytes_of(num_rows)
        raise AssertionError(wanted)


@dataclass(frozen=True)
class ModelProfile:
    """A base model.

    Attributes:
        native_resolution_px: that it was made for.
        multiple_px: width and height of its pictures are multiples of this.
        denoiser, vae: names of these parts; None where it has no VAE.
        parts: by name; all others are text encoders.
        adapter_per_rank: weights of a LoRA on the family's targets, for each rank.
        adapter_outputs: outputs of all targets, which DoRA has a weight for each.
        prompt_tokens: that its text encoders read.
        num_operations: of torch, in a forward and a backward pass with a LoRA, whatever the size.
        sizes: two or more, the smallest first.
    """

    family: str
    native_resolution_px: int
    multiple_px: int
    denoiser: str
    vae: str | None
    parts: dict[str, PartProfile]
    adapter_per_rank: int
    adapter_outputs: int
    prompt_tokens: int
    num_operations: int
    sizes: tuple[SizeProfile, ...]

    @property
    def text_encoders(self) -> list[str]:
        return [name for name in self.parts if name not in (self.denoiser, self.vae)]

    def at(self, width_px: int, height_px: int, measure: Any) -> int:
        """A number of one size at another, straight between (and beyond) the two that are nearest.

        Args:
            measure: of a `SizeProfile`, for example `lambda size: size.encode_bytes`.
        """
        area = width_px * height_px
        upper = next((i for i, size in enumerate(self.sizes) if size.area >= area), len(self.sizes) - 1)
        first, second = self.sizes[max(0, upper - 1)], self.sizes[max(1, upper)]
        low, high = measure(first), measure(second)
        value = low + (high - low) * (area - first.area) / (second.area - first.area)
        # Far below both, what all sizes have in common may be less than the straight line says.
        return round(max(value, low * min(1.0, area / first.area)))

    def to_json(self) -> dict[str, Any]:
        """As plain values; `from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelProfile":
        """What `to_json` made."""
        sizes = tuple(
            SizeProfile(
                **size
                | {
                    "training": tuple(
                        TrainingPeak(**peak | {"lines": tuple(tuple(line) for line in peak["lines"])})
                        for peak in size["training"]
                    )
                }
            )
            for size in values["sizes"]
        )
        parts = {name: PartProfile(**part) for name, part in values["parts"].items()}
        return cls(**values | {"parts": parts, "sizes": sizes})


@cache
def shipped_profiles() -> dict[str, ModelProfile]:
    """The profiles that come with Dreamspace, by the name of the base model: a Hub id, or 'mini'."""
    stored = json.loads(PROFILES_FILE.read_text(encoding="utf-8"))
    return {name: ModelProfile.from_json(values) for name, values in stored.items()}


def known_profile(config: RunConfig) -> ModelProfile | None:
    """The profile of a run's base model where it comes with Dreamspace; None of any other.

    `dreamspace.models.profile.measured_profile` makes that of a model that is here.
    """
    return shipped_profiles().get(config.pretrained_model_name_or_path)


def profile_file(config: RunConfig, folder: Path, cache: Path) -> Path:
    """Where the profile of a model in a folder is kept, once it was measured: by the configs of its parts."""
    configs = [path.read_bytes() for path in sorted(folder.glob("*/config.json"))]
    digest = hashlib.sha256(b"\0".join([config.model_family.encode(), *configs])).hexdigest()[:16]
    return cache / "profiles" / f"{digest}.json"


def stored_profile(config: RunConfig, folder: Path, cache: Path) -> ModelProfile | None:
    """The profile of a model in a folder, if it was measured before."""
    path = profile_file(config, folder, cache)
    return ModelProfile.from_json(read_json(path)) if path.is_file() else None


def profiled_flavours(family: str) -> dict[str, ModelProfile]:
    """The flavours of a family whose profile is known, by their short names."""
    found = {flavour: flavour_model(family, flavour) for flavour in FLAVOURS[family]}
    profiles = shipped_profiles()
    return {flavour: profiles[model] for flavour, model in found.items() if model in profiles}
