"""The model card of what a run trained. Pure: strings in, a README.md out."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from huggingface_hub import ModelCardData

from dreamspace.run_folder import EMBEDS_NAME, WEIGHTS_NAME

TAGS = {
    "lora": ["text-to-image", "diffusers", "lora", "template:sd-lora", "dreambooth", "dreamspace"],
    "lycoris": ["text-to-image", "diffusers", "lycoris", "dreambooth", "dreamspace"],
    "full": ["text-to-image", "diffusers", "dreambooth", "dreamspace"],
    "token": ["text-to-image", "diffusers", "textual_inversion", "dreamspace"],
}
"""By the kind of weights; only a LoRA is what the Hub's own widgets know how to load."""

_PACKAGES = {
    "lora": "`diffusers`, `transformers` and `peft`",
    "lycoris": "`diffusers`, `transformers` and `lycoris-lora`",
    "full": "`diffusers` and `transformers`",
    "token": "`diffusers` and `transformers`",
}

# Joiners are invisible too, but emoji, Persian and Hindi are misspelt without them.
JOINERS = "\u200c\u200d"

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

_BODY = """\
# {title}

{gallery}{description}, trained with Dreamspace. \
The photos that it learned from are not in this repository; the images are generated.

## Prompt

Write **{prompt}** where the subject is to appear.

## Use

{usage_note}

```python
{snippet}
```

## Settings

| Setting | Value |
| --- | --- |
{settings}

## Limits

{noun} has seen one subject in a few photos. It may repeat their poses and backgrounds, \
lose details of the subject in unusual scenes, and let the subject show through in prompts that do not \
name it. What the base model cannot draw, and what it draws with prejudice, stays so, \
and its licence binds users of this too. If the subject is a person, share nothing without their \
consent.
"""


@dataclass(frozen=True)
class BaseModel:
    """The model that an adapter was trained on, as a card may name it.

    Attributes:
        name: what a reader is told; never a path.
        hub_id: its id on the Hub; None for a model that is not there.
    """

    name: str
    hub_id: str | None


@dataclass(frozen=True)
class Weights:
    """What the repository holds, as a card tells it.

    Attributes:
        kind: how it is loaded.
        name: what it is, such as "LoRA adapter".
        part: of the pipeline that was trained, "unet" or "transformer".
        multiplier: that a LyCORIS adapter was trained at.
        has_zero_snr: whether it draws by a noise schedule that begins at pure noise.
        masks_ranks: whether its ranks are active by the timestep, which LyCORIS' loader does not know.
        token: that was learned, and is loaded besides.
        token_keys: under which its file holds the vectors of each text encoder; the token alone, if of one.
    """

    kind: Literal["lora", "lycoris", "full", "token"]
    name: str
    part: str = "unet"
    multiplier: float = 1.0
    has_zero_snr: bool = False
    masks_ranks: bool = False
    token: str | None = None
    token_keys: tuple[str, ...] = ()


LORA = Weights("lora", "LoRA adapter")


@dataclass(frozen=True)
class CardSample:
    """A generated image: its path inside the repository and its prompt."""

    path: str
    prompt: str


def render_card(
    repo_id: str,
    base: BaseModel,
    instance_prompt: str,
    samples: Sequence[CardSample],
    settings: Mapping[str, str],
    weights: Weights = LORA,
) -> str:
    """The README.md of a repository: metadata, how to use it, how it was trained, its limits.

    Args:
        repo_id: `namespace/name` of the repository, a valid Hub id.
        base: what was trained on; the metadata name it only if it is on the Hub.
        instance_prompt: the prompt that calls the subject.
        samples: generated images, shown in this order.
        settings: rows of the settings table, label to value.

    Prompts and settings are the user's words: they cannot leave their YAML value, table cell or code line.
    """
    prompt = one_line(instance_prompt)
    metadata = ModelCardData(
        base_model=base.hub_id,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=TAGS[weights.kind],
        instance_prompt=prompt,
        widget=[{"text": one_line(s.prompt), "output": {"url": s.path}} for s in samples] or None,
    )
    body = _BODY.format(
        title=plain(repo_id.split("/")[-1]),
        gallery="<Gallery />\n\n" if samples else "",
        description=_description(base, weights),
        noun="The model" if weights.kind == "full" else "The adapter",
        prompt=plain(prompt),
        usage_note=_usage_note(base, weights),
        snippet=_snippet(repo_id, base, prompt, weights),
        settings="\n".join(f"| {plain(label)} | {plain(value)} |" for label, value in settings.items()),
    )
    return f"---\n{metadata.to_yaml()}\n---\n\n{body}"


