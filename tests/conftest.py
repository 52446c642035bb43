"""Shared by all tests: a lock and a workspace of their own, a tiny model of real classes, and photos."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_runs import QUICK, RESOLUTION_PX, draw_photos, run_command, write_run_folder

from dreamspace import cli, worker
from dreamspace.jobs.events import EVENTS_FILE, next_seq
from dreamspace.jobs.job import Job


@pytest.fixture(scope="session", autouse=True)
def _own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's workspace or waits for the user's jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMSPACE_LOCK_DIR", str(tmp_path_factory.mktemp("lock")))
        patch.setenv("DREAMSPACE_HOME", str(tmp_path_factory.mktemp("workspace")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of 64 px in the layout of Stable Diffusion 1: real classes, few weights."""
    import torch
    from diffusers import (
        AutoencoderKL,
        AutoencoderTiny,
        DPMSolverMultistepScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("tiny_model")
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=48)  # a token for each letter
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION_PX // 8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=RESOLUTION_PX,
        mid_block_add_attention=False,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="trailing",
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    tiny_vae = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    tiny_vae.save_pretrained(folder / "tiny_vae")
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 photos of the subject."""
    return draw_photos(tmp_path_factory.mktemp("photos"), 4)


@pytest.fixture(scope="session")
def class_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 4 class images."""
    return draw_photos(tmp_path_factory.mktemp("class_photos"), 4, first=10)


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, photos: Path, class_photos: Path
) -> Path:
    """A run with class images, dropout, accumulation and previews, trained by the real command."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    files = write_run_folder(run_dir.with_name("files"), tiny_model, photos, class_photos)
    result = run_command("train", *files, "--run", run_dir)
    assert result.returncode == 0, result.stderr
    return run_dir


class Result(NamedTuple):
    """What a command did: its exit status and what it printed."""

    status: int
    output: str
    errors: str


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs a command line in this process, with the real worker edge but no process of its own."""

    def submit(job_dir: Path, kind: str, arguments: dict[str, Any], **options: Any) -> None:
        job_dir.mkdir(parents=True, exist_ok=True)
        Job(kind, arguments, first_seq=next_seq(job_dir / EVENTS_FILE)).write(job_dir)
        with open(job_dir / "log.txt", "a") as log, contextlib.redirect_stderr(log):
            worker.main([str(job_dir)])

    def run(*arguments: str | Path | int) -> Result:
        capfd.readouterr()
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = leaving.code
        return Result(status, *capfd.readouterr())

    monkeypatch.setattr("dreamspace.commands.jobs.submit", submit)
    monkeypatch.setattr("dreamspace.worker.faulthandler.enable", lambda: None)
    monkeypatch.setattr("dreamspace.worker.signal.signal", lambda *arguments: None)
    return run


@pytest.fixture
def short(photos: Path, tmp_path: Path) -> list[str | Path]:
    """A short form that would do."""
    return ["train", "--photos", photos, "--class-word", "dog", "--run", tmp_path / "run"]


@pytest.fixture
def files(tiny_model: Path, photos: Path, tmp_path: Path) -> Path:
    """A folder with the two files of a quick run."""
    write_run_folder(tmp_path / "files", tiny_model, photos, **QUICK)
    return tmp_path / "files"
