"""Text encoders that are trained along, and words that are learned: as stock pipelines load them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families.cases import CASES, Case
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_runs import (
    assert_same_losses,
    change,
    draw_photos,
    events_of,
    tiny_config,
    train_here,
    train_in_two_processes,
)

from dreamspace.config import RunConfig, save_datasets, subject_datasets
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import open_model
from dreamspace.models.export import export, token_path
from dreamspace.models.generate import generate
from dreamspace.models.text import trained_text
from dreamspace.run_folder import EMBEDS_NAME, WEIGHTS_NAME
from dreamspace.training.preparation import read_training_set
from dreamspace.training.proof import grey_levels_apart
from dreamspace.training.setup import load_trainable

PROMPT = "a photo of a <sks> dog"
NUM_STEPS = 6

TEXT = {"train_text_encoder": True}
TOKEN = {"num_token_vectors": 2}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "text encoder": ("sd1x", TEXT),
    "token beside a LoRA": ("sd1x", TOKEN),
    "token alone": ("sd1x", TOKEN | {"model_type": "textual_inversion", "learning_rate": 0.1}),
    "token beside LyCORIS": ("sd1x", TOKEN | {"lora_type": "lycoris"}),
    "both of SDXL": ("sdxl", TEXT | TOKEN),
    "both of FLUX.1": ("flux-dev", TEXT | TOKEN),
    "text encoders of SD3": ("sd3", TEXT),
}


def write_run(run_dir: Path, case: Case, model: Path, **settings: Any) -> None:
    """A run of six steps on two photos, with images of the first and last."""
    run_dir.mkdir(parents=True)
    photos = draw_photos(run_dir.parents[1] / "photos", 2)
    save_datasets(subject_datasets(photos, PROMPT, case.resolution_px), run_dir / "multidatabackend.json")
    values = {
        "model_family": case.family,
        "token": "<sks>",
        "lora_dropout": 0.0,
        "max_train_steps": NUM_STEPS,
        "checkpoint_step_interval": 3,
        "validation_prompts": [],
        "validation_guidance": 3.0,
        "gradient_accumulation_steps": 1,
        "lr_scheduler": "constant",
    }
    tiny_config(model, **values | case.settings | settings).save(run_dir / "config.json")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains each kind of run once; its model lies beside the runs."""
    trained: dict[str, Path] = {}

    def find(kind: str) -> Path:
        if kind not in trained:
            (name, settings), folder = KINDS[kind], tmp_path_factory.mktemp("workspace")
            case = CASES[name]
            run_dir = folder / "runs" / "run"
            write_run(run_dir, case, case.build(folder / "model"), **settings)
            assert train_here(run_dir)[-1]["kind"] == "done"
            trained[kind] = run_dir
        return trained[kind]

    return find


def stock_pipeline(run_dir: Path, kind: str, model: Path | None = None) -> Any:
    """As a user of diffusers loads the base model, or another in its place."""
    config, absent = RunConfig.load(run_dir / "config.json"), CASES[KINDS[kind][0]].absent_parts
    base = open_model(config, run_dir / "cache", torch.device("cpu"))
    pipeline = base.family.pipeline_class.from_pretrained(model or base.folder, **dict.fromkeys(absent))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stock_image(pipeline: Any, kind: str, run_dir: Path) -> Image.Image:
    """Of the raw prompt, as a user of diffusers draws it."""
    config, case = RunConfig.load(run_dir / "config.json"), CASES[KINDS[kind][0]]
    options = case.arguments(case.resolution_px)
    generator = torch.Generator().manual_seed(config.seed)
    return pipeline(
        prompt=PROMPT,
        **options,
        num_inference_steps=config.validation_num_inference_steps,
        guidance_scale=config.validation_guidance,
        generator=generator,
    ).images[0]


def last_image(run_dir: Path) -> Image.Image:
    return Image.open(run_dir / "validation" / f"step-{NUM_STEPS:06d}" / "0.png")


STOCK = sorted(KINDS.keys() - {"token beside LyCORIS"})


