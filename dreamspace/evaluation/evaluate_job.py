"""The `evaluate` job: which checkpoint of a run to take, or what an adapter from elsewhere is worth."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from dreamspace.config import (
    DatasetConfig,
    RunConfig,
    instance_prompt,
    prior_of,
    read_datasets,
    subject_dataset,
    subject_datasets,
)
from dreamspace.data.evaluation_photos import EvaluationPhotos, split_photos
from dreamspace.data.geometry import dataset_edge_px
from dreamspace.data.held_out import read_held_out
from dreamspace.data.hub_dataset import local_copy
from dreamspace.data.samples import Sample, read_samples
from dreamspace.evaluation.evaluation import STRENGTHS, Entrant, Evaluation, Loadable
from dreamspace.evaluation.judge import Judge, load_judges
from dreamspace.evaluation.painter import Painter
from dreamspace.evaluation.plan import EvaluationPlan, evaluation_plan
from dreamspace.evaluation.verdict import Candidate, Traits
from dreamspace.jobs.control import stop_requested
from dreamspace.jobs.events import EventWriter
from dreamspace.jobs.workspace import cache_of
from dreamspace.models.adapters import changes_text, is_lycoris, load_into_pipeline, new_adapter
from dreamspace.models.base import BaseModel, base_config, open_model
from dreamspace.models.family import Conditioning, PictureFamily
from dreamspace.models.lora import scaled, switched_off
from dreamspace.models.sampling import SamplingSettings, sampling_size_px, with_pictures
from dreamspace.models.text import TextEncoders, trained_text
from dreamspace.run_folder import REPORT_FILE, WEIGHTS_NAME, adapter_folder, step_of, weights_file


@dataclass(frozen=True)
class _Subject:
    """What is evaluated, as files say it: settings, datasets, checkpoints, and where the outcome goes.

    Attributes:
        held_out: see `read_held_out`.
    """

    config: RunConfig
    datasets: list[DatasetConfig]
    entrants: list[Entrant]
    out: Path
    is_run: bool
    held_out: frozenset[str] | None = None


def evaluate(job_dir: Path, arguments: dict[str, Any], events: EventWriter) -> None:
    """Draw with every checkpoint, score, and recommend one; writes `evaluation.json` and a report.

    Args:
        arguments: `run_dir`; or `model`, `adapter` (a folder), `photos`, `class_word` and `token`, which may
            be null; `clip` and `dino`, in place of those of the settings; `out`, a folder for the outcome
            (null takes the run's, or the job's).

    Raises:
        ValueError: if there is no such run or adapter, it has no checkpoint, or a judge cannot be had.
    """
    evaluation, entrants, traits = prepared_evaluation(job_dir, arguments, events)
    if evaluation.run(entrants, traits) is None:
        events.write("stopped", path=evaluation.out)
        return
    events.write("done", path=evaluation.out / REPORT_FILE)


def prepared_evaluation(
    job_dir: Path, arguments: dict[str, Any], events: EventWriter
) -> tuple[Evaluation, list[Entrant], Traits]:
    """All that comes before the first image; see `evaluate`."""
    subject = _run(arguments) if arguments.get("run_dir") else _foreign(job_dir, arguments)
    config = subject.config
    model = open_model(config, cache_of(job_dir))
    events.write("stage", name="loading", message="Loading what images are judged by.")
    clip, dino = load_judges(_with_judges(config, arguments))
    events.write("stage", name="caching", message="Reading photos.")
    datasets = [local_copy(dataset, model.cache / "datasets")[0] for dataset in subject.datasets]
    trained, photos = _photos(subject, datasets, model)
    judge = Judge(clip, dino, photos, trained)
    plan = evaluation_plan(config, datasets)
    events.write("stage", name="loading", message="Loading the model.")
    painter, adapter = _loaded(subject, plan, model, datasets, trained)
    evaluation = Evaluation(
        plan,
        painter,
        judge,
        adapter,
        subject.out,
        events,
        lambda: stop_requested(job_dir),
        model.fingerprint,
        strengths_of(config, subject.entrants[0].folder),
    )
    return evaluation, subject.entrants, traits_of(config, datasets)


def _with_judges(config: RunConfig, arguments: dict[str, Any]) -> RunConfig:
    """The settings, with the judges that the arguments name."""
    keys = {
        "pretrained_evaluation_model_name_or_path": arguments.get("clip"),
        "pretrained_similarity_model_name_or_path": arguments.get("dino"),
    }
    return config.model_copy(update={key: name for key, name in keys.items() if name is not None})


def run_entrants(run_dir: Path, with_ema: bool) -> list[Entrant]:
    """Every checkpoint of a run, plain and averaged, in the order of its steps."""
    found = []
    for step in sorted(map(step_of, (run_dir / "checkpoints").glob("step-*"))):
        for weights in ("trained", "ema") if with_ema else ("trained",):
            folder = adapter_folder(run_dir, step, weights == "ema")
            if weights_file(folder) is not None:
                found.append(Entrant(Candidate(step, weights), folder))
    return found


def traits_of(config: RunConfig, datasets: list[DatasetConfig]) -> Traits:
    """What a run already does."""
    subject = subject_dataset(datasets)
    return Traits(
        has_prior=prior_of(datasets) != "none",
        has_captions=subject.caption_strategy == "textfile",
        has_rollout=config.scheduled_sampling_max_step_offset > 0,
        has_masks=bool(subject.conditioning_data),
    )


def strengths_of(config: RunConfig, folder: Path) -> tuple[float, ...]:
    """At which what lies in a folder can be drawn: a whole model or a word has no strength but its own."""
    has_strength = config.model_type == "lora" and (folder / WEIGHTS_NAME).is_file()
    return STRENGTHS if has_strength else (1.0,)


def prompt_conditioning(
    plan: EvaluationPlan,
    negative: str,
    conditioning: dict[str, Conditioning],
    model: BaseModel,
    samples: list[Sample],
    settings: SamplingSettings,
) -> dict[str, Conditioning]:
    """Conditioning of a plan's prompts, each with a photo of the subject where the family draws from one."""
    if not isinstance(model.family, PictureFamily):
        return conditioning
    prompts = [*plan.all_prompts, negative]
    rows = with_pictures([conditioning[prompt] for prompt in prompts], samples, settings)
    return conditioning | dict(zip(prompts, rows, strict=True))


