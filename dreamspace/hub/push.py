"""Publish a run: its weights, sample images and card become a model repository on the Hugging Face Hub."""

import os
import re
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from dreamspace import __version__
from dreamspace.config.exports import kind_of_weights
from dreamspace.hub.errors import hub_errors
from dreamspace.hub.staging import Run, read_run, stage
from dreamspace.jobs.workspace import cache_of

if TYPE_CHECKING:
    from dreamspace.jobs.events import EventWriter

LARGE_BYTES = 50_000_000
"""A file from this size on is sent alone, so that the events can say how far the upload is."""

OWN_FILES = ("images/*.png", "adapter/*", "adapter-ema/*", "*/diffusion_pytorch_model*")
"""What publishing writes, and takes away again where a later run has no such file."""


def publish(job_dir: Path, arguments: dict[str, Any], events: "EventWriter") -> None:
    """Upload a run to the Hub; the function of the `publish` job.

    Writes the stages `checking` and `uploading`, then `done` with the step of what was published and the
    repository's address as path. The repository is created where it is missing. Publishing the same weights
    again changes nothing.

    Args:
        job_dir: the job's folder; holds the upload while it runs, and nothing of it afterwards.
        arguments: `run_dir`, the folder of a training run; `checkpoint` (a step, or null for the finished
            weights) and `ema`, true for their moving average; `repo_id`, `namespace/name` or only `name`,
            which goes to the token's owner; `private`, True unless given.
        events: where progress goes.

    Raises:
        ValueError: if there is nothing to publish, no token, a name that cannot be, or a refusal by the Hub.
    """
    events.write("stage", name="checking", message="Checking the run, the token and the repository.")
    run = read_run(Path(arguments["run_dir"]), arguments.get("checkpoint"), bool(arguments.get("ema")))
    repo_id = check_repo_id(arguments["repo_id"])
    token = find_token()
    api = HfApi(token=token, library_name="dreamspace", library_version=__version__)
    with hub_errors(api.endpoint, repo_id, token):
        owner = api.whoami()
    repo_id = with_namespace(repo_id, owner["name"])
    if owner.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ValueError(
            f"The token can only read. Make one with write access at {api.endpoint}/settings/tokens and set "
            "HF_TOKEN to it."
        )
    url, present = _prepare_repository(api, repo_id, arguments.get("private", True), token, events)
    with tempfile.TemporaryDirectory(prefix="staging-", dir=job_dir) as folder:
        if kind_of_weights(run.config) == "full":
            events.write("stage", name="saving", message="Putting the whole model together.")
            _put_together(run, cache_of(job_dir), Path(folder))
        files = stage(run, repo_id, Path(folder))
        with hub_errors(api.endpoint, repo_id, token):
            _upload(api, repo_id, Path(folder), files, present, events)
    events.write("done", step=run.step, path=url)


def _put_together(run: Run, cache: Path, folder: Path) -> None:
    """Write the whole model that a run trained."""
    # Here alone, because the app reads this module too, and torch with it would take its memory and time.
    import torch

    from dreamspace.models.base import open_model
    from dreamspace.models.export import merge

    merge(open_model(run.config, cache, torch.device("cpu")), run.weights.parents[1], folder)


def _upload(
    api: HfApi, repo_id: str, folder: Path, files: list[str], present: set[str], events: "EventWriter"
) -> None:
    """Upload files in one commit; large ones are sent one after the other before it.

    Args:
        files: their paths in `folder`.
        present: the paths of what is in the repository.
    """
    additions = [CommitOperationAdd(file, folder / file) for file in files]
    total = sum(addition.upload_info.size for addition in additions)
    message = f"Uploading {len(files)} files, {total / 1e6:.1f} MB, to {repo_id}"
    events.write("stage", name="uploading", message=f"{message}.")
    sent = 0
    for addition in additions:
        if addition.upload_info.size >= LARGE_BYTES:
            api.preupload_lfs_files(repo_id, [addition])
            sent += addition.upload_info.size
            events.write(
                "stage", name="uploading", message=f"{message}: {sent / 1e6:.1f} MB of it are there."
            )
    outdated = [
        file for file in sorted(present - set(files)) if any(fnmatch(file, name) for name in OWN_FILES)
    ]
    api.create_commit(
        repo_id,
        [*additions, *map(CommitOperationDelete, outdated)],
        commit_message="Publish from Dreamspace",
    )


def find_token() -> str:
    """The Hub token: HF_TOKEN, else the one of `hf auth login`.

    Raises:
        ValueError: if there is none.
    """
    token = os.environ.get("HF_TOKEN", "").strip() or get_token()
    if not token:
        raise ValueError(
            "Publishing needs a Hub token and there is none. Make one with write access at "
            "https://huggingface.co/settings/tokens and set HF_TOKEN to it, or run `hf auth login`."
        )
    return token


def check_repo_id(repo_id: str) -> str:
    """`name` or `namespace/name` without surrounding spaces, if the Hub would take it.

    Raises:
        ValueError: if it breaks the Hub's rules for names; the sentence proposes a name.
    """
    repo_id = repo_id.strip()
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise ValueError(
            f"'{repo_id}' cannot be the name of a repository: it is 'name' or 'namespace/name', each of at "
            "most 96 letters, digits, '-', '_' and '.', with '-' and '.' neither doubled nor at an end, and "
            f"without '.git' there. Try '{_proposal(repo_id)}'."
        ) from None
    return repo_id


def with_namespace(repo_id: str, user: str) -> str:
    """`namespace/name`; a bare name goes to the user."""
    return repo_id if "/" in repo_id else f"{user}/{repo_id}"


def _proposal(repo_id: str) -> str:
    address = re.sub(r"^https?://[^/]+/", "", repo_id).strip("/")
    parts = [re.sub(r"[^A-Za-z0-9_.-]+", "-", part) for part in address.removesuffix(".git").split("/")[-2:]]
    parts = [re.sub(r"([-.])[-.]+", r"\1", part)[:96].strip("-.") for part in parts]
    return "/".join(part for part in parts if part) or "my-subject"


def _prepare_repository(
    api: HfApi, repo_id: str, private: bool, token: str, events: "EventWriter"
) -> tuple[str, set[str]]:
    """Create the repository, or see that an existing one may be written to.

    Returns:
        Its address, and the paths of the files in it.

    Creating what exists changes nothing, its visibility included, so that is compared with what was asked.
    """
    with hub_errors(api.endpoint, repo_id, token):
        url = str(api.create_repo(repo_id, private=private, exist_ok=True))
        repository = api.model_info(repo_id)
    files = {file.rfilename for file in repository.siblings or []} - {".gitattributes"}
    if files and "dreamspace" not in (repository.tags or []):
        raise ValueError(
            f"{repo_id} already holds files that do not come from Dreamspace, and publishing would replace "
            "its card. Choose another name."
        )
    if private and not repository.private:
        raise ValueError(
            f"{repo_id} exists and everybody can see it, but a private repository was asked for. Choose "
            f"another name, make it private at {url}/settings, or publish publicly."
        )
    if repository.private and not private:
        events.write(
            "warning",
            message=f"{repo_id} exists and is private, and stays so.",
            hint=f"Make it public at {url}/settings.",
        )
    return url, files
