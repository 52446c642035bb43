"""Class images that a run asks for and its datasets lack are drawn before it starts."""

from collections.abc import Callable
from pathlib import Path

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.data.photos import photo_files
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.class_images import draw_class_images


def class_dataset(config: RunConfig, datasets: list[DatasetConfig], priors: Path) -> DatasetConfig | None:
    """The dataset whose class images are drawn, if any are asked for: the first whose folder is ours.

    Args:
        priors: the workspace's folder of class images. Only what lies in it is filled: any other folder is
            the user's.

    Raises:
        ValueError: if class images are asked for and no dataset takes them, or its folder holds too few and
            is the user's, or nothing says what to draw.
    """
    if not config.num_class_images:
        return None
    found = [
        dataset
        for dataset in datasets
        if dataset.is_trained and dataset.is_regularisation_data and dataset.instance_data_dir is not None
    ]
    if not found:
        raise ValueError(
            f"num_class_images is {config.num_class_images}, but no dataset has is_regularisation_data. "
            "Add one for them, or set num_class_images to 0."
        )
    ours = next((d for d in found if _lies_in(d.instance_data_dir, priors)), None)
    if ours is None:
        num_photos = max(len(photo_files(dataset.instance_data_dir)) for dataset in found)
        if num_photos < config.num_class_images:
            raise ValueError(
                f"num_class_images is {config.num_class_images}, but {found[0].instance_data_dir} holds "
                f"{num_photos} photos, and images are drawn only into {priors}. Add photos, or set "
                f"num_class_images to {num_photos}."
            )
        return None
    if not ours.instance_prompts:
        raise ValueError(
            f"The images of dataset '{ours.id}' are drawn from its instance_prompt, and it has none. Add it."
        )
    return ours


def fill_class_folder(
    config: RunConfig,
    dataset: DatasetConfig,
    model: BaseModel,
    events: EventWriter,
    should_stop: Callable[[], bool],
) -> None:
    """Let the base model draw the class images that a dataset lacks.

    Their seeds do not follow from the run's, so that all runs share the images.
    """

    def on_progress(done: int, total: int) -> None:
        events.write("stage", name="prior", message=f"Drawing class images: {done} of {total}.")

    draw_class_images(
        model,
        dataset.instance_prompts,
        config.num_class_images,
        dataset.instance_data_dir,
        on_progress,
        should_stop,
    )


def _lies_in(folder: Path, priors: Path) -> bool:
    return folder.resolve().is_relative_to(priors.resolve())
