from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config

from dreamspace.models.base import BaseModel, open_model


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> BaseModel:
    """The tiny model, with a cache of this test."""
    return open_model(tiny_config(tiny_model), tmp_path / "cache", torch.device("cpu"))
