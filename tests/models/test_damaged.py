"""Models and adapters that are damaged, incomplete or another's: a sentence, and exit status 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import QUICK, assert_refused, draw_photos, train_here, write_run_folder

from dreamspace.jobs.job import Job
from dreamspace.run_folder import WEIGHTS_NAME

Shell = Callable[..., tuple[int, str, str]]
UNET = "unet/diffusion_pytorch_model.safetensors"


def written(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:3000]) and None


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    )


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / UNET)
    del weights["conv_in.weight"]
    save_file(weights, folder / UNET, {"format": "pt"})


def without_a_shard(folder: Path) -> None:
    weights = load_file(folder / UNET)
    removed(UNET)(folder)
    first, second = (f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2))
    here = dict(sorted(weights.items())[::2])
    save_file(here, folder / "unet" / first, {"format": "pt"})
    places = {name: first if name in here else second for name in weights}
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (written("model_index.json", '{"_class_name": "Stable'), ["model_index.json is not valid JSON"]),
        (written("model_index.json", "[1]"), ["names no pipeline"]),
        (written("model_index.json", "{}"), ["names no pipeline"]),
        (cut(UNET), ["(unet) cannot be loaded", "download it again"]),
        (written(UNET, "hello"), ["(unet) cannot be loaded", "download it again"]),
        (cut("text_encoder/model.safetensors"), ["(text_encoder, tokenizer) cannot be loaded"]),
        (cut("vae/diffusion_pytorch_model.safetensors"), ["(vae) cannot be loaded"]),
        (removed(UNET), ["(unet) cannot be loaded: Error no file named"]),
        (removed("unet"), ["has no part 'unet'"]),
        (removed("unet/config.json"), ["has no part 'unet'"]),
        (written("unet/config.json", '{"a"'), ["unet/config.json is not valid JSON"]),
        (removed("scheduler"), ["has no part 'scheduler'"]),
        (written("scheduler/scheduler_config.json", "{"), ["cannot be loaded", "not a valid JSON file"]),
        (removed("tokenizer"), ["has no part 'tokenizer'"]),
        (written("tokenizer/tokenizer.json", "{"), ["(text_encoder, tokenizer) cannot be loaded"]),
        (without_a_weight, ["lacks 1 of its weights, such as conv_in.weight"]),
        (without_a_shard, ["(unet) cannot be loaded", "00002-of-00002"]),
    ],
)
def test_damaged_model_is_named_with_the_part(
    shell: Shell, files: Path, tiny_model: Path, tmp_path: Path, damage: Callable, words: list[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    damage(model)
    setting = f"pretrained_model_name_or_path={model}"
    options = ["--config", files / "config.json", "--datasets", files / "multidatabackend.json"]
    refused = shell("train", *options, "--run", tmp_path / "runs" / "run", "--set", setting)
    assert_refused(refused, str(model), *words)


def test_base_model_without_numbers_is_not_taken_for_a_bad_training(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    model, run_dir = tmp_path / "model", tmp_path / "runs" / "run"
    shutil.copytree(tiny_model, model)
    weights = {name: weight * torch.nan for name, weight in load_file(model / UNET).items()}
    save_file(weights, model / UNET, {"format": "pt"})
    write_run_folder(run_dir, model, photos, **QUICK)
    with pytest.raises(ValueError, match="The base model itself draws an empty image"):
        train_here(run_dir)


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run_dir = folder / "runs" / "run"
    settings = QUICK | {"lora_rank": 4, "learning_rate": 0.02, "lora_dropout": 0.0}
    write_run_folder(run_dir, tiny_model, draw_photos(folder / "photos", 2), **settings)
    train_here(run_dir)
    return run_dir


def changed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / WEIGHTS_NAME)), folder / WEIGHTS_NAME)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut(WEIGHTS_NAME), "are cut off, or it is no safetensors file"),
        (written(WEIGHTS_NAME, "hello"), "are cut off, or it is no safetensors file"),
        (written(WEIGHTS_NAME, ""), "are cut off, or it is no safetensors file"),
        (removed(WEIGHTS_NAME), "There is no adapter in"),
        (changed(lambda weights: {}), "holds no weights"),
        (changed(lambda weights: {"a.weight": torch.ones(3)}), "does not fit the model"),
        (changed(lambda weights: {k: torch.ones(4, 7) for k in weights}), "does not fit the model"),
        (
            changed(lambda weights: {k: w for k, w in weights.items() if "lora_A" in k}),
            "does not fit the model",
        ),
        (
            changed(
                lambda weights: weights | {f"unet.other.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}
            ),
            "does not fit the model",
        ),
        (changed(lambda weights: {"lycoris_a.lora_up.weight": torch.ones(3, 3)}), "does not fit the model"),
        (changed(lambda weights: {k: w * torch.nan for k, w in weights.items()}), "are no numbers"),
    ],
)
def test_what_is_no_adapter_of_the_model_is_refused(
    shell: Shell, trained: Path, tiny_model: Path, tmp_path: Path, damage: Callable, words: str
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained / "adapter", adapter)
    damage(adapter)
    refused = shell(
        "generate", "--model", tiny_model, "--adapter", adapter, "--prompt", "x", "--out", tmp_path / "out"
    )
    assert_refused(refused, words, str(adapter))
    assert not list(tmp_path.glob("out/*"))


def test_export_says_what_is_wrong_with_the_weights_and_the_place(
    shell: Shell, trained: Path, tmp_path: Path
) -> None:
    def export(run_dir: Path, out: Path, *options: object) -> tuple[int, str, str]:
        return shell("export", run_dir, "--format", "kohya", "--out", out, *options)

    for name in ("folder.safetensors", "file.safetensors"):
        (tmp_path / name).mkdir() if name.startswith("folder") else (tmp_path / name).write_text("mine")
        assert_refused(export(trained, tmp_path / name), f"{name} is there already. Remove it")
    assert (tmp_path / "file.safetensors").read_text() == "mine"
    out = tmp_path / "out.safetensors"
    assert_refused(export(trained, tmp_path / "file.safetensors" / "x.safetensors"), "cannot be made")
    assert_refused(export(trained, tmp_path / "x.bin"), "--out must be a .safetensors file")
    assert_refused(export(trained, out, "--checkpoint", 77), "no checkpoint at step 77", "are: 3.")
    assert_refused(export(trained, out, "--ema"), "has no moving average")
    damaged = tmp_path / "runs" / "run"
    shutil.copytree(trained, damaged)
    cut(WEIGHTS_NAME)(damaged / "adapter")
    assert_refused(export(damaged, out), "are cut off")
    assert not out.exists()


def test_damaged_checkpoint_says_how_to_resume_from_the_one_before(
    shell: Shell, trained: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "runs" / "run"
    shutil.copytree(trained, run_dir)
    Job("train", {}).write(run_dir)
    cut("checkpoints/step-000003/optimizer.safetensors")(run_dir)
    refused = shell("train", "--run", run_dir, "--resume", "--steps", 4)
    assert_refused(refused, "step-000003 is damaged", "Remove this folder")
