"""The publish job against our own Hub, in a process of its own as in production."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from dreamspace.hub import push
from dreamspace.hub.push import check_repo_id, with_namespace
from dreamspace.jobs.events import EventWriter, read_events
from tests.hub.conftest import PHOTOS, ROOT, Outcome, write_image
from tests.hub.fake_hub import FakeHub, Reply, front_matter

LFS = {"HF_HUB_DISABLE_XET": "1"}
ADAPTER = "adapter/pytorch_lora_weights.safetensors"
Publish = Callable[..., Outcome]


@pytest.mark.parametrize("mode", [{}, LFS], ids=["xet", "lfs"])
def test_publish_makes_a_private_repository_of_exactly_the_allowed_files(
    hub: FakeHub, publish_run: Publish, run_dir: Path, mode: dict[str, str]
) -> None:
    outcome = publish_run(**mode)
    assert outcome.exit_status == 0, outcome.output
    repository = hub.repositories["alice/rex"]
    assert repository.is_private
    assert sorted(repository.files) == ["README.md", ADAPTER, "images/0.png", "images/1.png"]
    assert repository.commits == ["Publish from Dreamspace\n"]
    assert (
        front_matter(repository.files["README.md"].content.decode())["instance_prompt"]
        == "a photo of a sks dog"
    )
    assert hub.num_requests("xet" if mode == {} else "lfs") == 1
    assert repository.files[ADAPTER].size > 1_000_000
    if mode == LFS:
        adapter = repository.files[ADAPTER].content
        assert adapter.endswith((run_dir / ADAPTER).read_bytes()[-1_000_000:])
        assert hashlib.sha256(adapter).hexdigest() == repository.files[ADAPTER].oid


def test_events_tell_the_stages_and_the_address(hub: FakeHub, publish_run: Publish) -> None:
    events = publish_run().events
    assert [event.get("name") or event["kind"] for event in events] == [
        "loading",
        "checking",
        "uploading",
        "done",
    ]
    assert events[2]["message"] == "Uploading 4 files, 1.3 MB, to alice/rex."
    assert events[3]["path"] == f"{hub.endpoint}/alice/rex"
    assert events[3]["step"] == 200


@pytest.mark.parametrize("mode", [{}, LFS], ids=["xet", "lfs"])
def test_publishing_the_same_run_again_makes_no_commit(
    hub: FakeHub, publish_run: Publish, mode: dict[str, str]
) -> None:
    publish_run(**mode)
    repository = hub.repositories["alice/rex"]
    sha = repository.sha
    assert publish_run(**mode).exit_status == 0
    assert len(repository.commits) == 1
    assert repository.sha == sha


def test_large_files_are_sent_one_by_one_and_files_of_others_stay(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "LARGE_BYTES", 1000)
    theirs = {"adapter/old.safetensors": b"ours", "notes.txt": b"theirs", "unet/big.safetensors": b"old"}
    repository = hub.add_repository("alice/rex", is_private=True, files=theirs)
    for folder in ("unet", "job"):
        (tmp_path / folder).mkdir()
    for name, size in {
        "unet/big.safetensors": 3_000_000,
        "vae.safetensors": 2_000_000,
        "README.md": 9,
    }.items():
        (tmp_path / name).write_bytes(b"x" * size)
    api = HfApi(hub.endpoint, token=hub.token)
    events = EventWriter(tmp_path / "job")
    files = ["README.md", "unet/big.safetensors", "vae.safetensors"]
    push._upload(api, "alice/rex", tmp_path, files, set(theirs), events)
    events.close()
    assert [event["message"] for event in read_events(tmp_path / "job" / "events.jsonl")[0]] == [
        "Uploading 3 files, 5.0 MB, to alice/rex.",
        "Uploading 3 files, 5.0 MB, to alice/rex: 3.0 MB of it are there.",
        "Uploading 3 files, 5.0 MB, to alice/rex: 5.0 MB of it are there.",
    ]
    assert sorted(repository.files) == ["README.md", "notes.txt", "unet/big.safetensors", "vae.safetensors"]
    assert repository.files["unet/big.safetensors"].size == 3_000_000
    assert len(repository.commits) == 1


def test_publishing_again_after_a_change_replaces_the_tree(
    hub: FakeHub, publish_run: Publish, run_dir: Path
) -> None:
    publish_run(**LFS)
    before = hub.repositories["alice/rex"].files["images/0.png"].oid
    (run_dir / "validation" / "step-000200" / "2.png").unlink()
    write_image(run_dir / "validation" / "step-000200" / "1.png", 99)
    assert publish_run(**LFS).exit_status == 0
    repository = hub.repositories["alice/rex"]
    assert sorted(repository.files) == ["README.md", ADAPTER, "images/0.png"]
    assert repository.files["images/0.png"].oid != before
    assert len(repository.commits) == 2


def test_a_bare_name_goes_to_the_tokens_owner(hub: FakeHub, publish_run: Publish) -> None:
    assert publish_run("rex").events[-1]["path"] == f"{hub.endpoint}/alice/rex"
    assert list(hub.repositories) == ["alice/rex"]


def test_public_is_public_only_when_it_is_said(hub: FakeHub, publish_run: Publish) -> None:
    publish_run("alice/open", private=False)
    assert not hub.repositories["alice/open"].is_private


def test_a_private_push_into_a_public_repository_is_refused(hub: FakeHub, publish_run: Publish) -> None:
    publish_run(private=False)
    commits = list(hub.repositories["alice/rex"].commits)
    message = publish_run(private=True).message
    assert message.startswith("alice/rex exists and everybody can see it")
    assert hub.repositories["alice/rex"].commits == commits


def test_a_public_push_into_a_private_repository_says_that_it_stays_private(
    hub: FakeHub, publish_run: Publish
) -> None:
    publish_run(private=True)
    outcome = publish_run(private=False)
    assert outcome.exit_status == 0
    assert [e["message"] for e in outcome.events if e["kind"] == "warning"] == [
        "alice/rex exists and is private, and stays so."
    ]
    assert hub.repositories["alice/rex"].is_private


def test_a_repository_of_somebody_elses_making_is_not_overwritten(hub: FakeHub, publish_run: Publish) -> None:
    card = b"---\ntags: [llama]\n---\nMy life's work"
    hub.add_repository("alice/rex", is_private=True, files={"README.md": card})
    assert "holds files that do not come from Dreamspace" in publish_run().message
    assert hub.repositories["alice/rex"].files["README.md"].content == card


def test_an_empty_repository_made_by_hand_is_used(hub: FakeHub, publish_run: Publish) -> None:
    hub.add_repository("alice/rex", is_private=True)
    assert publish_run().exit_status == 0
    assert ADAPTER in hub.repositories["alice/rex"].files


def test_published_adapter_and_card_load_back_from_the_hub(
    hub: FakeHub, publish_run: Publish, tmp_path: Path
) -> None:
    publish_run(**LFS)
    code = (
        "from huggingface_hub import ModelCard, hf_hub_download\n"
        "from safetensors import safe_open\n"
        "print(ModelCard.load('alice/rex').data.base_model)\n"
        f"path = hf_hub_download('alice/rex', '{ADAPTER}')\n"
        "print(safe_open(path, framework='numpy').get_slice('unet.to_q.lora_A.weight').get_shape())\n"
    )
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf"), **LFS}
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split("\n")[:2] == ["stable-diffusion-v1-5/stable-diffusion-v1-5", "[16, 20000]"]


@pytest.mark.parametrize(
    ("step", "status", "sentence"),
    [
        ("whoami", 401, "does not accept the token (401)"),
        ("whoami", 429, "Wait 78 seconds, then publish again"),
        ("create", 403, "may not write to alice/rex (403)"),
        ("create", 429, "Wait 78 seconds, then publish again"),
        ("create", 500, "a problem of its own (500). Your run is safe"),
        ("info", 404, "finds no alice/rex (404)"),
        ("preupload", 403, "may not write to alice/rex (403)"),
        ("xet", 401, "does not accept the token (401)"),
        ("xet", 403, "may not write to alice/rex (403)"),
        ("commit", 402, "a plan with more storage for alice/rex (402)"),
        ("commit", 409, "Somebody else is changing alice/rex"),
        ("commit", 418, "refused to publish alice/rex (418)"),
    ],
)
def test_refusals_of_the_hub_are_sentences_without_the_token(
    hub: FakeHub, publish_run: Publish, step: str, status: int, sentence: str
) -> None:
    echo = f"I saw {hub.token} and hf_anotherTokenLookAlike99 here"
    hub.fail(step, status, echo, Retry_After="78")
    outcome = publish_run()
    assert outcome.exit_status == 2
    assert sentence in outcome.message
    everything = outcome.output + json.dumps(outcome.events)
    assert hub.token not in everything
    assert "hf_anotherTokenLookAlike99" not in everything
    assert not any(repository.commits for repository in hub.repositories.values())


def test_a_server_error_at_the_commit_is_a_sentence_and_the_next_push_succeeds(
    hub: FakeHub, publish_run: Publish
) -> None:
    hub.fail("commit", 503)
    assert "a problem of its own (503)" in publish_run(**LFS).message
    hub.heal()
    assert publish_run(**LFS).exit_status == 0
    assert len(hub.repositories["alice/rex"].commits) == 1


def test_a_server_error_of_the_xet_storage_is_a_sentence(hub: FakeHub, publish_run: Publish) -> None:
    hub.fail("xet", 500)
    quick = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms"}
    assert "a problem of its own (500)" in publish_run(**quick).message


def test_a_refused_card_is_a_sentence(hub: FakeHub, publish_run: Publish) -> None:
    hub.fail("validate", 400)
    assert publish_run().message.startswith("The Hub refused the files of alice/rex; nothing was published.")


def test_a_foreign_namespace_is_refused_with_the_hubs_own_words(hub: FakeHub, publish_run: Publish) -> None:
    message = publish_run("bob/rex").message
    assert "may not write to bob/rex (403)" in message
    assert "You don't have the rights to create a model under bob" in message


def test_an_organization_of_the_user_is_a_namespace(hub: FakeHub, publish_run: Publish) -> None:
    hub.organizations = ("kennel",)
    assert publish_run("kennel/rex").exit_status == 0
    assert list(hub.repositories) == ["kennel/rex"]


def test_a_reading_token_is_refused_before_anything_is_created(hub: FakeHub, publish_run: Publish) -> None:
    hub.role = "read"
    assert publish_run().message.startswith("The token can only read.")
    assert hub.num_requests("create") == 0


def test_a_wrong_token_is_refused(hub: FakeHub, publish_run: Publish) -> None:
    assert "does not accept the token (401)" in publish_run(HF_TOKEN="hf_wrongWRONGwrong1").message


def test_no_token_is_a_sentence_and_no_request(hub: FakeHub, publish_run: Publish) -> None:
    assert publish_run(HF_TOKEN="").message.startswith("Publishing needs a Hub token and there is none.")
    assert hub.requests == []


def test_the_token_of_hf_auth_login_serves_when_hf_token_is_absent(
    hub: FakeHub, publish_run: Publish, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(hub.token)
    assert publish_run(HF_TOKEN="", HF_TOKEN_PATH=str(tmp_path / "token")).exit_status == 0


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "The Hub at http://127.0.0.1:9 cannot be reached."),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_without_a_network_the_sentence_says_so(
    publish_run: Publish, environment: dict[str, str], sentence: str
) -> None:
    assert publish_run(**environment).message.startswith(sentence)


def test_a_web_page_in_the_hubs_place_is_told_apart(hub: FakeHub, publish_run: Publish) -> None:
    hub.answers["whoami"] = Reply(b"<html>Please log in to the hotel's network</html>")
    assert "gave an answer that is not the Hub's" in publish_run().message


def test_a_run_without_adapter_fails_before_any_request(
    hub: FakeHub, publish_run: Publish, run_dir: Path
) -> None:
    (run_dir / ADAPTER).unlink()
    assert "has no finished adapter" in publish_run().message
    assert hub.requests == []


@pytest.mark.parametrize("mode", [{}, LFS], ids=["xet", "lfs"])
def test_neither_token_nor_paths_are_left_anywhere(
    hub: FakeHub, publish_run: Publish, tmp_path: Path, run_dir: Path, mode: dict[str, str]
) -> None:
    ended = [publish_run(**mode)]
    hub.fail("commit", 409, hub.token)
    write_image(run_dir / "validation" / "step-000200" / "1.png", 7)
    ended.append(publish_run(**mode))
    assert [outcome.exit_status for outcome in ended] == [0, 2]
    for outcome in ended:
        assert sorted(path.name for path in outcome.job_dir.iterdir()) == [
            "events.jsonl",
            "job.json",
            "log.txt",
        ]
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert hub.token.encode() not in path.read_bytes(), path
    repository = hub.repositories["alice/rex"]
    recorded = "".join(repository.commits).encode() + b"".join(
        f.content or b"" for f in repository.files.values()
    )
    stored = [p.read_bytes() for p in (tmp_path / "hub").rglob("*") if p.is_file()]
    for secret in (hub.token, PHOTOS, str(tmp_path)):
        assert secret.encode() not in recorded
        assert all(secret.encode() not in content for content in stored)


@pytest.mark.parametrize(
    ("name", "proposal"),
    [
        ("my dog!", "my-dog"),
        ("alice/rex--2", "alice/rex-2"),
        ("https://huggingface.co/alice/rex", "alice/rex"),
        ("models/alice/rex", "alice/rex"),
        ("alice/rex.git", "alice/rex"),
        ("-rex-", "rex"),
        ("Ärger/ß", "rger"),
        ("", "my-subject"),
        ("/", "my-subject"),
        ("../../etc", "etc"),
        ("x" * 97, "x" * 96),
    ],
)
def test_impossible_names_are_refused_with_a_proposal_that_is_possible(name: str, proposal: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a repository") as error:
        check_repo_id(name)
    assert str(error.value).endswith(f"Try '{proposal}'.")
    assert check_repo_id(proposal) == proposal


def test_names_that_the_hub_takes_pass_unchanged() -> None:
    assert check_repo_id(" alice/my_dog-1.0 ") == "alice/my_dog-1.0"
    assert with_namespace("rex", "alice") == "alice/rex"
    assert with_namespace("kennel/rex", "alice") == "kennel/rex"


def test_publishing_loads_neither_torch_nor_gradio() -> None:
    code = "import sys, dreamspace.hub.push; print([m for m in ('torch', 'gradio') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
