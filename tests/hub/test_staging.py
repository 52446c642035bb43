"""What of a run is uploaded, and that none of it names a place on the machine."""

import json
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open

import dreamspace
from dreamspace.files import read_json, write_json
from dreamspace.hub.staging import copy_adapter, describe_base_model, read_run, stage
from dreamspace.jobs.events import EventWriter
from tests.hub.conftest import PHOTOS, write_adapter, write_image
from tests.hub.fake_hub import front_matter


def staged(run_dir: Path, folder: Path) -> dict[str, bytes]:
    files = stage(read_run(run_dir), "alice/rex", folder)
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert files == present
    return {file: (folder / file).read_bytes() for file in files}


def test_only_adapter_card_and_newest_images_are_staged(run_dir: Path, tmp_path: Path) -> None:
    files = staged(run_dir, tmp_path / "staging")
    assert list(files) == [
        "README.md",
        "adapter/pytorch_lora_weights.safetensors",
        "images/0.png",
        "images/1.png",
    ]
    with Image.open(tmp_path / "staging" / "images" / "1.png") as image:
        assert image.getpixel((0, 0)) == (202, 0, 0)
    widget = front_matter(files["README.md"].decode())["widget"]
    assert [entry["text"] for entry in widget] == ["a photo of a sks dog", "a photo of a sks dog in the snow"]


def test_moving_average_is_staged_beside_the_adapter(run_dir: Path, tmp_path: Path) -> None:
    write_adapter(run_dir / "adapter-ema" / "pytorch_lora_weights.safetensors", alpha=4)
    files = staged(run_dir, tmp_path / "staging")
    averaged = files["adapter-ema/pytorch_lora_weights.safetensors"]
    assert b"unet.lora_alpha" in averaged
    assert PHOTOS.encode() not in averaged
    assert averaged != files["adapter/pytorch_lora_weights.safetensors"]


def test_nothing_staged_names_a_path_of_the_machine(run_dir: Path, tmp_path: Path) -> None:
    config = read_json(run_dir / "config.json")
    write_json(
        run_dir / "config.json", {**config, "pretrained_model_name_or_path": str(tmp_path / "models" / "x")}
    )
    everything = b"".join(staged(run_dir, tmp_path / "staging").values())
    for path in (PHOTOS, str(tmp_path), "/priors", str(Path.home()) + "/"):
        assert path.encode() not in everything


def test_settings_come_from_the_subject_dataset_and_the_config(run_dir: Path, tmp_path: Path) -> None:
    card = staged(run_dir, tmp_path / "staging")["README.md"].decode()
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| ")][2:]
    assert {label.removeprefix("| "): value.removesuffix(" |") for label, value in rows} == {
        "Base model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "Steps": "200",
        "Resolution": "512 px",
        "Batch size": "2",
        "Gradient accumulation": "1",
        "Learning rate": "0.0001",
        "Learning rate schedule": "constant",
        "Weights": "LoRA adapter",
        "Rank": "16",
        "Alpha": "16",
        "Mixed precision": "no",
        "Seed": "42",
        "Prior preservation": "yes",
        "Dreamspace": dreamspace.__version__,
    }


def test_card_tells_the_kind_of_weights_and_the_levels_of_precision(run_dir: Path, tmp_path: Path) -> None:
    config = read_json(run_dir / "config.json")
    lycoris = {"algo": "lokr", "linear_dim": 8, "linear_alpha": 4, "multiplier": 0.5}
    changes = {
        "model_family": "flux",
        "lora_type": "lycoris",
        "lycoris_config": lycoris,
        "base_model_precision": "int8-quanto",
        "text_encoder_2_precision": "nf4-bnb",
    }
    write_json(run_dir / "config.json", {**config, **changes})
    card = staged(run_dir, tmp_path / "staging")["README.md"].decode()
    assert front_matter(card)["tags"] == ["text-to-image", "diffusers", "lycoris", "dreambooth", "dreamspace"]
    for row in (
        r"| Weights | LyCORIS adapter \(lokr\) |",
        "| Rank | 8 |",
        "| Alpha | 4 |",
        "| Precision of the base model | int8-quanto |",
        "| Precision of text encoder 2 | nf4-bnb |",
    ):
        assert row in card
    assert "text encoder 1" not in card
    assert "create_lycoris_from_weights(0.5, file, pipeline.transformer)" in card
    assert "all ranks" not in card
    changes = {"lora_type": "lycoris", "lycoris_config": {"algo": "tlora"}}
    write_json(run_dir / "config.json", {**config, **changes})
    card = staged(run_dir, tmp_path / "tlora")["README.md"].decode()
    assert "These lines draw with all ranks of the adapter at every step" in card


