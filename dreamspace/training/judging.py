"""What a run is told of its images: scores as they are drawn, and at its end which checkpoint to take."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from dreamspace.config import DatasetConfig, RunConfig
from dreamspace.data.evaluation_photos import EvaluationPhotos
from dreamspace.data.samples import Sample
from dreamspace.evaluation.evaluate_job import prompt_conditioning, run_entrants, strengths_of, traits_of
from dreamspace.evaluation.evaluation import Evaluation
from dreamspace.evaluation.figures import Figures
from dreamspace.evaluation.judge import Judge, load_judges
from dreamspace.evaluation.painter import Painter
from dreamspace.evaluation.plan import EvaluationPlan
from dreamspace.jobs.control import consume_control, stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.models.base import BaseModel
from dreamspace.models.parameters import Adapter
from dreamspace.training.saving import Weights
from dreamspace.training.validation import Validator

HOW_TO_GET_SCORES = (
    "The training goes on without scores. Name a CLIP and a DINOv2 that are on this machine by "
    "pretrained_evaluation_model_name_or_path and pretrained_similarity_model_name_or_path ('none' for no "
    "DINOv2), or set evaluation_type to 'none'; `evaluate` scores the run later."
)


@dataclass
class Judging:
    """Scores of a run's images, if it wants any.

    Attributes:
        trained: the photos that the run learns from.
    """

    config: RunConfig
    run_dir: Path
    events: EventWriter
    model: BaseModel
    datasets: list[DatasetConfig]
    plan: EvaluationPlan
    photos: EvaluationPhotos
    trained: list[Sample]
    _has_warned: bool = field(default=False, init=False)

    @cached_property
    def judge(self) -> Judge | None:
        """Loaded when the first image is there; None, with a warning, where a model cannot be had."""
        if self.config.evaluation_type == "none":
            return None
        try:
            return Judge(*load_judges(self.config), self.photos, self.trained)
        except ValueError as error:
            self.events.write("warning", message=f"Nothing is scored. {error}", hint=HOW_TO_GET_SCORES)
            return None

    def score(self, step: int, weights: Weights, validator: Validator) -> None:
        """Score the validation images of a step and announce it; of a prompt that lacks one, none count."""
        if self.judge is None:
            return
        drawn = validator.drawn(step, weights)
        most = max(map(len, drawn.values()), default=0)
        pictures = {prompt: found for prompt, found in drawn.items() if len(found) == most}
        if not pictures:
            return
        whole = replace(self.plan, prompts=tuple(pictures), leaks={})
        of_subject = tuple(filter(self.plan.shows_subject, pictures))
        self._warn_without_subject(validator.prompts)

        def judging() -> tuple[Tensor, Figures | None]:
            scores = self.judge.clip_scores(whole, pictures)
            if not of_subject:
                return scores, None
            return scores, self.judge.figures(replace(whole, prompts=of_subject), pictures)

        scores, found = self.judge.on(self.model.device, judging)
        self.events.write(
            "clip_score",
            step=step,
            weights=weights,
            mean=scores.mean().item(),
            min=scores.min().item(),
            max=scores.max().item(),
            by_prompt=dict(zip(pictures, scores.mean(dim=1).tolist(), strict=True)),
        )
        if found is not None:
            self.events.write(
                "fidelity",
                step=step,
                weights=weights,
                clip_i=found.clip_i,
                dino=found.dino,
                copy_risk=max(0.0, found.nearest_photo - self.judge.photos.nearest_photo),
                spread=found.spread,
                evidence=self.judge.evidence,
            )

    def _warn_without_subject(self, prompts: list[str]) -> None:
        """Say once if none of the validation prompts asks for the subject."""
        if self._has_warned or any(map(self.plan.shows_subject, prompts)):
            return
        self._has_warned = True
        name = self.plan.subject or "the subject"
        self.events.write(
            "warning",
            message=f"No validation prompt asks for '{name}', so likeness to the photos is not scored while "
            "the run trains.",
            hint=f"Add a prompt with '{name}' to validation_prompts.",
        )

    def evaluate(self, validator: Validator, adapter: Adapter) -> None:
        """Compare all checkpoints by the model that is in memory, and recommend one.

        What cannot be evaluated is a warning, and a request to stop ends it: the run itself is finished.
        """
        entrants = run_entrants(self.run_dir, self.config.use_ema)
        if self.judge is None or not entrants:
            return
        negative = self.config.validation_negative_prompt
        conditioning = prompt_conditioning(
            self.plan, negative, validator.conditioning, self.model, self.trained, validator.settings
        )
        painter = Painter(
            self.model.family,
            validator.pipeline,
            validator.vae,
            conditioning,
            negative,
            validator.settings,
            validator.text,
        )
        evaluation = Evaluation(
            self.plan,
            painter,
            self.judge,
            adapter,
            self.run_dir,
            self.events,
            lambda: stop_requested(self.run_dir),
            self.model.fingerprint,
            strengths_of(self.config, entrants[0].folder),
        )
        try:
            evaluation.run(entrants, traits_of(self.config, self.datasets))
        except (ValueError, OSError) as error:
            hint = "The run is finished and kept; `evaluate` goes on with it."
            self.events.write("warning", message=f"The evaluation did not finish. {error}", hint=hint)
        consume_control(self.run_dir, "stop")
