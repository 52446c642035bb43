"""From a run folder to the folder that is uploaded: an exact list of files, and no path or name of a person.

Uploaded are the adapter, the newest sample images and the card. Photos, configuration files (they hold
paths), checkpoints and logs stay.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open

import dreamspace
from dreamspace.files import read_json, replace_file
from dreamspace.hub.card import BaseModel, CardSample, render_card
from dreamspace.jobs.events import EVENTS_FILE, Event, read_events

ADAPTER = "adapter/pytorch_lora_weights.safetensors"
MAX_NUM_IMAGES = 12

# Settings whose value is a number or one word, and what the card calls them.
_SETTINGS = {
    "train_batch_size": "Batch size",
    "gradient_accumulation_steps": "Gradient accumulation",
    "learning_rate": "Learning rate",
    "lr_scheduler": "Learning rate schedule",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "mixed_precision": "Mixed precision",
    "snr_gamma": "Min-SNR gamma",
    "seed": "Seed",
}


@dataclass(frozen=True)
class Run:
    """What publishing takes from a run folder.

    Attributes:
        adapter: the file of the trained weights.
        base: the model that it was trained on.
        config: `config.json` as it is.
        datasets: `multidatabackend.json` as it is.
        samples: images of the newest sampled step, each with its prompt.
        last_step: the newest step whose weights were saved; None without events.
    """

    adapter: Path
    base: BaseModel
    config: Mapping[str, Any]
    datasets: Sequence[Mapping[str, Any]]
    samples: Sequence[tuple[Path, str]]
    last_step: int | None


def read_run(run_dir: Path) -> Run:
    """Read what a run folder offers to publish.

    Raises:
        ValueError: if the folder is no run, or has no finished adapter yet.
    """
    if not (run_dir / "config.json").is_file():
        raise ValueError(f"{run_dir} is not a run: it has no config.json. Give the folder of a training run.")
    if not (run_dir / ADAPTER).is_file():
        raise ValueError(
            f"The run {run_dir.name} has no adapter yet ({ADAPTER} is missing). Let it finish training, then "
            "publish."
        )
    config = read_json(run_dir / "config.json")
    events, _ = read_events(run_dir / EVENTS_FILE)
    return Run(
        adapter=run_dir / ADAPTER,
        base=describe_base_model(config.get("pretrained_model_name_or_path"), run_dir),
        config=config,
        datasets=read_json(run_dir / "multidatabackend.json"),
        samples=_newest_samples(run_dir, events),
        last_step=max((e["step"] for e in events if e["kind"] in ("checkpoint", "done")), default=None),
    )


def stage(run: Run, repo_id: str, folder: Path) -> list[str]:
    """Write what is to be uploaded into an empty folder; return the files' paths in it, sorted.

    Raises:
        ValueError: if the adapter or an image cannot be read.
    """
    copy_adapter(run.adapter, folder / ADAPTER)
    samples = [CardSample(f"images/{index}.png", prompt) for index, (_, prompt) in enumerate(run.samples)]
    for (image, _), sample in zip(run.samples, samples, strict=True):
        _copy_image(image, folder / sample.path)
    card = render_card(repo_id, run.base, instance_prompt(run), samples, card_settings(run))
    with replace_file(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    return sorted([ADAPTER, "README.md", *(sample.path for sample in samples)])


def describe_base_model(name: str | None, run_dir: Path) -> BaseModel:
    """How a card names a base model: by its Hub id, or by words if it is embedded or in a local folder."""
    if not name:
        return BaseModel("a model that was not recorded", None)
    path = Path(os.path.expanduser(name))
    mini = Path(dreamspace.__file__).parent / "mini"
    if name == "mini" or path.resolve().is_relative_to(mini.resolve()):
        return BaseModel("the mini model that Dreamspace brings along", None)
    if path.exists() or (run_dir / path).exists() or not _is_hub_id(name):
        return BaseModel("a model from a local folder", None)
    return BaseModel(name, name)


def instance_prompt(run: Run) -> str | None:
    """The prompt that calls the subject: of its dataset, else made of token and class word, else None."""
    for dataset in _subject_datasets(run.datasets):
        prompts = dataset.get("instance_prompt")
        prompt = prompts[0] if isinstance(prompts, list) and prompts else prompts
        if isinstance(prompt, str) and prompt.strip():
            return prompt
    token, class_word = run.config.get("token"), run.config.get("class_word")
    return f"a photo of {token} {class_word}" if token and class_word else None


def card_settings(run: Run) -> dict[str, str]:
    """The rows of the card's settings table, label to value; only numbers and single words of the config."""
    steps = run.last_step if run.last_step is not None else run.config.get("max_train_steps")
    rows = {"Base model": run.base.name, "Steps": _shown(steps)}
    for dataset in _subject_datasets(run.datasets)[:1]:
        resolution = _shown(dataset.get("resolution"))
        unit = "megapixels" if dataset.get("resolution_type") == "area" else "px"
        rows["Resolution"] = resolution and f"{resolution} {unit}"
    rows |= {label: _shown(run.config.get(key)) for key, label in _SETTINGS.items()}
    has_prior = any(_is_trained_on(dataset) and _is_prior(dataset) for dataset in run.datasets)
    rows |= {"Prior preservation": "yes" if has_prior else "no", "Dreamspace": dreamspace.__version__}
    return {label: value for label, value in rows.items() if value is not None}