def _run(arguments: dict[str, Any]) -> _Subject:
    run_dir = Path(arguments["run_dir"])
    config = RunConfig.load(run_dir / "config.json")
    entrants = run_entrants(run_dir, config.use_ema)
    if not entrants:
        raise ValueError(
            f"The run in {run_dir} has no checkpoint yet. Train it until it has written one, then evaluate."
        )
    out = Path(arguments.get("out") or run_dir)
    datasets = [d for d in read_datasets(run_dir / "multidatabackend.json") if not d.disabled]
    return _Subject(config, datasets, entrants, out, is_run=True, held_out=read_held_out(run_dir))


def _foreign(job_dir: Path, arguments: dict[str, Any]) -> _Subject:
    """An adapter that belongs to no run here, with photos of its subject."""
    adapter, name = Path(arguments["adapter"]), arguments["model"]
    if weights_file(adapter) is None:
        raise ValueError(f"There is no adapter in {adapter}: it holds no weights. Check the path.")
    words = {"token": arguments.get("token"), "class_word": arguments.get("class_word")}
    config = base_config(name, words)
    model = open_model(config, cache_of(job_dir))
    datasets = subject_datasets(
        Path(arguments["photos"]), instance_prompt(**words), model.native_resolution_px
    )
    entrants = [Entrant(Candidate(None, "trained"), adapter)]
    return _Subject(config, datasets, entrants, Path(arguments.get("out") or job_dir), is_run=False)


def _photos(
    subject: _Subject, datasets: list[DatasetConfig], model: BaseModel
) -> tuple[list[Sample], EvaluationPhotos]:
    """The photos of the subject that were trained on, and those that it is judged by."""
    found = {
        dataset.id: read_samples(dataset, datasets, model.multiple_px, subject.config.seed)[0]
        for dataset in datasets
        if dataset.is_trained and not dataset.is_regularisation_data
    }
    if not subject.is_run:  # Which of the photos it was trained on, nothing says.
        return [sample for samples in found.values() for sample in samples], EvaluationPhotos(found, "weak")
    left, photos, _ = split_photos(subject.config, datasets, found, model.multiple_px, subject.held_out)
    trained = EvaluationPhotos(left, "weak").different
    return trained, photos


def _loaded(
    subject: _Subject,
    plan: EvaluationPlan,
    model: BaseModel,
    datasets: list[DatasetConfig],
    samples: list[Sample],
) -> tuple[Painter, Loadable]:
    """The model with what its checkpoints are loaded into."""
    config, negative = subject.config, subject.config.validation_negative_prompt
    edge = dataset_edge_px(subject_dataset(datasets), model.multiple_px)
    size = sampling_size_px(config, (edge, edge))
    settings = SamplingSettings(*size, config.validation_num_inference_steps, config.validation_guidance)
    encoded = model.encode_prompts([*plan.all_prompts, negative])
    conditioning = prompt_conditioning(plan, negative, encoded, model, samples, settings)
    if subject.is_run:
        text = trained_text(config, model)
        adapter = new_adapter(config, model, text)
        vae = model.load_vae(model.denoiser_dtype)
        pipeline = model.pipeline(adapter.denoiser.eval(), vae)
    else:
        has_text = changes_text(subject.entrants[0].folder)
        vae = model.load_vae(model.denoiser_dtype)
        pipeline = model.pipeline(model.load_denoiser(), vae, has_text)
        text = TextEncoders(model.family, pipeline) if has_text else None
        adapter = _LoadedAdapter(model, pipeline)
    painter = Painter(model.family, pipeline, vae, conditioning, negative, settings, text)
    return painter, adapter


class _LoadedAdapter:
    """An adapter as stock loaders put it on a pipeline; the base model is drawn before that."""

    def __init__(self, model: BaseModel, pipeline: Any) -> None:
        self.family, self.pipeline = model.family, pipeline
        self.denoiser: nn.Module = getattr(pipeline, model.family.denoiser_part)
        self._is_loaded = self._is_lycoris = False

    @property
    def _layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.denoiser.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def off(self) -> Iterator[nn.Module]:
        """The base model: exactly so for a LoRA, for others as long as nothing is loaded."""
        with switched_off(self.denoiser, self._layers):
            yield self.denoiser

    def at_strength(self, strength: float) -> AbstractContextManager[None]:
        """Its effect times `strength`."""
        if not self._is_lycoris:
            return scaled(self._layers, strength)
        from dreamspace.models.lycoris import lycoris_at_strength

        return lycoris_at_strength(self.denoiser, strength)

    def load(self, file: Path) -> None:
        """Put it on the pipeline, once.

        Raises:
            ValueError: if it is another model's.
        """
        if not self._is_loaded:
            load_into_pipeline(self.pipeline, self.family, file.parent)
            self._is_loaded, self._is_lycoris = True, is_lycoris(file)
