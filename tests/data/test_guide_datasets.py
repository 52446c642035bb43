"""The DreamBooth guide's two lists of datasets, paths aside, at the sizes that are written there."""

from pathlib import Path

import guide_examples
from PIL import Image, ImageDraw

from dreamspace.config import DatasetConfig, load_datasets
from dreamspace.data.plan import PlannedDataset, StepPlan
from dreamspace.data.samples import Sample, check_files, read_samples

MINI_MULTIPLE_PX = 32

PHOTOS, MASKS = "datasets/test_datasets/dreambooth", "datasets/test_datasets/dreambooth_mask"
SUBJECT, MEN = "datasets/subjectname", "datasets/regularisation"


def draw(folder: Path, *sizes: tuple[int, int], mode: str = "RGB") -> None:
    folder.mkdir(parents=True)
    for number, (width, height) in enumerate(sizes):
        image = Image.new(mode, (width, height))
        ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill="white")
        image.save(folder / f"{number}.png", compress_level=1)


def read(
    tmp_path: Path, example: str
) -> tuple[list[DatasetConfig], dict[str, tuple[list[Sample], list[str]]]]:
    datasets = load_datasets(guide_examples.write(example, tmp_path))
    check_files(datasets)
    return datasets, {
        dataset.id: read_samples(dataset, datasets, MINI_MULTIPLE_PX, 42)
        for dataset in datasets
        if dataset.is_trained
    }


def test_masked_example(tmp_path: Path) -> None:
    sizes = [(1600, 1200), (1100, 1500), (1200, 900)]
    draw(tmp_path / PHOTOS, *sizes)
    draw(tmp_path / MASKS, *sizes, mode="L")
    _, read_by_id = read(tmp_path, guide_examples.MASKED)
    samples, warnings = read_by_id["dreambooth-data"]
    assert [sample.geometry.size for sample in samples] == [(1024, 1024)] * 2
    assert warnings == [
        "Left out 2.png: it has 1200 x 900 px, and minimum_image_size asks for 1024 px in both width and "
        "height."
    ]
    for sample in samples:
        assert sample.captions == ("an dreambooth",)
        cells = sample.mask.cells(sample.geometry, 128, 128)
        with sample.picture() as picture:
            red = picture.getchannel("R").resize((128, 128), Image.Resampling.BOX)
        assert max(abs(red.getpixel((x, 60)) / 255 - cells[60, x]) for x in range(128)) < 0.05
        assert 0.02 < cells.mean() < 0.1


def test_regularised_example(tmp_path: Path) -> None:
    draw(tmp_path / SUBJECT, (1200, 900), (900, 1200), (700, 700), (100, 100))
    draw(tmp_path / MEN, *[(512, 512)] * 3, (1024, 1024))
    datasets, read_by_id = read(tmp_path, guide_examples.REGULARISED)
    buckets = {name: [s.geometry.size for s in samples] for name, (samples, _) in read_by_id.items()}
    assert buckets == {
        "subjectname-data-512px": [(576, 448), (448, 576), (512, 512)],
        "subjectname-data-1024px": [(1216, 896), (896, 1216)],
        "regularisation-data": [(512, 512)] * 4,
        "regularisation-data-1024px": [(1024, 1024)],
    }
    targets = {name: {s.regularisation for s in samples} for name, (samples, _) in read_by_id.items()}
    assert targets == {name: {"base"} if "regularisation" in name else {None} for name in targets}
    planned = [
        PlannedDataset(d.id, tuple(buckets[d.id]), d.repeats + 1, d.probability)
        for d in datasets
        if d.is_trained
    ]
    plan = StepPlan(planned, 42, 4)
    num_rows = sum(len(plan.rows(step)) for step in range(plan.epoch_steps()))
    assert num_rows == 101 * 3 + 101 * 2 + 4 + 1
    assert len({plan.size(step) for step in range(plan.epoch_steps())}) == 6
