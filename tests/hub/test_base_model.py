"""A base model from the Hub, by the real command: what is downloaded, and where the token goes."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import command_environment, run_command

from tests.hub.fake_hub import FakeHub

DECOYS = (
    "v1-5-pruned.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
    "safety_checker/model.safetensors",
    "text_encoder/model.fp16.safetensors",
)


def test_private_model_is_downloaded_without_what_is_not_needed_and_the_token_reaches_no_file(
    hub: FakeHub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        path.relative_to(tiny_model).as_posix(): path.read_bytes()
        for path in tiny_model.rglob("*")
        if path.is_file()
    }
    files["unet/diffusion_pytorch_model-00001-of-00002.safetensors"] = b"a shard, as large models have them"
    hub.add_repository("alice/base", is_private=True, files=files | dict.fromkeys(DECOYS, b"decoy"))
    home = tmp_path / "home"
    monkeypatch.setenv("DREAMSPACE_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    out = tmp_path / "out"
    command = ["prior", "--model", "alice/base", "--prompt", "a dog", "--count", "1"]
    result = run_command(*command, "--out", out)
    assert result.returncode == 0, result.stderr
    assert len(list(out.iterdir())) == 1
    resolved = [path.partition("/resolve/")[2] for _, path in hub.requests if "/resolve/" in path]
    assert {path.partition("/")[2] for path in resolved} == set(files)
    for path in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert hub.token.encode() not in path.read_bytes(), path
    assert hub.token not in result.stdout + result.stderr


def refusals_of(models: list[str], home: Path, endpoint: str, token: str) -> list[str]:
    """What a process of its own is told that asks for models of the Hub."""
    code = f"""from dreamspace.models.source import model_folder
for model in {models}:
    try:
        model_folder(model)
    except ValueError as error:
        print(error)
"""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": token}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=command_environment() | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


def test_model_that_the_hub_does_not_give_says_why(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_repository("alice/other", is_private=False, files={"model.safetensors": b"x"})
    missing, other = refusals_of(["alice/none", "alice/other"], tmp_path, hub.endpoint, hub.token)
    assert missing.startswith("The Hub has no model alice/none, or it is private.")
    assert other.startswith("alice/other is not a model in diffusers' layout: it holds no model_index.json.")
    hub.fail("info", 403, X_Error_Code="GatedRepo")
    (gated,) = refusals_of(["alice/gated"], tmp_path, hub.endpoint, hub.token)
    assert gated.startswith("The model alice/gated is gated. Accept its terms on its page")
    (far,) = refusals_of(["alice/far"], tmp_path, "http://127.0.0.1:9", hub.token)
    assert far.startswith("The model alice/far could not be downloaded (")
    assert "Check the network" in far
