"""Caches: what is stored equals what was computed, nothing is computed twice, and keys follow content."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dreamspace.config import DatasetConfig
from dreamspace.data.cache import TensorCache, cache_latents, cache_prompts, latents_key, pixels_of
from dreamspace.data.samples import Sample, read_samples


class Encoder:
    """Counts the rows that it encodes; latents are 8 x 8 means of the pixels."""

    def __init__(self) -> None:
        self.num_rows = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        self.num_rows += len(pixels)
        return torch.nn.functional.avg_pool2d(pixels, 8)


def no_progress(done: int, total: int) -> None:
    pass


def squares(photos: Path, resolution: int) -> list[Sample]:
    dataset = DatasetConfig(
        id="a", instance_data_dir=photos, instance_prompt="a", resolution=resolution, crop=True
    )
    return read_samples(dataset, [dataset], 16, seed=0)[0]


@pytest.fixture
def samples(photos: Path) -> list[Sample]:
    return squares(photos, 64)


def test_pixels_span_minus_one_to_one(samples: list[Sample]) -> None:
    pixels = pixels_of(samples[0].picture())
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == torch.float32
    back = pixels.add(1).mul(127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert back.numpy().tobytes() == samples[0].picture().tobytes()


def test_stored_latents_equal_computed_ones_and_are_not_computed_again(
    samples: list[Sample], tmp_path: Path
) -> None:
    encoder, cache = Encoder(), TensorCache(tmp_path)
    # Five samples in batches of four, one of them twice.
    fresh = cache_latents(cache, [*samples, samples[0]], "vae", encoder, no_progress)
    assert encoder.num_rows == 4
    stored = cache_latents(cache, samples, "vae", encoder, no_progress)
    assert encoder.num_rows == 4
    for index, sample in enumerate(samples):
        computed = Encoder()(pixels_of(sample.picture())[None])[0]
        assert torch.equal(fresh[index], computed)
        assert torch.equal(stored[index], computed)
    assert torch.equal(fresh[4], fresh[0])


def test_only_what_is_missing_is_encoded_and_counted(samples: list[Sample], tmp_path: Path) -> None:
    cache, progress = TensorCache(tmp_path), []
    cache_latents(cache, samples[:1], "vae", Encoder(), no_progress)
    encoder = Encoder()
    cache_latents(cache, samples, "vae", encoder, lambda *counts: progress.append(counts))
    assert encoder.num_rows == 3
    assert progress == [(3, 3)]


def test_sizes_are_not_mixed_in_a_batch(photos: Path, tmp_path: Path) -> None:
    found = [sample for resolution in (64, 32) for sample in squares(photos, resolution)]
    latents = cache_latents(TensorCache(tmp_path), found, "vae", Encoder(), no_progress)
    assert [tuple(row.shape) for row in latents] == [(3, 8, 8)] * 4 + [(3, 4, 4)] * 4


def test_key_follows_photo_geometry_and_vae_but_not_the_name(samples: list[Sample]) -> None:
    sample = samples[0]
    geometry = sample.geometry
    keys = {
        latents_key(sample, "vae"),
        latents_key(sample, "other vae"),
        latents_key(replace(sample, content_id="0" * 16), "vae"),
        latents_key(replace(sample, geometry=replace(geometry, crop=(0, 0, 64, 64))), "vae"),
        latents_key(replace(sample, geometry=replace(geometry, resized_size=(160, 128))), "vae"),
    }
    assert len(keys) == 5
    assert latents_key(replace(sample, path=Path("elsewhere.png"), captions=("b",)), "vae") in keys


def test_damaged_file_is_computed_again(samples: list[Sample], tmp_path: Path) -> None:
    cache, encoder = TensorCache(tmp_path), Encoder()
    first = cache_latents(cache, samples[:1], "vae", encoder, no_progress)
    path = cache.path(latents_key(samples[0], "vae"))
    path.write_bytes(path.read_bytes()[:40])
    again = cache_latents(cache, samples[:1], "vae", encoder, no_progress)
    assert encoder.num_rows == 2
    assert torch.equal(again[0], first[0])
    assert torch.equal(cache.load(latents_key(samples[0], "vae"))["latents"], first[0])


def test_prompts_are_encoded_once_and_kept_apart_by_encoder(tmp_path: Path) -> None:
    cache, asked = TensorCache(tmp_path), []

    def encode(prompt: str) -> dict[str, Tensor]:
        asked.append(prompt)
        return {"prompt_embeds": torch.full((2, 3), float(len(prompt)))}

    found = cache_prompts(cache, ["a", "bb", "a", ""], "clip", encode)
    assert asked == ["a", "bb", ""]
    again = cache_prompts(cache, ["bb", "a"], "clip", encode)
    assert len(asked) == 3
    assert set(again) == {"a", "bb"}
    assert torch.equal(again["bb"]["prompt_embeds"], found["bb"]["prompt_embeds"])
    cache_prompts(cache, ["a"], "another clip", encode)
    assert asked[3:] == ["a"]