def copy_adapter(source: Path, target: Path) -> None:
    """Copy a safetensors file, keeping of its metadata only what loading needs.

    PEFT and training scripts write base model paths and dataset folders there.

    Raises:
        ValueError: if the file is cut off or no safetensors file.
    """
    try:
        with safe_open(source, framework="numpy") as tensors:
            metadata = _harmless(tensors.metadata() or {})
    except SafetensorError:
        raise ValueError(
            f"The adapter {source.name} is cut off or not a safetensors file. Resume the run, so that it is "
            "saved again, then publish."
        ) from None
    with source.open("rb") as reader, replace_file(target) as temporary, temporary.open("wb") as writer:
        header = json.loads(reader.read(int.from_bytes(reader.read(8), "little")))
        text = json.dumps({**header, "__metadata__": metadata}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        writer.write(len(text).to_bytes(8, "little") + text)
        shutil.copyfileobj(reader, writer, 1 << 20)


def _harmless(metadata: Mapping[str, str]) -> dict[str, str]:
    kept = {"format": metadata.get("format", "pt")}
    if "lora_adapter_metadata" in metadata:
        # diffusers reads alpha from here; without it the adapter would load with alpha = rank.
        settings = json.loads(metadata["lora_adapter_metadata"])
        kept_settings = {k: v for k, v in settings.items() if not k.endswith("base_model_name_or_path")}
        kept["lora_adapter_metadata"] = json.dumps(kept_settings, indent=2, sort_keys=True)
    return kept


def _copy_image(source: Path, target: Path) -> None:
    try:
        with Image.open(source) as image:
            # A new image of the same pixels carries none of the file's text chunks.
            pixels = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    except (UnidentifiedImageError, OSError):
        raise ValueError(
            f"The sample image {source.parent.name}/{source.name} cannot be read. Delete it, or let the run "
            "sample again, then publish."
        ) from None
    with replace_file(target) as temporary:
        pixels.save(temporary)


def _newest_samples(run_dir: Path, events: Sequence[Event]) -> list[tuple[Path, str]]:
    trained = [e for e in events if e["kind"] == "sample" and e["weights"] in ("trained", "ema")]
    step = max((event["step"] for event in trained), default=None)
    # Where a prompt and seed have both, the trained weights' image: they are what the adapter file holds.
    # A resumed run announces an image again; the later event stands.
    newest: dict[tuple[str, int], Event] = {}
    for event in sorted((e for e in trained if e["step"] == step), key=lambda e: e["weights"] == "trained"):
        newest[event["prompt"], event["seed"]] = event
    folder = (run_dir / "validation").resolve()
    samples = [((run_dir / event["path"]).resolve(), event["prompt"]) for event in newest.values()]
    present = [s for s in samples if s[0].is_relative_to(folder) and s[0].suffix == ".png" and s[0].is_file()]
    return present[:MAX_NUM_IMAGES]


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name and not name.endswith((".safetensors", ".ckpt"))


def _is_prior(dataset: Mapping[str, Any]) -> bool:
    return bool(dataset.get("is_regularisation_data") or dataset.get("is_regularization_data"))


def _is_trained_on(dataset: Mapping[str, Any]) -> bool:
    is_image = dataset.get("dataset_type", "image") == "image" and not dataset.get("conditioning_type")
    return is_image and not dataset.get("disabled") and not dataset.get("disable")


def _subject_datasets(datasets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [dataset for dataset in datasets if _is_trained_on(dataset) and not _is_prior(dataset)]


def _shown(value: Any) -> str | None:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    is_word = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value)
    return value if is_word else None
