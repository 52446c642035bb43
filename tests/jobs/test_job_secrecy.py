from pathlib import Path

import pytest

from dreamspace.jobs.log import RedactedLog, log_tail
from dreamspace.jobs.secrecy import child_environment, handed_secrets, redact, refuse_tokens

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {TOKEN}",
        f"https://user:{TOKEN}@huggingface.co",
        "hf_canary_0123",
        "hf_canarycanarycanary",
        "hf_oauth_eyJhbGciOiJFZERTQSJ9.eyJzY29wZSI6WyJ.a-b_c",
    ],
)
def test_tokens_are_redacted_whole(text: str) -> None:
    redacted = redact(text)
    assert "hf_***" in redacted
    assert not any(part in redacted for part in ("AbCd", "canary", "oauth", "eyJz", "a-b_c"))


@pytest.mark.parametrize("text", ["hf_hub_download(repo)", "hf_transfer", "hf_quantizer.load", "hf_xet"])
def test_names_of_functions_stay_readable(text: str) -> None:
    assert redact(text) == text


def test_text_with_a_token_is_refused_in_a_sentence_without_it() -> None:
    refuse_tokens('{"model": "hf_hub_download"}', "The settings of run dog")
    with pytest.raises(ValueError, match="The settings of run dog hold an access token") as refusal:
        refuse_tokens(f'{{"token": "{TOKEN}"}}', "The settings of run dog")
    assert TOKEN not in str(refusal.value)
    with pytest.raises(ValueError, match="The words hold an access token"):
        refuse_tokens("a photo of s3cret", "The words", ("s3cret",))


def test_a_child_gets_the_allowed_variables_and_the_secrets_handed_to_it() -> None:
    environment = {
        "PATH": "/bin",
        "HF_HOME": "/models",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_TOKEN": "the app's own",
        "HUGGING_FACE_HUB_TOKEN": "another",
        "DREAMSPACE_PASSWORD": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "RANK": "3",
        "GRADIO_SERVER_PORT": "7860",
    }
    child = child_environment(environment, {"HF_TOKEN": "the user's"})
    assert child.pop("HF_TOKEN") == "the user's"
    assert child.pop("DREAMSPACE_SECRETS") == "HF_TOKEN"
    assert child.keys() == {"PATH", "HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN"}


def test_secrets_are_handed_on_to_the_next_child_only_by_name() -> None:
    supervisor = child_environment({"PATH": "/bin"}, {"HF_TOKEN": TOKEN})
    worker = child_environment(supervisor, handed_secrets(supervisor))
    assert worker == supervisor
    assert handed_secrets({"HF_TOKEN": TOKEN}) == {}


def test_a_token_cut_in_two_does_not_reach_the_log(tmp_path: Path) -> None:
    log = RedactedLog(tmp_path / "log.txt", secret_values=("s3cret",))
    for piece in (b"login with hf_AbCdEf", b"GhIj0123 and s3c", b"ret\n", b" 10%\r", b"20%", b" end \xc3"):
        log.feed(piece)
    log.close()
    assert (tmp_path / "log.txt").read_bytes() == "login with hf_*** and hf_***\n 10%\r20% end �".encode()


def test_log_tail_shows_whole_lines_and_the_last_stroke_of_a_progress_bar(tmp_path: Path) -> None:
    assert log_tail(tmp_path) == ""
    lines = [b"first line\r\n", b" 10%\r 50%\r100%\n", b" 10%\r 20%\r", f"\ntoken {TOKEN}".encode()]
    (tmp_path / "log.txt").write_bytes(b"".join(lines))
    assert log_tail(tmp_path) == "first line\n100%\n 20%\ntoken hf_***"
    assert log_tail(tmp_path, num_bytes=60) == " 20%\ntoken hf_***"