def one_line(text: str) -> str:
    """The text on one line, without control and direction characters, which could hide or reorder it."""
    line = " ".join(text.split())
    return "".join(c for c in line if c in JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))


def plain(text: str) -> str:
    """The text as Markdown that shows exactly these characters, in a sentence or in a table cell."""
    escaped = re.sub(r"[\\`*_{}\[\]()|~$^#:@!]", r"\\\g<0>", one_line(text))
    return re.sub("[&<>]", lambda match: _ENTITIES[match.group()], escaped)


def _description(base: BaseModel, weights: Weights) -> str:
    if weights.kind == "full":
        return f"A whole model: {plain(base.name)}, taught one subject by DreamBooth"
    return f"A {plain(weights.name)} that teaches {plain(base.name)} one subject by DreamBooth"


def _usage_note(base: BaseModel, weights: Weights) -> str:
    note = f"Install {_PACKAGES[weights.kind]}."
    if base.hub_id is None and weights.kind != "full":
        note += f" The base model, {plain(base.name)}, is not on the Hub: put its folder's path for `BASE`."
    if weights.masks_ranks:
        note += (
            " These lines draw with all ranks of the adapter at every step; it was trained with the fewer, "
            "the more noise there is, as Dreamspace's `generate` draws with it."
        )
    return note + " For a private repository, log in by `hf auth login` first."


def _snippet(repo_id: str, base: BaseModel, prompt: str, weights: Weights) -> str:
    is_whole = weights.kind == "full"
    # A whole model has its schedule in its own files.
    has_schedule = weights.has_zero_snr and not is_whole
    model = repo_id if is_whole else base.hub_id or "BASE"
    placed = "" if base.hub_id is None else '.to("cuda", torch.bfloat16)'
    dtype = ", dtype=torch.float32" if base.hub_id is None else ""
    imports = ["import torch", f"from diffusers import {'DDIMScheduler, ' * has_schedule}DiffusionPipeline"]
    if weights.kind == "lycoris" or weights.token:
        imports.append("from huggingface_hub import hf_hub_download")
    if weights.kind == "lycoris":
        imports.append("from lycoris import create_lycoris_from_weights")
    if weights.token:
        imports.append("from safetensors.torch import load_file")
    return "\n".join(
        [
            *imports,
            "",
            f'pipeline = DiffusionPipeline.from_pretrained("{model}"{dtype}){placed}',
            *(_ZERO_SNR_LINES if has_schedule else ()),
            *_token_lines(repo_id, weights),
            *_loading_lines(repo_id, weights),
            f"image = pipeline({_literal(prompt)}).images[0]",
            'image.save("image.png")',
        ]
    )


_ZERO_SNR_LINES = (
    "pipeline.scheduler = DDIMScheduler.from_config(",
    "    pipeline.scheduler.config,",
    "    rescale_betas_zero_snr=True,",
    '    timestep_spacing="trailing",',
    "    clip_sample=False,",
    ")",
)


def _loading_lines(repo_id: str, weights: Weights) -> list[str]:
    if weights.kind in ("full", "token"):
        return []
    if weights.kind == "lora":
        return [
            "pipeline.load_lora_weights(",
            f'    "{repo_id}", subfolder="adapter", weight_name="{WEIGHTS_NAME}"',
            ")",
        ]
    return [
        f'file = hf_hub_download("{repo_id}", "adapter/{WEIGHTS_NAME}")',
        f"network, _ = create_lycoris_from_weights({weights.multiplier:g}, file, pipeline.{weights.part})",
        "network.apply_to()",
        "network.to(pipeline.device, pipeline.dtype)",
    ]


def _token_lines(repo_id: str, weights: Weights) -> list[str]:
    """What has the text encoders know a learned token."""
    if weights.token is None:
        return []
    token = _literal(weights.token)
    lines = [f'vectors = load_file(hf_hub_download("{repo_id}", "adapter/{EMBEDS_NAME}"))']
    if len(weights.token_keys) == 1:
        return [*lines, "pipeline.load_textual_inversion(vectors)"]
    (second,) = set(weights.token_keys) - {"clip_l"}
    return [
        *lines,
        f'pipeline.load_textual_inversion(vectors["clip_l"], token={token})',
        "pipeline.load_textual_inversion(",
        f'    vectors["{second}"],',
        f"    token={token},",
        "    text_encoder=pipeline.text_encoder_2,",
        "    tokenizer=pipeline.tokenizer_2,",
        ")",
    ]


def _literal(text: str) -> str:
    """A text as Python has it; without a raw "<", since some viewers look for HTML inside code fences too."""
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c")
