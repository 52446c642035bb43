"""Judges images of a subject by CLIP, and DINOv2 where there is one, against photos of it."""

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dreamspace.config import RunConfig
from dreamspace.data.evaluation_photos import EvaluationPhotos
from dreamspace.data.samples import Sample
from dreamspace.estimate.out_of_memory import is_out_of_memory
from dreamspace.evaluation.clip import Clip, clip_of, own_clip
from dreamspace.evaluation.dino import USUAL_DINO, Dino
from dreamspace.evaluation.figures import Figures, LeakFigures, PhotoFigures
from dreamspace.evaluation.plan import EvaluationPlan, LeakKind
from dreamspace.evaluation.scores import (
    contrast,
    drift,
    likeness,
    likeness_among,
    mismatched_score,
    nearest,
    nearest_among,
    prompt_scores,
    spread,
)
from dreamspace.models.source import model_folder

Judged = TypeVar("Judged")
Pictures = dict[str, list[Image.Image]]
"""Images by their prompt, one of each seed."""

MARGIN = 0.1
"""Around a subject that is cut out, as a share of its longer edge."""

GREY = (127, 127, 127)


class Judge:
    """CLIP, and DINOv2 where there is one, with the photos that images are compared with.

    Args:
        photos: that the run is judged by.
        trained: that it learns from, each once.
    """

    def __init__(
        self, clip: Clip, dino: Dino | None, photos: EvaluationPhotos, trained: list[Sample]
    ) -> None:
        self.clip, self.dino, self.evidence = clip, dino, photos.evidence
        judged_by = photos.different
        pictures = [sample.picture() for sample in trained]
        subjects = [cut_out(sample) for sample in judged_by]
        self._trained = self._resembling.embed_pictures(pictures)
        self._subjects = self._resembling.embed_pictures(subjects)
        self._subjects_clip = self._subjects if dino is None else clip.embed_pictures(subjects)
        whole = self._resembling.embed_pictures([sample.picture() for sample in judged_by])
        is_held_out = photos.evidence == "held_out"
        # Whole photos with what is cut out, as images are compared: cut out, both are more alike.
        self.photos = PhotoFigures(
            likeness(self._trained, self._subjects) if is_held_out else likeness_among(whole, self._subjects),
            nearest(whole, self._trained) if is_held_out else nearest_among(self._trained),
            contrast(pictures),
            photos.evidence,
        )

    @property
    def _resembling(self) -> Clip | Dino:
        """The model that tells how much pictures resemble each other."""
        return self.dino or self.clip

    @property
    def likeness_name(self) -> str:
        """What the model is called that compares images with photos."""
        return "DINO" if self.dino else "CLIP-I"

    @property
    def digest(self) -> str:
        """Tells the models and the photos from others."""
        photos = hash_of(self._trained, self._subjects)
        return f"{self.clip.name}:{self.dino and self.dino.name}:{self.evidence}:{photos}"

    def on(self, device: torch.device, judging: Callable[[], Judged]) -> Judged:
        """What `judging` says, on a device, or on the CPU where the device has no room for the models."""
        try:
            self._to(device)
            return judging()
        except (MemoryError, RuntimeError) as error:
            if device.type == "cpu" or not is_out_of_memory(error):
                raise
        finally:
            self._to(torch.device("cpu"))
        return judging()

    def _to(self, device: torch.device) -> None:
        self.clip.to(device)
        if self.dino is not None:
            self.dino.to(device)

    def clip_scores(self, plan: EvaluationPlan, pictures: Pictures) -> Tensor:
        """The CLIP score of each image of a plan's prompts, (P, S)."""
        return prompt_scores(*self._in_clip(plan, pictures))

    def leaked(self, plan: EvaluationPlan, pictures: Pictures) -> dict[LeakKind, Tensor]:
        """Embeddings (S, D) of the images of prompts that should not show the subject, by kind."""
        return {
            kind: self._resembling.embed_pictures(pictures[prompt])
            for kind, prompt in plan.leaks.items()
            if prompt in pictures
        }

    def figures(
        self, plan: EvaluationPlan, pictures: Pictures, base: dict[LeakKind, Tensor] | None = None
    ) -> Figures:
        """What the images of a plan score.

        Args:
            base: what `leaked` says of the base model, for the drift; None for the base model itself.
        """
        prompts = list(plan.prompts)
        shown = [pictures[prompt] for prompt in prompts]
        in_clip, texts = self._in_clip(plan, pictures)
        resembling = in_clip if self.dino is None else _rows(self.dino, shown)
        scores, leaked = prompt_scores(in_clip, texts), self.leaked(plan, pictures)
        before = leaked if base is None else base
        return Figures(
            clip_mean=scores.mean().item(),
            clip_min=scores.min().item(),
            clip_max=scores.max().item(),
            clip_by_prompt=dict(zip(prompts, scores.mean(dim=1).tolist(), strict=True)),
            clip_mismatched=mismatched_score(in_clip, texts),
            clip_i=likeness(in_clip.flatten(0, 1), self._subjects_clip),
            dino=None if self.dino is None else likeness(resembling.flatten(0, 1), self._subjects),
            nearest_photo=nearest(resembling.flatten(0, 1), self._trained),
            spread=spread(resembling),
            contrast=contrast([picture for row in shown for picture in row]),
            leaks={
                kind: LeakFigures(likeness(embedded, self._subjects), drift(embedded, before[kind]))
                for kind, embedded in leaked.items()
            },
        )

    def _in_clip(self, plan: EvaluationPlan, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Embeddings (P, S, D) of a plan's images and (P, D) of its prompts."""
        texts = self.clip.embed_prompts([plan.text_side(prompt) for prompt in plan.prompts])
        return _rows(self.clip, [pictures[prompt] for prompt in plan.prompts]), texts


def _rows(model: Clip | Dino, shown: list[list[Image.Image]]) -> Tensor:
    """(P, S, D) embeddings."""
    embedded = model.embed_pictures([picture for row in shown for picture in row])
    return embedded.unflatten(0, (len(shown), len(shown[0])))


def hash_of(*tensors: Tensor) -> str:
    """16 hex digits that follow from the tensors' values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def cut_out(sample: Sample) -> Image.Image:
    """A photo as images are compared with it: the subject alone, on grey, where there is a mask of it."""
    picture = sample.picture()
    if sample.mask is None:
        return picture
    cells = sample.mask.cells(sample.geometry, *picture.size)
    rows, columns = np.nonzero(cells >= 0.5)
    if not len(rows):
        return picture
    stencil = Image.fromarray((cells * 255).astype(np.uint8))
    alone = Image.composite(picture, Image.new("RGB", picture.size, GREY), stencil)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    edge = max(right - left, bottom - top) * (1 + 2 * MARGIN)
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    box = (middle_x - edge / 2, middle_y - edge / 2, middle_x + edge / 2, middle_y + edge / 2)
    framed = Image.new("RGB", (round(edge), round(edge)), GREY)
    framed.paste(alone, (-round(box[0]), -round(box[1])))
    return framed


def load_judges(config: RunConfig) -> tuple[Clip, Dino | None]:
    """The models that a run's images are judged by, on the CPU.

    Raises:
        ValueError: if one cannot be had.
    """
    folder = model_folder(config.pretrained_model_name_or_path)
    clip = clip_of(folder, config.pretrained_evaluation_model_name_or_path)
    name = config.pretrained_similarity_model_name_or_path
    if name == "none" or (name is None and own_clip(folder) is not None):
        return clip, None
    return clip, Dino(name or USUAL_DINO)


def by_prompt(prompts: Sequence[str], pictures: Sequence[Image.Image], num_seeds: int) -> Pictures:
    """Images in the order of a plan's drawings, by their prompt."""
    return {
        prompt: list(pictures[index * num_seeds : (index + 1) * num_seeds])
        for index, prompt in enumerate(prompts)
    }
