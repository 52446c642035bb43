"""The model card of an adapter. Pure: strings in, a README.md out."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import ModelCardData

from dreamspace.run_folder import WEIGHTS_NAME

TAGS = ["text-to-image", "diffusers", "lora", "template:sd-lora", "dreambooth", "dreamspace"]

# Joiners are invisible too, but emoji, Persian and Hindi are misspelt without them.
JOINERS = "\u200c\u200d"

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}

_BODY = """\
# {title}

{gallery}A LoRA adapter that teaches {base} one subject by DreamBooth, trained with Dreamspace. \
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

The adapter has seen one subject in a few photos. It may repeat their poses and backgrounds, \
lose details of the subject in unusual scenes, and let the subject show through in prompts that do not \
name it. What the base model cannot draw, and what it draws with prejudice, stays so, \
and its licence binds users of the adapter too. If the subject is a person, share nothing without their \
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
) -> str:
    """The README.md of an adapter: metadata, how to use it, how it was trained, its limits.

    Args:
        repo_id: `namespace/name` of the repository, a valid Hub id.
        base: what the adapter was trained on; the metadata name it only if it is on the Hub.
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
        tags=TAGS,
        instance_prompt=prompt,
        widget=[{"text": one_line(s.prompt), "output": {"url": s.path}} for s in samples] or None,
    )
    body = _BODY.format(
        title=plain(repo_id.split("/")[-1]),
        gallery="<Gallery />\n\n" if samples else "",
        base=plain(base.name),
        prompt=plain(prompt),
        usage_note=_usage_note(base),
        snippet=_snippet(repo_id, base, prompt),
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


def _usage_note(base: BaseModel) -> str:
    note = "Install `diffusers`, `transformers` and `peft`."
    if base.hub_id is None:
        note += f" The base model, {plain(base.name)}, is not on the Hub: put its folder's path for `BASE`."
    return note + " For a private repository, log in by `hf auth login` first."


def _snippet(repo_id: str, base: BaseModel, prompt: str) -> str:
    if base.hub_id is None:
        load = [
            "import torch",
            "from diffusers import DiffusionPipeline",
            "",
            'pipeline = DiffusionPipeline.from_pretrained("BASE", dtype=torch.float32)',
        ]
    else:
        load = [
            "import torch",
            "from diffusers import DiffusionPipeline",
            "",
            f'pipeline = DiffusionPipeline.from_pretrained("{base.hub_id}").to("cuda", torch.bfloat16)',
        ]
    # No raw "<" in the body at all: some viewers look for HTML inside code fences too.
    literal = json.dumps(prompt, ensure_ascii=False).replace("<", "\\u003c")
    return "\n".join(
        [
            *load,
            "pipeline.load_lora_weights(",
            f'    "{repo_id}", subfolder="adapter", weight_name="{WEIGHTS_NAME}"',
            ")",
            f"image = pipeline({literal}).images[0]",
            'image.save("image.png")',
        ]
    )