def test_an_adapter_that_lycoris_cannot_load_is_refused(run_dir: Path) -> None:
    config = read_json(run_dir / "config.json")
    changes = {"lora_type": "lycoris", "lycoris_config": {"algo": "ia3"}}
    write_json(run_dir / "config.json", {**config, **changes})
    with pytest.raises(ValueError, match="cannot load an ia3 adapter from its file"):
        read_run(run_dir)


def test_card_names_a_caption_that_was_trained(run_dir: Path, tmp_path: Path) -> None:
    datasets = read_json(run_dir / "multidatabackend.json")
    datasets[1]["instance_prompt"] = ["sks in a park", "sks"]
    write_json(run_dir / "multidatabackend.json", [{**datasets[1], "id": "off", "disabled": True}, *datasets])
    card = staged(run_dir, tmp_path / "staging")["README.md"].decode()
    assert front_matter(card)["instance_prompt"] == "sks in a park"
    assert "Write **sks in a park** where the subject is to appear." in card


def test_a_run_that_could_not_be_trained_is_refused(run_dir: Path) -> None:
    config = read_json(run_dir / "config.json")
    write_json(run_dir / "config.json", {**config, "lora_rnk": 4})
    with pytest.raises(ValueError, match="there is no key 'lora_rnk'"):
        read_run(run_dir)
    write_json(run_dir / "config.json", config)
    write_json(run_dir / "multidatabackend.json", [{"id": "rex"}])
    with pytest.raises(ValueError, match="the key 'instance_data_dir' is missing"):
        read_run(run_dir)


def test_trained_image_is_taken_before_the_ema_image_and_the_later_before_the_earlier(run_dir: Path) -> None:
    events = EventWriter(run_dir)
    for name, weights in (("first", "trained"), ("second", "trained"), ("third", "ema")):
        path = write_image(run_dir / "validation" / "step-000300" / f"{name}.png", 1).relative_to(run_dir)
        events.write("sample", step=300, prompt="p", seed=1, path=path, weights=weights)
    assert [path.stem for path, _ in read_run(run_dir).samples] == ["second"]


def test_a_sample_outside_the_validation_folder_is_left_out(run_dir: Path) -> None:
    photo = write_image(run_dir.parents[1] / "subjects" / "rex" / "photos" / "0.png", 1)
    (run_dir / "validation" / "step-000300").mkdir()
    (run_dir / "validation" / "step-000300" / "link.png").symlink_to(photo)
    events = EventWriter(run_dir)
    paths = ("../../subjects/rex/photos/0.png", str(photo), "validation/step-000300/link.png", "log.txt")
    for seed, path in enumerate(paths):
        events.write("sample", step=300, prompt="p", seed=seed, path=path, weights="trained")
    assert read_run(run_dir).samples == []


def test_a_run_that_never_sampled_is_published_without_images(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "events.jsonl").unlink()
    assert list(staged(run_dir, tmp_path / "staging")) == [
        "README.md",
        "adapter/pytorch_lora_weights.safetensors",
    ]


