"""What saves memory or time and leaves the training as it is: the VAE's absence, and torch.compile."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import QUICK, events_of, train_here, write_run_folder
from torch import nn

from dreamspace.config import parse_run_config
from dreamspace.run_folder import WEIGHTS_NAME
from dreamspace.training.validation import on_device


def test_module_is_on_the_device_only_while_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    module, went = nn.Linear(1, 1), []
    monkeypatch.setattr(module, "to", lambda device: went.append(str(device)))
    with on_device(module, torch.device("cuda")):
        assert went == ["cuda"]
    assert went == ["cuda", "cpu"]
    with on_device(None, torch.device("cuda")):
        pass


def test_compiled_run_learns_the_same_and_keeps_its_names(
    tiny_model: Path, photos: Path, tmp_path: Path
) -> None:
    runs = {}
    for backend in ("no", "eager"):
        run_dir = tmp_path / backend
        write_run_folder(run_dir, tiny_model, photos, **QUICK | {"dynamo_backend": backend})
        train_here(run_dir)
        assert events_of(run_dir, "done"), "the adapter was loaded again and drew what was trained"
        losses = [event["loss"] for event in events_of(run_dir, "loss")]
        runs[backend] = losses, load_file(run_dir / "adapter" / WEIGHTS_NAME)
    assert runs["eager"][0] == pytest.approx(runs["no"][0], rel=1e-5)
    assert runs["eager"][1].keys() == runs["no"][1].keys()
    torch.testing.assert_close(runs["eager"][1], runs["no"][1], rtol=1e-3, atol=1e-4)


def test_what_is_not_compiled_is_refused() -> None:
    for settings in ({"gradient_checkpointing": True}, {"base_model_precision": "int8-quanto"}):
        with pytest.raises(ValueError, match="dynamo_backend 'inductor' compiles the denoiser whole"):
            parse_run_config({"dynamo_backend": "inductor"} | settings)
