from pathlib import Path

import pytest
import torch

from dreamspace.models.base import BaseModel, open_model


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> BaseModel:
    """The tiny model, with a cache of this test."""
    return open_model(str(tiny_model), "sd1x", tmp_path / "cache", torch.device("cpu"))