@pytest.mark.parametrize("kind", STOCK)
def test_stock_pipeline_draws_the_validation_image_from_the_raw_prompt(
    run_of: Callable[[str], Path], kind: str
) -> None:
    run_dir = run_of(kind)
    pipeline, adapter = stock_pipeline(run_dir, kind), run_dir / "adapter"
    if (adapter / EMBEDS_NAME).is_file():
        stored = load_file(adapter / EMBEDS_NAME)
        if len(stored) == 1:
            pipeline.load_textual_inversion(adapter)
        else:
            second = "clip_g" if "clip_g" in stored else "t5"
            pipeline.load_textual_inversion(stored["clip_l"], token="<sks>")
            pipeline.load_textual_inversion(
                stored[second],
                token="<sks>",
                text_encoder=pipeline.text_encoder_2,
                tokenizer=pipeline.tokenizer_2,
            )
    if (adapter / WEIGHTS_NAME).is_file():
        pipeline.load_lora_weights(adapter)
    drawn, expected = stock_image(pipeline, kind, run_dir), last_image(run_dir)
    assert grey_levels_apart(drawn, expected) < 0.1
    base = Image.open(run_dir / "validation" / "step-000000" / "0.png")
    assert grey_levels_apart(base, expected) > 0.5


@pytest.mark.parametrize("kind", ["text encoder", "token alone", "token beside LyCORIS"])
def test_generating_draws_it_too(run_of: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    run_dir = run_of(kind)
    arguments = {"run_dir": str(run_dir), "prompts": [PROMPT], "seed": 42, "out": str(tmp_path / "out")}
    generate(tmp_path, arguments, EventWriter(tmp_path))
    assert grey_levels_apart(Image.open(tmp_path / "out" / "0.png"), last_image(run_dir)) < 0.1


@pytest.mark.parametrize("kind", ["both of SDXL", "token alone"])
def test_merged_model_knows_word_and_weights(
    run_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    run_dir = run_of(kind)
    export(
        tmp_path,
        {"run_dir": str(run_dir), "format": "merged", "out": str(tmp_path / "model")},
        EventWriter(tmp_path),
    )
    pipeline = stock_pipeline(run_dir, kind, tmp_path / "model")
    assert grey_levels_apart(stock_image(pipeline, kind, run_dir), last_image(run_dir)) < 0.2


@pytest.mark.parametrize("kind", ["both of SDXL", "text encoder", "text encoders of SD3"])
def test_kohyas_file_holds_the_text_encoders_and_the_token_lies_beside_it(
    run_of: Callable[[str], Path], tmp_path: Path, kind: str
) -> None:
    run_dir, out = run_of(kind), tmp_path / "dog.safetensors"
    job = {"run_dir": str(run_dir), "format": "kohya", "out": str(out)}
    export(tmp_path, job, EventWriter(tmp_path))
    pipeline = stock_pipeline(run_dir, kind)
    if token_path(out).is_file():
        stored = load_file(token_path(out))
        pipeline.load_textual_inversion(stored["clip_l"], token="<sks>")
        second = {"text_encoder": pipeline.text_encoder_2, "tokenizer": pipeline.tokenizer_2}
        pipeline.load_textual_inversion(stored["clip_g"], token="<sks>", **second)
    pipeline.load_lora_weights(out)
    assert grey_levels_apart(stock_image(pipeline, kind, run_dir), last_image(run_dir)) < 0.1


def test_files_name_no_folder_of_this_machine(run_of: Callable[[str], Path]) -> None:
    run_dir = run_of("both of SDXL")
    for file in sorted((run_dir / "adapter").iterdir()):
        with safe_open(file, framework="pt") as opened:
            assert str(run_dir.parents[1]) not in str(opened.metadata())
            assert not [name for name in opened.keys() if "embed" in name]  # noqa: SIM118


def test_resumed_run_repeats_the_losses_of_an_uninterrupted_one(run_of: Callable[[str], Path]) -> None:
    whole = run_of("both of SDXL")
    part = whole.with_name("part")
    write_run(part, CASES["sdxl"], whole.parents[1] / "model", **TEXT | TOKEN | {"max_train_steps": 3})
    train_here(part)
    change(part / "config.json", max_train_steps=NUM_STEPS)
    train_here(part, resume=True)
    ours, expected = ([event["loss"] for event in events_of(run, "loss")] for run in (part, whole))
    assert ours == expected
    trained, again = (load_file(run / "adapter" / EMBEDS_NAME) for run in (whole, part))
    assert all(torch.equal(trained[name], again[name]) for name in trained)


def test_two_processes_train_text_encoders_and_word_as_one_does(tmp_path: Path) -> None:
    case = CASES["sd1x"]
    model = case.build(tmp_path / "model")
    settings = TEXT | TOKEN | {"max_train_steps": 3, "validation_disable": True}
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    write_run(one, case, model, train_batch_size=2, **settings)
    train_here(one)
    write_run(two, case, model, train_batch_size=1, **settings)
    train_in_two_processes(two)
    assert_same_losses(two, one, range(1, 4))
    ours, expected = (load_file(run / "adapter" / EMBEDS_NAME)["<sks>"] for run in (two, one))
    assert (ours - expected).norm() < 1e-2 * (expected - expected.mean(dim=0)).norm()


def test_base_predictions_are_told_what_the_words_meant_before_the_training(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    config = tiny_config(tiny_model, **TEXT | {"lora_dropout": 0.0, "snr_gamma": None})
    model = open_model(config, tmp_path / "cache", torch.device("cpu"))
    datasets = subject_datasets(photos, PROMPT, 64)
    text = trained_text(config, model)
    training_set = read_training_set(config, datasets, model, EventWriter(tmp_path), 4, text)
    expected = training_set.conditioning[PROMPT]["prompt_embeds"]
    _, adapter = load_trainable(config, model, text=text)
    for parameter in adapter.parameters:
        parameter.data += 0.1
    assert not torch.allclose(text.rows([PROMPT])[PROMPT]["prompt_embeds"], expected, atol=1e-2)
    known = model.encode_prompts([PROMPT])[PROMPT]["prompt_embeds"]
    torch.testing.assert_close(expected, known)


def refused(match: str, **settings: Any) -> None:
    with pytest.raises(ValueError, match=match):
        RunConfig(**settings)


def test_settings_that_cannot_be_are_refused() -> None:
    token = {"num_token_vectors": 2, "class_word": "dog"}
    refused(r"angle brackets and small letters, and the token is 'sks'\. Choose one", token="sks", **token)
    refused("and the token is none", **token)
    refused("Set token_initializer or class_word", num_token_vectors=1, token="<sks>")
    refused("Set it to 1 or more", model_type="textual_inversion")
    refused("train_text_encoder is for model_type 'lora'", model_type="full", train_text_encoder=True)
    refused("train_text_encoder is for", lora_type="lycoris", train_text_encoder=True)
    refused("init_lora begins with an adapter", model_type="textual_inversion", init_lora="x", **token)
    refused("takes no lora_dropout", lora_type="lokr", lora_dropout=0.1)


@pytest.mark.parametrize(
    ("name", "settings", "match"),
    [
        ("deepfloyd-i", TEXT, "No program loads a LoRA into the text encoders of family 'deepfloyd'"),
        ("sana", TEXT, "text encoders of family 'sana'"),
        ("sd3", TOKEN, "No program loads a learned token into the text encoders of family 'sd3'"),
    ],
)
def test_family_whose_text_encoders_nobody_loads_into_is_refused_before_anything_is_read(
    tmp_path: Path, name: str, settings: dict[str, Any], match: str
) -> None:
    case = CASES[name]
    write_run(tmp_path / "runs" / "run", case, case.build(tmp_path / "model"), **settings)
    with pytest.raises(ValueError, match=match):
        train_here(tmp_path / "runs" / "run")


def test_captions_without_the_token_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "run"
    write_run(run_dir, CASES["sd1x"], tiny_model, **TOKEN)
    change(run_dir / "multidatabackend.json", instance_prompt="a photo of a dog")
    with pytest.raises(ValueError, match="No caption holds the token <sks>, so that it would not be learned"):
        train_here(run_dir)


def test_word_of_another_run_is_not_taken_up(run_of: Callable[[str], Path]) -> None:
    run_dir = run_of("token alone")
    change(run_dir / "config.json", num_token_vectors=3, max_train_steps=NUM_STEPS + 1)
    with pytest.raises(ValueError, match="Set token and num_token_vectors to the file's own"):
        train_here(run_dir, resume=True)
    change(run_dir / "config.json", num_token_vectors=2, max_train_steps=NUM_STEPS)


def test_short_form_learns_a_token(
    shell: Callable[..., tuple[int, str, str]], tiny_model: Path, tmp_path: Path
) -> None:
    photos = draw_photos(tmp_path / "photos", 2)
    settings = TOKEN | {"max_train_steps": 2, "validation_disable": True, "learning_rate": 0.02}
    settings |= {"pretrained_model_name_or_path": str(tiny_model), "train_batch_size": 1}
    told = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    words = ["--class-word", "dog", "--token", "<sks>", "--resolution", "64", "--prior", "none"]
    run_dir = tmp_path / "runs" / "run"
    status, _, errors = shell("train", "--photos", photos, *words, "--run", run_dir, *told)
    assert status == 0, errors
    assert (run_dir / "adapter" / EMBEDS_NAME).is_file()
    assert load_file(run_dir / "adapter" / EMBEDS_NAME)["<sks>"].shape[0] == 2
