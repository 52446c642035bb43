"""What a run is judged by: scores, held-out photos, eval loss; a section of config.json."""

from typing import Literal

from pydantic import Field

from dreamspace.config.sections import MAX_STEPS, Section, Text


class EvaluationSettings(Section):
    """Evaluation."""

    evaluation_type: Literal["none", "clip"] = Field(
        "clip",
        description="Score validation images by CLIP: how well they follow their prompts, and how much they "
        "resemble the photos; 'none' scores nothing.",
    )
    pretrained_evaluation_model_name_or_path: Text | None = Field(
        None,
        description="The CLIP that scores: an open_clip name such as 'ViT-L-14/openai', a Hub id, a folder "
        "or NAME:FILE.safetensors; null takes ViT-L-14-336/openai, and on mini its own.",
    )
    pretrained_similarity_model_name_or_path: Text | None = Field(
        None,
        description="The DINOv2 that compares images with the photos, a Hub id or folder, or 'none'; null "
        "takes facebook/dinov2-base, and on mini its CLIP alone.",
    )
    held_out_photos: bool = Field(
        True,
        description="Keep one photo in five, of 6 or more, out of the training to judge it by, where no "
        "'eval' dataset is given.",
    )
    evaluate_checkpoints: bool = Field(
        True,
        description="When the training is over, draw the evaluation's images with every checkpoint, score "
        "them, and recommend one.",
    )
    evaluation_prompts: list[Text] = Field(
        [],
        description="What every checkpoint draws to be judged, {subject} standing for the token and class "
        "word; empty takes eight of the library that fits the class word.",
    )
    num_evaluation_seeds: int = Field(
        2, ge=1, le=16, description="Images of each of these prompts, each from a seed of its own."
    )
    eval_loss_disable: bool = Field(
        False, description="Measure no loss of held-out photos at fixed noise and timesteps (eval loss)."
    )
    eval_steps_interval: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Steps from one eval loss to the next; null takes those of "
        "validation, unless eval_epoch_interval is given.",
    )
    eval_epoch_interval: float | None = Field(
        None,
        gt=0,
        description="Epochs from one eval loss to the next, 0.5 for twice an epoch; null takes none.",
    )
    num_eval_images: int = Field(
        4, ge=1, le=1000, description="Photos of each dataset that the eval loss is measured on, at most."
    )
    eval_timesteps: int = Field(
        28, ge=1, le=1000, description="Timesteps, evenly spread, at which the eval loss is measured."
    )
    eval_dataset_pooling: bool = Field(
        False, description="One eval loss over all eval datasets, in place of one for each."
    )
