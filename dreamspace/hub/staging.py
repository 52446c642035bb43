"""From a run folder to the folder that is uploaded: an exact list of files, and no path or name of a person.

Uploaded are the adapter and the moving average of its weights if there is one, each with the token that was
learned along, or the whole model where all of it was trained; the newest sample images and the card. Photos,
configuration files (they hold paths), other checkpoints and logs stay.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open

import dreamspace
from dreamspace.config import (
    DatasetConfig,
    RunConfig,
    is_hub_id,
    read_datasets,
    subject_dataset,
    subject_prompt,
)
from dreamspace.config.exports import kind_of_weights
from dreamspace.config.families import UNET_FAMILIES
from dreamspace.config.lycoris import TLORA_KEYS, LycorisConfig
from dreamspace.files import read_json, replace_file
from dreamspace.hub.card import BaseModel, CardSample, Weights, render_card
from dreamspace.jobs.events import EVENTS_FILE, Event, read_events
from dreamspace.run_folder import (
    AVERAGED,
    EMBEDS_NAME,
    EVALUATION_FILE,
    EVALUATION_FOLDER,
    WEIGHTS_NAME,
    adapter_folder,
    trained_folder,
    weights_file,
)

ADAPTER = "adapter"
MAX_NUM_IMAGES = 12

# Settings whose value is a number or one word, and what the card calls them.
_SETTINGS = {
    "train_batch_size": "Batch size",
    "gradient_accumulation_steps": "Gradient accumulation",
    "learning_rate": "Learning rate",
    "lr_scheduler": "Learning rate schedule",
    "mixed_precision": "Mixed precision",
    "snr_gamma": "Min-SNR gamma",
    "seed": "Seed",
}


@dataclass(frozen=True)
class Run:
    """What publishing takes from a run folder.

    Attributes:
        weights: the file of what was trained.
        step: of the training, after which they were saved.
        is_averaged: whether they are the moving average.
        adapters: the files of an adapter, a learned token and their moving averages, by their path in the
            repository.
        samples: images of this step, or of the newest with some where the weights are the finished ones,
            each with its prompt.
    """

    weights: Path
    step: int
    is_averaged: bool
    adapters: Mapping[str, Path]
    config: RunConfig
    datasets: list[DatasetConfig]
    samples: Sequence[tuple[Path, str]]


def read_run(run_dir: Path, step: int | None = None, ema: bool = False) -> Run:
    """Read what a run folder offers to publish.

    Args:
        step: of the checkpoint to publish; None takes the finished weights.
        ema: whether the moving average of the weights takes their place.

    Raises:
        ValueError: if the folder is no run, has no finished adapter yet, or no such checkpoint.
    """
    if not (run_dir / "config.json").is_file():
        raise ValueError(f"{run_dir} is not a run: it has no config.json. Give the folder of a training run.")
    config = RunConfig.load(run_dir / "config.json")
    folders = {ADAPTER: trained_folder(run_dir, config, step, ema)}
    if not ema:
        folders[AVERAGED] = adapter_folder(run_dir, step, ema=True)
    if kind_of_weights(config) == "lycoris" and "ia3" in lycoris_algos(config):
        raise ValueError(
            "LyCORIS cannot load an ia3 adapter from its file, so that nobody could use it. Write the whole "
            "model by `export --format merged`, and upload that by `hf upload`."
        )
    events, _ = read_events(run_dir / EVENTS_FILE)
    files = {
        f"{name}/{file}": folder / file
        for name, folder in folders.items()
        for file in (WEIGHTS_NAME, EMBEDS_NAME)
    }
    return Run(
        weights_file(folders[ADAPTER]),
        config.max_train_steps if step is None else step,
        ema,
        {path: file for path, file in files.items() if file.is_file()},
        config,
        read_datasets(run_dir / "multidatabackend.json"),
        _samples(run_dir, events, step, "ema" if ema else "trained"),
    )


def stage(run: Run, repo_id: str, folder: Path) -> list[str]:
    """Write what is to be uploaded into a folder; return the paths of all files in it, sorted.

    Args:
        folder: empty, or with the whole model where that was trained.

    Raises:
        ValueError: if the adapter or an image cannot be read.
    """
    if kind_of_weights(run.config) != "full":
        for path, source in run.adapters.items():
            copy_adapter(source, folder / path)
    samples = [CardSample(f"images/{index}.png", prompt) for index, (_, prompt) in enumerate(run.samples)]
    for (image, _), sample in zip(run.samples, samples, strict=True):
        _copy_image(image, folder / sample.path)
    base = describe_base_model(run.config.pretrained_model_name_or_path)
    prompt = subject_prompt(run.config, run.datasets)
    card = render_card(repo_id, base, prompt, samples, card_settings(run), describe_weights(run))
    with replace_file(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def describe_base_model(name: str) -> BaseModel:
    """How a card names a base model: by its Hub id, or by words if it is embedded or in a local folder."""
    if name == "mini":
        return BaseModel("the mini model that Dreamspace brings along", None)
    return BaseModel(name, name) if is_hub_id(name) else BaseModel("a model from a local folder", None)


def describe_weights(run: Run) -> Weights:
    """What a card says of what a run trained."""
    config = run.config
    kind = kind_of_weights(config)
    is_lycoris = config.lora_type == "lycoris"
    multiplier = (config.lycoris_config or LycorisConfig()).multiplier if is_lycoris else 1.0
    part = "unet" if config.model_family in UNET_FAMILIES else "transformer"
    token, keys = None, ()
    file = run.adapters.get(f"{ADAPTER}/{EMBEDS_NAME}")
    if file is not None and kind != "full":
        token = config.token
        with safe_open(file, framework="numpy") as vectors:
            keys = tuple(sorted(vectors.keys()))
    return Weights(
        kind,
        _name_of_weights(config),
        part,
        multiplier,
        has_zero_snr=config.rescale_betas_zero_snr,
        masks_ranks=kind == "lycoris" and "tlora" in lycoris_algos(config),
        token=token,
        token_keys=keys,
    )


def lycoris_algos(config: RunConfig) -> set[str]:
    """The algorithms of a run's LyCORIS adapter, or the one of PEFT's that is written in the same form."""
    if config.lora_type != "lycoris":
        return {config.lora_type}
    return (config.lycoris_config or LycorisConfig()).algos


def _name_of_weights(config: RunConfig) -> str:
    lora = f"{'DoRA' if config.use_dora else 'LoRA'} adapter"
    names = {
        "lora": f"{lora}, on the text encoders too" if config.train_text_encoder else lora,
        "lycoris": f"LyCORIS adapter ({', '.join(sorted(lycoris_algos(config)))})",
        "full": "whole model",
        "token": "learned token (textual inversion)",
    }
    return names[kind_of_weights(config)]


def card_settings(run: Run) -> dict[str, str]:
    """The rows of the card's settings table, label to value; only numbers and single words of the config."""
    subject = subject_dataset(run.datasets)
    unit = "megapixels" if subject.resolution_type == "area" else "px"
    has_prior = any(
        dataset.is_regularisation_data and not dataset.disabled and dataset.probability > 0
        for dataset in run.datasets
    )
    settings = run.config.model_dump(include=set(_SETTINGS))
    return {
        "Base model": describe_base_model(run.config.pretrained_model_name_or_path).name,
        **_weights_settings(run),
        "Steps": _shown(run.step),
        "Resolution": f"{_shown(subject.resolution)} {unit}",
        **{label: _shown(settings[key]) for key, label in _SETTINGS.items() if settings[key] is not None},
        **_precision_settings(run.config),
        "Prior preservation": "yes" if has_prior else "no",
        "Dreamspace": dreamspace.__version__,
    }


