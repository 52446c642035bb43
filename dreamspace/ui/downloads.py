"""What can be taken away from a run, over HTTP: its weights in each format, and SimpleTuner's pair."""

import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import FileResponse, StreamingResponse

from dreamspace.config.exports import formats
from dreamspace.config.findings import report
from dreamspace.files import read_text
from dreamspace.hub.kohya import kohya_file
from dreamspace.jobs.workspace import Workspace
from dreamspace.run_folder import (
    AVERAGED,
    adapter_folder,
    merged_folder,
    step_of,
    token_beside,
    weights_file,
    weights_name,
)
from dreamspace.simpletuner.exporting import export_simpletuner
from dreamspace.ui.library import Run
from dreamspace.ui.media import HEADERS, existing_folder, is_inside

Form = Literal["own", "kohya", "merged", "token"]

_CHUNK_BYTES = 1 << 20
_HEADERS = {**HEADERS, "Cache-Control": "no-store"}

_READ_ME = """\
{run_id}, written by Dreamspace for SimpleTuner.

Unpack this folder into SimpleTuner's folder config/, and start it there with ENV={run_id}.
The folders of photos that multidatabackend.json names are those of the machine that the run was made on: copy
them, and change instance_data_dir, where you train on another one.

{findings}
"""


def adapter_url(run_dir: Path, what: str = "adapter", form: Form = "own") -> str:
    """The address of what a run trained.

    Args:
        what: a `weights_name`.
        form: "own" is the file as it was trained, "token" that of a word that was learned beside it, "merged"
            a zip of the whole model once that was made.
    """
    query = "" if form == "own" else f"?format={form}"
    return f"/download/{quote(run_dir.name)}/{what}{query}"


def pair_url(run_dir: Path) -> str:
    """The address of a zip of a run's settings for SimpleTuner."""
    return f"/download/{quote(run_dir.name)}/simpletuner"


def downloads_router(workspace: Workspace) -> APIRouter:
    """The routes behind the addresses; whatever they will not serve does not exist for them (404)."""
    router = APIRouter()

    @router.get("/download/{run_id}/simpletuner")
    def pair(run_id: str) -> Response:
        run = Run.read(existing_folder(workspace.run_dir, run_id))
        headers = _attached(f"{run_id}-simpletuner.zip")
        return Response(_pair(run), media_type="application/zip", headers=headers)

    @router.get("/download/{run_id}/{what}")
    def weights(run_id: str, what: str, format: Form = "own") -> Response:
        run_dir = existing_folder(workspace.run_dir, run_id)
        steps = [None, *map(step_of, (run_dir / "checkpoints").glob("step-*"))]
        folders = {
            weights_name(step, ema): adapter_folder(run_dir, step, ema)
            for step in steps
            for ema in (False, True)
        }
        find = token_beside if format == "token" else weights_file
        file = find(folders[what]) if what in folders else None
        if file is None or not is_inside(file, run_dir):
            raise HTTPException(404)
        name = run_id + {"adapter": "", AVERAGED: "-averaged"}.get(what, f"-{what}")
        if format == "merged":
            folder = merged_folder(run_dir, what)
            files = sorted(path for path in folder.rglob("*") if is_inside(path, folder))
            if not files:
                raise HTTPException(404)
            entries = [(f"{name}/{path.relative_to(folder)}", path) for path in files]
            return StreamingResponse(
                _zipped(entries), media_type="application/zip", headers=_attached(f"{name}-merged.zip")
            )
        if format == "kohya":
            run = Run.read(run_dir)
            if "kohya" not in formats(run.config):
                raise HTTPException(404)
            content = kohya_file(file, run.config, list(run.datasets))
            headers = _attached(f"{name}-kohya.safetensors")
            return Response(content, media_type="application/octet-stream", headers=headers)
        name += "-token" * (format == "token")
        return FileResponse(
            file, headers=_attached(f"{name}.safetensors"), media_type="application/octet-stream"
        )

    return router


def _attached(file_name: str) -> dict[str, str]:
    return {**_HEADERS, "Content-Disposition": f'attachment; filename="{file_name}"'}


def _pair(run: Run) -> bytes:
    """The run's settings in SimpleTuner's words, in a folder that its folder config/ takes."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve() / run.dir.name
        findings = export_simpletuner(run.config, list(run.datasets), folder)
        # The pair names its own files, by paths that SimpleTuner reads from where it is started.
        for file in sorted(folder.glob("*.json")):
            text = read_text(file).replace(str(folder), f"config/{run.dir.name}")
            file.write_text(text, encoding="utf-8")
        text = _READ_ME.format(run_id=run.dir.name, findings=report(findings) or "Nothing differs.")
        (folder / "README.txt").write_text(text, encoding="utf-8")
        return b"".join(_zipped((f"{run.dir.name}/{file.name}", file) for file in sorted(folder.iterdir())))


class _Sink:
    """A file that is read while it is written, so that a zip of gigabytes is never on the disk as well."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self.pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        """What was written since it was last asked."""
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)


def _zipped(files: Iterable[tuple[str, Path]]) -> Iterator[bytes]:
    """A zip of files under the names that are given; weights hardly shrink, so nothing is compressed."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            described = zipfile.ZipInfo.from_file(path, name)
            with path.open("rb") as file, archive.open(described, "w", force_zip64=True) as entry:
                while chunk := file.read(_CHUNK_BYTES):
                    entry.write(chunk)
                    yield sink.taken()
            yield sink.taken()
    yield sink.taken()
