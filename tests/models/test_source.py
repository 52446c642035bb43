"""Where a model is: the embedded one, a folder, the Hub; and what tells one from another."""

import json
import os
import shutil
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from tiny_runs import tiny_config

from dreamspace.config import parse_run_config
from dreamspace.mini import MODEL_FOLDER
from dreamspace.models.base import open_model
from dreamspace.models.source import fingerprint, model_folder, part_config


def test_names_of_models(tiny_model: Path) -> None:
    assert model_folder("mini") == MODEL_FOLDER
    assert model_folder(str(tiny_model)) == tiny_model


@pytest.mark.parametrize("name", ["minni", "a/b/c", "./nowhere", "~/nowhere", "", "/nowhere"])
def test_what_is_neither_folder_nor_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^There is no model .*Give 'mini', an existing folder, or"):
        model_folder(name)


def test_misspelt_mini_is_named() -> None:
    with pytest.raises(ValueError, match="Did you mean 'mini'"):
        model_folder("minni")


def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not a model folder: it holds no model_index\.json"):
        model_folder(str(tmp_path))


@pytest.mark.parametrize("error", [GatedRepoError, RepositoryNotFoundError])
def test_model_that_needs_a_token_names_both_ways_to_give_one(
    error: type[HfHubHTTPError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(hub_id: str, allow_patterns: list[str]) -> None:
        request = httpx2.Request("GET", "https://huggingface.co")
        raise error("refused", response=httpx2.Response(401, request=request))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=r"run `hf auth login`, or set HF_TOKEN for the command\.$"):
        model_folder("owner/name")


def test_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"model_family must be 'sd1x', .* got \"sd1\"\."):
        parse_run_config({"model_family": "sd1"})


def test_model_of_another_family_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_model, model_family="sdxl")
    with pytest.raises(ValueError, match=r"not of family 'sdxl'\. Set model_family to sd1x or sd2x\."):
        open_model(config, tmp_path, torch.device("cpu"))


def test_missing_part_is_named(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copyfile(tiny_model / "model_index.json", tmp_path / "model_index.json")
    with pytest.raises(ValueError, match=r"has no part 'unet'\. Check model_family"):
        part_config(tmp_path, "unet")
    with pytest.raises(ValueError, match="has no part 'tokenizer'"):
        open_model(tiny_config(tmp_path), tmp_path, torch.device("cpu")).encode_prompts(["a"])


def test_fingerprint_follows_names_sizes_and_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    mebibyte = 1 << 20
    seen = set()
    for size in (10, mebibyte, mebibyte + 1, 3 * mebibyte // 2, 2 * mebibyte + 1, 5 * mebibyte):
        for changed in (None, 0, size - 1):
            content = bytearray(size)
            if changed is not None:
                content[changed] = 1
            path.write_bytes(content)
            seen.add(fingerprint(tmp_path))
    assert len(seen) == 18
    before = fingerprint(tmp_path)
    os.utime(path)
    (tmp_path / ".cache").mkdir()
    assert fingerprint(tmp_path) == before
    path.rename(tmp_path / "other.safetensors")
    assert fingerprint(tmp_path) != before


def test_fingerprint_follows_the_config_but_for_diffusers_own_notes(tmp_path: Path) -> None:
    config, seen = tmp_path / "config.json", []
    for content in (
        {"_class_name": "AutoencoderKL", "_name_or_path": "../vae", "scaling_factor": 0.13},
        {"scaling_factor": 0.13, "_diffusers_version": "0.19.0"},
        {"scaling_factor": 0.18},
    ):
        config.write_text(json.dumps(content))
        seen.append(fingerprint(tmp_path))
    assert seen[0] == seen[1] != seen[2]