def _weights_settings(run: Run) -> dict[str, str]:
    config = run.config
    weights = {"Weights": _name_of_weights(config) + ", moving average" * run.is_averaged}
    if config.num_token_vectors:
        weights["Vectors of the learned token"] = _shown(config.num_token_vectors)
    if config.model_type != "lora":
        return weights
    rank, alpha = config.lora_rank, config.lora_alpha
    if config.lora_type == "lycoris":
        lycoris = config.lycoris_config or LycorisConfig()
        rank, alpha = lycoris.linear_dim, lycoris.linear_alpha
    return weights | {"Rank": _shown(rank), "Alpha": _shown(rank if alpha is None else alpha)}


def _precision_settings(config: RunConfig) -> dict[str, str]:
    """The levels of what was quantised, and the noise schedule where it is not the model's own."""
    levels = {
        "Precision of the base model": config.base_model_precision,
        "Precision of text encoder 1": config.text_encoder_1_precision,
        "Precision of text encoder 2": config.text_encoder_2_precision,
        "Precision of text encoder 3": config.text_encoder_3_precision,
        "Precision of text encoder 4": config.text_encoder_4_precision,
    }
    settings = {label: level for label, level in levels.items() if level != "no_change"}
    return settings | ({"Noise schedule": "zero terminal SNR"} if config.rescale_betas_zero_snr else {})


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
    # LyCORIS adapters say in "multiplier" how strongly they were trained, a learned token its own name.
    known = ("format", "multiplier", "token", *TLORA_KEYS)
    kept = {"format": "pt"} | {key: metadata[key] for key in known if key in metadata}
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


def _samples(
    run_dir: Path, events: Sequence[Event], step: int | None, weights: str
) -> list[tuple[Path, str]]:
    """The images of a step, or of the newest that has some; else those that the step was judged by."""
    trained = [e for e in events if e["kind"] == "sample" and e["weights"] in ("trained", "ema")]
    if step is None:
        step = max((event["step"] for event in trained), default=None)
    # Where there are both, the image of the weights that are published.
    # A resumed run announces an image again; the later event stands.
    newest: dict[tuple[str, int, int | None, int | None], Event] = {}
    for event in sorted((e for e in trained if e["step"] == step), key=lambda e: e["weights"] == weights):
        newest[event["prompt"], event["seed"], event.get("width"), event.get("height")] = event
    folder = (run_dir / "validation").resolve()
    samples = [((run_dir / event["path"]).resolve(), event["prompt"]) for event in newest.values()]
    present = [s for s in samples if s[0].is_relative_to(folder) and s[0].suffix == ".png" and s[0].is_file()]
    return (present or _judged(run_dir, step, weights))[:MAX_NUM_IMAGES]


def _judged(run_dir: Path, step: int | None, weights: str) -> list[tuple[Path, str]]:
    """The images with the first seed that the comparison of all checkpoints drew with these weights."""
    file = run_dir / EVALUATION_FILE
    outcome = read_json(file) if file.is_file() else {"candidates": []}
    wanted = (each for each in outcome["candidates"] if (each["step"], each["weights"]) == (step, weights))
    candidate = next(wanted, None)
    if candidate is None:
        return []
    folder = (run_dir / EVALUATION_FOLDER / candidate["folder"]).resolve()
    found = [(folder / f"{outcome['all_prompts'].index(p)}-0.jpg", p) for p in outcome["prompts"]]
    is_own = folder.is_relative_to((run_dir / EVALUATION_FOLDER).resolve())
    return [(path, prompt) for path, prompt in found if is_own and path.is_file() and not path.is_symlink()]


def _shown(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
