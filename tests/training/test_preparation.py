"""Before the first step: everything is encoded once, and what encodes leaves memory."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_runs import (
    CLASS_PROMPT,
    INSTANCE_PROMPT,
    cropped_dataset,
    draw_photos,
    masked_datasets,
    tiny_config,
)

from dreamspace.config import DatasetConfig
from dreamspace.data.cache import pixels_of
from dreamspace.jobs.events import EventWriter, read_events
from dreamspace.models.base import BaseModel, open_model
from dreamspace.training.preparation import (
    TrainingSet,
    cache_folder,
    local_datasets,
    read_training_set,
    sampling_settings,
    validation_prompts,
)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> BaseModel:
    return open_model(tiny_config(tiny_model), tmp_path / "cache", torch.device("cpu"))


def subject(folder: Path, **settings) -> DatasetConfig:
    return cropped_dataset(folder, **settings)


def prior(folder: Path, **settings) -> DatasetConfig:
    values = {"id": "prior", "instance_prompt": CLASS_PROMPT, "is_regularisation_data": True} | settings
    return subject(folder, **values)


def read(model: BaseModel, datasets: list[DatasetConfig], job_dir: Path, **settings) -> TrainingSet:
    config = tiny_config(model.folder, **settings)
    return read_training_set(config, datasets, model, EventWriter(job_dir), step_rows=4)


def warnings(job_dir: Path) -> list[str]:
    return [e["message"] for e in read_events(job_dir / "events.jsonl")[0] if e["kind"] == "warning"]


def test_cached_latents_and_prompts_equal_uncached_ones(
    model: BaseModel, photos: Path, class_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = [subject(photos), prior(class_photos)]
    fresh = read(model, datasets, tmp_path, validation_prompts=["a cat"])

    def refuse(*arguments) -> None:
        pytest.fail("what is cached is not computed again")

    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "load_vae", refuse)
        patch.setattr(BaseModel, "load_text_encoders", refuse)
        cached = read(model, datasets, tmp_path, validation_prompts=["a cat"])
    vae = model.load_vae()
    for fresh_rows, cached_rows, samples in zip(fresh.latents, cached.latents, fresh.samples, strict=True):
        for fresh_row, cached_row, sample in zip(fresh_rows, cached_rows, samples, strict=True):
            assert torch.equal(fresh_row, cached_row)
            uncached = model.family.encode_image(vae, pixels_of(sample.picture())[None])[0]
            torch.testing.assert_close(cached_row, uncached, rtol=1e-4, atol=1e-6)
    encoders = model.load_text_encoders()
    assert set(cached.conditioning) == {INSTANCE_PROMPT, CLASS_PROMPT, "a cat", ""}
    for prompt, conditioning in cached.conditioning.items():
        uncached = model.family.encode_prompts(encoders, [prompt])[0]
        assert torch.equal(conditioning["prompt_embeds"], uncached["prompt_embeds"])
        assert torch.equal(conditioning["prompt_embeds"], fresh.conditioning[prompt]["prompt_embeds"])


def test_text_encoders_and_vae_are_gone_from_memory_afterwards(
    model: BaseModel, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    for name, module_of in [
        ("load_text_encoders", lambda pipeline: pipeline.text_encoder),
        ("load_vae", lambda vae: vae),
    ]:
        load = getattr(BaseModel, name)

        def watched(model, load=load, module_of=module_of):
            part = load(model)
            module = module_of(part)
            loaded.extend(map(weakref.ref, [module, *module.parameters()]))
            return part

        monkeypatch.setattr(BaseModel, name, watched)
    training_set = read(model, [subject(photos)], tmp_path)
    assert len(loaded) > 50
    gc.collect()
    assert [reference for reference in loaded if reference() is not None] == []
    assert len(training_set.latents[0]) == 4


def test_refused_photo_is_a_warning(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for path in photos.iterdir():
        os.link(path, folder / path.name)
    (folder / "broken.jpg").write_text("no picture")
    training_set = read(model, [subject(folder)], tmp_path)
    assert training_set.num_instances == 4
    (warning,) = warnings(tmp_path)
    assert warning.startswith("Left out broken.jpg: ")


def test_a_caption_beyond_the_limit_is_a_warning_that_says_what_is_lost(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    read(model, [subject(photos)], tmp_path)
    assert warnings(tmp_path) == []
    # A piece is a letter, and the encoder reads 48 tokens, begin and end among them.
    long = "a photo of a sks dog that lies on the red sofa of my own house"
    read(model, [subject(photos, instance_prompt=long)], tmp_path)
    assert warnings(tmp_path) == [
        f"The text encoder reads 46 of the 47 pieces of '{long}': it never sees 'e'."
    ]


def test_pictures_that_are_not_read_are_warnings_once_a_folder(model: BaseModel, tmp_path: Path) -> None:
    photos, masks = masked_datasets(tmp_path)
    inside = tmp_path / "photos" / "masks"
    (tmp_path / "masks").rename(inside)
    masks = masks.model_copy(update={"instance_data_dir": inside})
    draw_photos(tmp_path / "photos" / "more", 1)
    (tmp_path / "photos" / "drawing.svg").touch()
    small = photos.model_copy(update={"id": "small", "resolution": 32})
    read(model, [photos, small, masks], tmp_path)
    of_kind, of_folders = warnings(tmp_path)
    assert of_kind.startswith("Not read, because of their kind: drawing.svg in")
    assert of_folders.endswith("are not read: more/. Move them up."), "masks are read where they lie"


def test_repeats_and_class_images_make_the_mixture(
    model: BaseModel, photos: Path, class_photos: Path, tmp_path: Path
) -> None:
    training_set = read(model, [subject(photos, repeats=2), prior(class_photos)], tmp_path)
    assert training_set.plan.epoch_steps() == 4
    assert training_set.mixture(4) == {"subject": 0.75, "prior": 0.25}
    assert (training_set.num_instances, training_set.num_prior) == (4, 4)


def test_only_datasets_of_images_that_are_drawn_are_trained(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    others = [
        subject(photos, id="never", probability=0),
        subject(photos, id="held out", dataset_type="eval"),
        DatasetConfig(id="texts", dataset_type="text_embeds", default=True),
    ]
    training_set = read(model, [*others, subject(photos)], tmp_path)
    assert [dataset.id for dataset in training_set.plan.datasets] == ["subject"]
    assert training_set.num_instances == 4


def test_same_folder_at_two_sizes_is_one_run_and_each_step_has_one_size(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    training_set = read(model, [subject(photos), subject(photos, id="small", resolution=32)], tmp_path)
    for step in range(6):
        rows = training_set.plan.rows(step)
        shapes = {training_set.latents[dataset][sample].shape for dataset, sample in rows}
        assert len(shapes) == 1
    assert {tuple(rows[0].shape) for rows in training_set.latents} == {(4, 8, 8), (4, 4, 4)}


def test_image_free_prior_shares_the_latents_of_the_subjects_photos(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    training_set = read(model, [subject(photos), prior(photos)], tmp_path)
    assert (training_set.num_instances, training_set.num_prior) == (4, 4)
    assert all(map(torch.equal, *training_set.latents))
    assert {sample.regularisation for sample in training_set.samples[1]} == {"base"}


def test_masks_lie_at_the_cells_of_the_latents(model: BaseModel, tmp_path: Path) -> None:
    training_set = read(model, masked_datasets(tmp_path, boxes={2: (0, 0, 4, 64)}), tmp_path)
    (masks,) = training_set.masks
    assert {tuple(mask.shape) for mask in masks} == {(8, 8)}
    assert [round(mask.mean().item(), 2) for mask in masks] == [0.5, 0.25, 0.0, 0.5]
    (warning,) = warnings(tmp_path)
    assert "nothing is left of the mask of 02.png, so nothing is learned from this photo" in warning


def test_black_mask_is_one_warning(model: BaseModel, tmp_path: Path) -> None:
    photos, masks = masked_datasets(tmp_path)
    Image.new("L", (80, 64)).save(tmp_path / "masks" / "02.png")
    subject = photos.model_copy(update={"crop_style": "subject"})
    read(model, [subject, masks], tmp_path)
    assert len([warning for warning in warnings(tmp_path) if "02.png" in warning]) == 1


@pytest.mark.parametrize("kind", ["mask", "segmentation"])
def test_masks_that_are_all_black_are_refused_whatever_class_images_have(
    model: BaseModel, class_photos: Path, tmp_path: Path, kind: str
) -> None:
    corner = (0, 0, 4, 64)  # the crop loses it
    datasets = [
        *masked_datasets(tmp_path, kind, boxes=dict.fromkeys(range(4), corner)),
        prior(class_photos),
    ]
    with pytest.raises(ValueError, match=r"The masks of all photos of the subject, in .*masks, are black"):
        read(model, datasets, tmp_path)
    assert warnings(tmp_path) == []


def test_missing_mask_is_named(model: BaseModel, tmp_path: Path) -> None:
    datasets = masked_datasets(tmp_path)
    (tmp_path / "masks" / "02.png").unlink()
    with pytest.raises(ValueError, match=r"The photo 02\.png has no mask in .*masks\. Add 02\.png"):
        read(model, datasets, tmp_path)


def test_caches_lie_where_the_datasets_say(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    texts = [
        DatasetConfig(id=name, dataset_type="text_embeds", cache_dir=tmp_path / name, default=name == "b")
        for name in ("a", "b")
    ]
    images = DatasetConfig(id="c", dataset_type="image_embeds", cache_dir=tmp_path / "c")
    own = subject(photos, id="own", cache_dir_vae=tmp_path / "own", max_num_samples=2)
    assert cache_folder(texts, "text_embeds") == tmp_path / "b"
    assert cache_folder(texts, "image_embeds") is None
    read(model, [subject(photos), own, *texts, images], tmp_path)
    counts = {name: len(list((tmp_path / name).glob("*"))) for name in ("b", "c", "own")}
    assert counts == {"b": 3, "c": 4, "own": 2}
    assert not (tmp_path / "a").exists()
    assert not model.cache.exists()


def test_empty_prompt_is_encoded_where_captions_are_dropped(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    without = {"validation_negative_prompt": "blurry"}
    assert "" not in read(model, [subject(photos)], tmp_path, **without).conditioning
    dropped = read(model, [subject(photos)], tmp_path, **without, caption_dropout_probability=0.1)
    assert "" in dropped.conditioning


def test_dataset_of_the_hubs_kind_is_read_as_a_folder(model: BaseModel, photos: Path, tmp_path: Path) -> None:
    hub = DatasetConfig(
        id="hub",
        type="huggingface",
        dataset_name=str(photos),
        instance_prompt=INSTANCE_PROMPT,
        resolution=64,
        resolution_type="pixel",
        crop=True,
    )
    local = local_datasets([hub], model.cache, EventWriter(tmp_path))
    assert read(model, local, tmp_path).num_instances == 4


def test_digest_follows_photos_captions_repeats_and_targets(
    model: BaseModel, photos: Path, tmp_path: Path
) -> None:
    digests = [
        read(model, [dataset], tmp_path).digest
        for dataset in (
            subject(photos),
            subject(photos),
            subject(photos, repeats=1),
            subject(photos, instance_prompt="other"),
            subject(photos, max_num_samples=3),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    targets = [
        read(model, [subject(photos), prior(photos, regularisation_target=target)], tmp_path).digest
        for target in ("base", "noise")
    ]
    assert targets[0] != targets[1]


def test_digest_follows_the_masks(model: BaseModel, tmp_path: Path) -> None:
    digests = [
        read(model, masked_datasets(tmp_path, kind, boxes), tmp_path).digest
        for kind, boxes in (
            ("mask", None),
            ("mask", {0: (8, 0, 48, 64)}),
            ("segmentation", None),
            ("mask", None),
        )
    ]
    assert len(set(digests)) == 3
    assert digests[0] == digests[3]


def test_validation_prompts_begin_with_the_instance_prompt_and_come_once(photos: Path) -> None:
    datasets = [prior(photos), subject(photos, instance_prompt=["by hand", "second"])]
    folder = Path("mini")
    further = {"validation_prompts": ["a cat", INSTANCE_PROMPT, "a cat"]}
    assert validation_prompts(tiny_config(folder, **further), [subject(photos)]) == [INSTANCE_PROMPT, "a cat"]
    by_hand = tiny_config(folder, validation_prompts=[])
    assert validation_prompts(by_hand, datasets) == ["by hand"], "what is trained, whatever the words are"
    given = tiny_config(folder, validation_prompt="mine", validation_prompts=["mine"])
    assert validation_prompts(given, datasets) == ["mine"]


def test_validation_resolution_must_fit_the_model() -> None:
    config = tiny_config(Path("mini"))
    assert sampling_settings(config, (64, 64), 16).width_px == 64
    wide = sampling_settings(tiny_config(Path("mini"), validation_resolution="96x64"), (64, 64), 16)
    assert (wide.width_px, wide.height_px) == (96, 64)
    with pytest.raises(ValueError, match=r"validation_resolution must be .* of 16 px .*, got 100\. Try 96\."):
        sampling_settings(tiny_config(Path("mini"), validation_resolution="100"), (64, 64), 16)
