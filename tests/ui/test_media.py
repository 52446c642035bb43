import json
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.numpy import load, save_file

from dreamspace.config import RunConfig, save_datasets, subject_datasets
from dreamspace.jobs.job import Job
from dreamspace.jobs.workspace import Workspace
from dreamspace.run_folder import AVERAGED, merged_folder
from dreamspace.ui import media
from dreamspace.ui.changes import choose_sample
from dreamspace.ui.downloads import adapter_url, downloads_router, pair_url
from dreamspace.ui.media import class_url, media_router, picture_url, subject_url
from tests.ui.recorded import record_run


@pytest.fixture
def client(workspace: Workspace) -> TestClient:
    app = FastAPI()
    app.include_router(media_router(workspace))
    app.include_router(downloads_router(workspace))
    return TestClient(app)


@pytest.fixture
def run_dir(workspace: Workspace) -> Path:
    run_dir = workspace.new_run_dir("sks dog")
    folder = run_dir / "validation" / "step-000100"
    folder.mkdir(parents=True)
    Image.new("RGB", (800, 600), "red").save(folder / "0.png")
    (folder / "1.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    (folder / "2.html").write_text("<script>alert(1)</script>")
    (run_dir / "config.json").write_text("{}")
    (run_dir / "log.txt").write_text("secret")
    adapter = run_dir / "adapter" / "pytorch_lora_weights.safetensors"
    adapter.parent.mkdir()
    adapter.write_bytes(b"weights")
    return run_dir


def test_a_picture_is_served_for_ever_and_never_as_a_document(client: TestClient, run_dir: Path) -> None:
    answer = client.get(picture_url(run_dir, "validation/step-000100/0.png", version=7))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert Image.open(BytesIO(answer.content)).size == (800, 600)


def test_a_small_copy_has_the_asked_width_and_is_kept(
    client: TestClient, run_dir: Path, workspace: Workspace
) -> None:
    url = picture_url(run_dir, "validation/step-000100/0.png", width_px=320)
    sizes = [Image.open(BytesIO(client.get(url).content)).size for _ in range(2)]
    assert sizes == [(320, 240), (320, 240)]
    assert len(list((workspace.cache / "thumbnails").iterdir())) == 1
    assert client.get(url.replace("w=320", "w=5000")).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "validation/step-000100/1.svg",
        "validation/step-000100/2.html",
        "validation/step-000100/9.png",
        "validation/../config.json",
        "validation/%2e%2e/%2e%2e/%2e%2e/secret.png",
        "%2Fetc%2Fpasswd",
        "config.json",
        "log.txt",
        "validation",
        ".hidden/0.png",
        "validation/.0.123.tmp.png",
    ],
)
def test_anything_else_of_a_run_does_not_exist(
    client: TestClient, run_dir: Path, workspace: Workspace, path: str
) -> None:
    Image.new("RGB", (4, 4)).save(workspace.root / "secret.png")
    (run_dir / ".hidden").mkdir()
    Image.new("RGB", (4, 4)).save(run_dir / ".hidden" / "0.png")
    Image.new("RGB", (4, 4)).save(run_dir / "validation" / ".0.123.tmp.png")
    assert client.get(f"/media/runs/{run_dir.name}/{path}").status_code == 404


def test_a_link_out_of_the_run_is_not_followed(client: TestClient, run_dir: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    (run_dir / "validation" / "link.png").symlink_to(tmp_path / "private.png")
    assert client.get(f"/media/runs/{run_dir.name}/validation/link.png").status_code == 404


@pytest.mark.parametrize("width_px", [None, 320])
def test_a_picture_that_is_deleted_while_it_is_asked_for_does_not_exist(
    client: TestClient, run_dir: Path, monkeypatch: pytest.MonkeyPatch, width_px: int | None
) -> None:
    def found_and_deleted(file: Path, folder: Path) -> bool:
        file.unlink()
        return True

    monkeypatch.setattr(media, "is_inside", found_and_deleted)
    url = picture_url(run_dir, "validation/step-000100/0.png", width_px=width_px)
    assert client.get(url).status_code == 404


@pytest.mark.parametrize("name", ["no-such-run", "..", "%2e%2e", ".deleted-sks-dog"])
def test_an_unknown_run_does_not_exist(client: TestClient, run_dir: Path, name: str) -> None:
    assert client.get(f"/media/runs/{name}/validation/step-000100/0.png").status_code == 404
    assert client.get(f"/download/{name}/adapter").status_code == 404


def test_the_adapter_is_a_download_named_after_its_run(client: TestClient, run_dir: Path) -> None:
    checkpoint = run_dir / "checkpoints" / "step-000100"
    checkpoint.mkdir(parents=True)
    (checkpoint / "pytorch_lora_weights.safetensors").write_bytes(b"earlier weights")
    (checkpoint / "optimizer.safetensors").write_bytes(b"moments")
    final, earlier = client.get(adapter_url(run_dir)), client.get(adapter_url(run_dir, "step-000100"))
    assert (final.content, earlier.content) == (b"weights", b"earlier weights")
    assert f'filename="{run_dir.name}.safetensors"' in final.headers["content-disposition"]
    assert final.headers["content-disposition"].startswith("attachment")
    assert f"{run_dir.name}-step-000100.safetensors" in earlier.headers["content-disposition"]
    assert client.get(adapter_url(run_dir, "step-000300")).status_code == 404
    assert client.get(f"/download/{run_dir.name}/..").status_code == 404


def test_the_adapter_is_also_a_download_in_kohyas_form(client: TestClient, run_dir: Path) -> None:
    RunConfig(model_family="sdxl", pretrained_model_name_or_path="owner/name").save(run_dir / "config.json")
    save_datasets(subject_datasets(run_dir, "a photo of a sks dog", 1024), run_dir / "multidatabackend.json")
    Job("train", {}).write(run_dir)
    weights = {
        f"unet.mid_block.to_q.lora_{part}.weight": np.full((4, 4), number, np.float32)
        for number, part in enumerate("AB")
    }
    settings = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 2})}
    save_file(weights, run_dir / "adapter" / "pytorch_lora_weights.safetensors", settings)
    answer = client.get(f"{adapter_url(run_dir)}?format=kohya")
    assert f'filename="{run_dir.name}-kohya.safetensors"' in answer.headers["content-disposition"]
    layer, found = "lora_unet_mid_block_to_q", load(answer.content)
    assert {name: weight.max() for name, weight in found.items()} == {
        f"{layer}.lora_down.weight": 0, f"{layer}.lora_up.weight": 1, f"{layer}.alpha": 2,
    }  # fmt: skip
    RunConfig(model_family="sana").save(run_dir / "config.json")
    assert client.get(f"{adapter_url(run_dir)}?format=kohya").status_code == 404
    assert client.get(f"{adapter_url(run_dir)}?format=pickle").status_code == 422