def test_images_lose_their_text_chunks(run_dir: Path, tmp_path: Path) -> None:
    assert PHOTOS.encode() in (run_dir / "validation" / "step-000200" / "1.png").read_bytes()
    assert PHOTOS.encode() not in staged(run_dir, tmp_path / "staging")["images/0.png"]


def test_adapter_keeps_its_tensors_and_alpha_and_loses_paths(tmp_path: Path) -> None:
    source = write_adapter(tmp_path / "source.safetensors", alpha=8)
    target = tmp_path / "target.safetensors"
    copy_adapter(source, target)
    with safe_open(source, framework="numpy") as before, safe_open(target, framework="numpy") as after:
        assert list(after.keys()) == list(before.keys())
        for key in list(after.keys()):
            assert (after.get_tensor(key) == before.get_tensor(key)).all()
        assert after.metadata().keys() == {"format", "lora_adapter_metadata"}
        assert json.loads(after.metadata()["lora_adapter_metadata"]) == {"unet.lora_alpha": 8, "unet.r": 16}
    assert PHOTOS.encode() not in target.read_bytes()


@pytest.mark.parametrize("num_bytes", [0, 5, 100, 1_000_000])
def test_a_cut_off_adapter_is_refused(run_dir: Path, tmp_path: Path, num_bytes: int) -> None:
    adapter = run_dir / "adapter" / "pytorch_lora_weights.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match="cut off or not a safetensors file"):
        stage(read_run(run_dir), "alice/rex", tmp_path / "staging")


def test_a_broken_image_is_refused_by_name(run_dir: Path, tmp_path: Path) -> None:
    image = run_dir / "validation" / "step-000200" / "2.png"
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"step-000200/2\.png cannot be read"):
        stage(read_run(run_dir), "alice/rex", tmp_path / "staging")


def test_a_run_without_adapter_is_refused(run_dir: Path) -> None:
    (run_dir / "adapter" / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"rex-1 has no finished adapter\. .* give one of its checkpoints"):
        read_run(run_dir)


@pytest.mark.parametrize("ema", [False, True])
def test_a_checkpoint_or_its_average_is_staged_with_its_own_images_and_steps(
    run_dir: Path, tmp_path: Path, ema: bool
) -> None:
    name = "pytorch_lora_weights.safetensors"
    plain = write_adapter(run_dir / "checkpoints" / "step-000100" / name, alpha=4)
    averaged = write_adapter(run_dir / "checkpoints" / "step-000100" / "ema" / name, alpha=2)
    config = read_json(run_dir / "config.json")
    write_json(run_dir / "config.json", {**config, "use_ema": True})
    run = read_run(run_dir, 100, ema)
    assert run.adapters == (
        {f"adapter/{name}": averaged} if ema else {f"adapter/{name}": plain, f"adapter-ema/{name}": averaged}
    )
    files = stage(run, "alice/rex", tmp_path / "staging")
    assert [path.parent.name for path, _ in run.samples] == ["step-000100"] * 2
    assert "images/1.png" in files
    card = (tmp_path / "staging" / "README.md").read_text()
    assert "| Steps | 100 |" in card
    assert ("moving average" in card) == ema


def test_a_checkpoint_that_is_not_there_is_refused(run_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"has no checkpoint at step 150\. Its checkpoints are: none yet"):
        read_run(run_dir, 150)
    with pytest.raises(ValueError, match="has no moving average: its use_ema is false"):
        read_run(run_dir, ema=True)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    "name", ["/models/sdxl", "../models/sdxl", "./sdxl", "~/sdxl", "C:\\models\\sdxl", "a/b/c"]
)
def test_a_path_is_never_shown_as_base_model(name: str) -> None:
    base = describe_base_model(name)
    assert base.hub_id is None
    assert base.name == "a model from a local folder"


def test_base_model_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "runwayml/stable-diffusion-v1-5"
    assert describe_base_model(name).hub_id == name
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert describe_base_model(name).hub_id is None
    assert describe_base_model("mini").hub_id is None
    assert "mini model" in describe_base_model("mini").name
