"""The DreamBooth guide's two lists of datasets train on mini and on a tiny SDXL, at their own sizes."""

from pathlib import Path

import guide_examples
import pytest
from families.sdxl import build_sdxl
from tiny_runs import events_of, run_command

from dreamspace.config import RunConfig
from dreamspace.mini.subjects import draw_subject
from dreamspace.mini.world import Scenery, render
from dreamspace.run_folder import WEIGHTS_NAME

QUICK = {
    "max_train_steps": 2,
    "train_batch_size": 1,
    "learning_rate": 1e-3,
    "validation_disable": True,
    "evaluate_checkpoints": False,
}


def draw(folder: Path) -> Path:
    """The folders that the examples name, under `folder`: two photos, their masks, and a class image."""
    pictures = [draw_subject("biscuit", scene, seed, 256) for seed, scene in enumerate(("beach", "meadow"))]
    class_image = render(Scenery("dog", "red", "plain", "snow"), 0, 256).image
    contents = {
        "test_datasets/dreambooth": [photo for photo, _ in pictures],
        "test_datasets/dreambooth_mask": [mask for _, mask in pictures],
        "subjectname": [photo for photo, _ in pictures],
        "regularisation": [class_image],
    }
    for name, images in contents.items():
        (folder / "datasets" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            image.resize((1024, 1024)).save(folder / "datasets" / name / f"{number}.png", compress_level=1)
    return folder


@pytest.mark.parametrize("family", ["mini", "sdxl"])
@pytest.mark.parametrize("example", ["MASKED", "REGULARISED"])
def test_the_guides_datasets_train_through_the_real_command(
    tmp_path: Path, example: str, family: str
) -> None:
    datasets = guide_examples.write(vars(guide_examples)[example], draw(tmp_path))
    settings = dict(QUICK)
    if family == "sdxl":
        settings |= {"model_family": family, "learning_rate": 0.1}
        settings["pretrained_model_name_or_path"] = str(build_sdxl(tmp_path / "model"))
    config = RunConfig(**settings, class_word="dog", validation_resolution="128")
    config.save(tmp_path / "config.json")
    files = ["--config", tmp_path / "config.json", "--datasets", datasets]
    result = run_command("train", *files, "--run", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "adapter" / WEIGHTS_NAME).exists()
    assert [event["step"] for event in events_of(tmp_path / "run", "loss")] == [1, 2]
    (mixture,) = events_of(tmp_path / "run", "mixture")
    assert mixture["num_prior"] == (0 if example == "MASKED" else 2)
    assert list(tmp_path.rglob("*cache/**/*.safetensors")), "its own cache folders are honoured"