def test_the_averaged_adapter_is_a_download_of_its_own_where_there_is_one(
    client: TestClient, run_dir: Path, tmp_path: Path
) -> None:
    url = adapter_url(run_dir, AVERAGED)
    assert client.get(url).status_code == 404
    (run_dir / "adapter-ema").mkdir()
    weights = run_dir / "adapter-ema" / "pytorch_lora_weights.safetensors"
    weights.write_bytes(b"averaged weights")
    answer = client.get(url)
    assert answer.content == b"averaged weights"
    assert f'filename="{run_dir.name}-averaged.safetensors"' in answer.headers["content-disposition"]
    (tmp_path / "private").write_bytes(b"secret")
    weights.unlink()
    weights.symlink_to(tmp_path / "private")
    assert client.get(url).status_code == 404


def test_a_merged_model_is_a_zip_once_it_is_made(client: TestClient, run_dir: Path, tmp_path: Path) -> None:
    url = adapter_url(run_dir, form="merged")
    assert client.get(url).status_code == 404
    folder = merged_folder(run_dir, "adapter")
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    weights = bytes(range(256)) * 10_000
    (folder / "unet" / "model.safetensors").write_bytes(weights)
    (tmp_path / "private").write_bytes(b"secret")
    (folder / "link.json").symlink_to(tmp_path / "private")
    answer = client.get(url)
    assert f'filename="{run_dir.name}-merged.zip"' in answer.headers["content-disposition"]
    with ZipFile(BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        inner = [f"{run_dir.name}/{name}" for name in ("model_index.json", "unet/model.safetensors")]
        assert archive.namelist() == inner
        assert archive.read(inner[1]) == weights
    assert client.get(adapter_url(run_dir, "step-000100", "merged")).status_code == 404


def test_the_settings_of_a_run_are_a_pair_for_simpletuner_that_names_its_own_place(
    client: TestClient, workspace: Workspace
) -> None:
    run_dir = record_run(workspace, up_to=0, outcome="stopped")
    answer = client.get(pair_url(run_dir))
    with ZipFile(BytesIO(answer.content)) as archive:
        files = {name.removeprefix(f"{run_dir.name}/"): archive.read(name) for name in archive.namelist()}
    assert set(files) == {"README.txt", "config.json", "multidatabackend.json", "user_prompt_library.json"}
    config = json.loads(files["config.json"])
    assert config["data_backend_config"] == f"config/{run_dir.name}/multidatabackend.json"
    assert config["model_family"] == "sd1x"
    assert "SimpleTuner draws no class images" in files["README.txt"].decode()
    assert client.get("/download/nobody/simpletuner").status_code == 404


def test_photos_and_illustrations_are_served(client: TestClient, workspace: Workspace) -> None:
    subject_dir = choose_sample(workspace, "comet")
    photo = sorted((subject_dir / "photos").iterdir())[0]
    urls = [
        picture_url(subject_dir, f"photos/{photo.name}", width_px=160),
        subject_url("comet", "snow"),
        class_url("mug"),
    ]
    for url in urls:
        assert Image.open(BytesIO(client.get(url).content)).width > 100
    assert client.get(f"/media/subjects/{subject_dir.name}/subject.json").status_code == 404
    assert client.get(subject_url("nobody")).status_code == 404
    assert client.get(subject_url("comet", "moon")).status_code == 404
    assert class_url("dragon") is None
    assert client.get("/media/classes/mug/100000.webp").status_code == 404
