"""Webhooks against a local server: what arrives, and that a dead or hanging one holds nobody up."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from dreamspace.files import write_json
from dreamspace.jobs.webhook import (
    MAX_TRIES,
    MAX_WAITING,
    Picture,
    Target,
    Webhook,
    _put_off_seconds,
    read_targets,
)

IMAGE = Image.new("RGB", (48, 32), (200, 30, 30))


class Server(NamedTuple):
    """A web server, what it was sent (headers, body), and what lets it answer."""

    url: str
    received: list[tuple[Any, bytes]]
    may_answer: threading.Event


@contextmanager
def serving(
    answers_at_once: bool = True, status: int = 204, retry_after: str | None = None, num_put_off: int = 0
) -> Iterator[Server]:
    """A server that answers with a status, and its first requests with 429."""
    received, may_answer = [], threading.Event()
    if answers_at_once:
        may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            may_answer.wait(30)
            is_put_off = len(received) <= num_put_off
            self.send_response(429 if is_put_off else status)
            if is_put_off and retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_port}/hook/secret", received, may_answer)
    finally:
        may_answer.set()
        server.shutdown()
        server.server_close()


def picture(kind: str = "sample", prompt: str = "a photo of a sks dog", **values: Any) -> Picture:
    return Picture(kind, IMAGE, 200, prompt, 42, **values)


def test_raw_webhook_is_sent_json_with_the_image() -> None:
    with serving() as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: pytest.fail(str(warning)))
        webhook.send(picture("preview", inference_step=5))
        webhook.send(picture(weights="trained"))
        webhook.close()
    preview, sample = [json.loads(body) for _, body in server.received]
    assert preview | {"images": 1} == {
        "message_type": "preview", "message": "step 200, denoising step 5, seed 42: a photo of a sks dog",
        "step": 200, "prompt": "a photo of a sks dog", "seed": 42, "weights": None, "inference_step": 5,
        "images": 1,
    }  # fmt: skip
    assert (sample["message_type"], sample["weights"]) == ("sample", "trained")
    with Image.open(BytesIO(base64.b64decode(sample["images"][0]))) as image:
        assert image.tobytes() == IMAGE.tobytes()
    with Image.open(BytesIO(base64.b64decode(preview["images"][0]))) as image:
        assert image.size == IMAGE.size


def test_discord_is_sent_a_form_with_a_file_that_calls_nobody() -> None:
    with serving() as server:
        webhook = Webhook([Target("discord", server.url, "(rex)")], lambda *warning: None)
        webhook.send(picture(prompt='@everyone "a\r\n--x" dög'))
        webhook.close()
    ((headers, body),) = server.received
    form = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body
    )
    said, file = form.iter_parts()
    content = json.loads(said.get_content())
    assert content["content"] == '(rex) step 200, seed 42: @everyone "a\r\n--x" dög'
    assert content["allowed_mentions"] == {"parse": []}
    assert (file.get_filename(), file.get_content_type()) == ("image.png", "image/png")
    with Image.open(BytesIO(file.get_content())) as image:
        assert image.tobytes() == IMAGE.tobytes()


@pytest.mark.parametrize("status", [404, 500])
def test_refusal_is_one_warning_without_the_address(status: int) -> None:
    warnings: list[tuple[str, str]] = []
    with serving(status=status) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: warnings.append(warning))
        for _ in range(3):
            webhook.send(picture())
        webhook.close()
    assert len(server.received) == 3, "a webhook that comes back is sent what follows"
    ((message, hint),) = warnings
    assert f"status {status}" in message
    assert "webhook_config" in hint
    assert "secret" not in message + hint


def test_dead_port_and_broken_address_are_one_warning_each() -> None:
    warnings: list[tuple[str, str]] = []
    targets = [Target("raw", "http://127.0.0.1:9/secret"), Target("discord", "http://secret.invalid:x/")]
    webhook = Webhook(targets, lambda *warning: warnings.append(warning))
    for _ in range(3):
        webhook.send(picture())
    webhook.close()
    assert len(warnings) == 2
    assert "secret" not in repr(warnings) + repr(targets)


def test_hanging_server_holds_nobody_up_and_fills_no_memory() -> None:
    warnings: list[tuple[str, str]] = []
    with serving(answers_at_once=False) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: warnings.append(warning), 0.3)
        started = time.perf_counter()
        for _ in range(1000):
            webhook.send(picture("preview"))
            webhook.send(picture())
        assert time.perf_counter() - started < 0.3
        assert len(webhook._waiting) <= MAX_WAITING
        while len(warnings) < 2:
            time.sleep(0.01)
        started = time.perf_counter()
        webhook.close()
        assert time.perf_counter() - started < 0.3, "one that has failed is not waited for"
    (full, _), (hanging, _) = warnings
    assert "An image is not sent to the webhook, for which 64 others wait." in full
    assert "TimeoutError" in hanging


def test_image_pushes_the_oldest_preview_out_of_a_full_queue() -> None:
    warnings: list[tuple[str, str]] = []
    with serving(answers_at_once=False) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: warnings.append(warning))
        webhook.send(picture(prompt="the one that hangs"))
        while not server.received:
            time.sleep(0.01)
        for number in range(MAX_WAITING):
            webhook.send(picture("preview", prompt=f"preview {number}"))
        for number in range(MAX_WAITING):
            webhook.send(picture(prompt=f"image {number}"))
            previews = [waiting.prompt for waiting in webhook._waiting if waiting.kind == "preview"]
            num_out = max(0, number + 1 - MAX_WAITING // 2)
            assert previews == [f"preview {each}" for each in range(num_out, MAX_WAITING // 2)]
        assert warnings == []
        for _ in range(3):
            webhook.send(picture(prompt="one too many"))
        assert len(warnings) == 1, "said once"
        server.may_answer.set()
        webhook.close()
    sent = [json.loads(body)["prompt"] for _, body in server.received]
    assert sent == ["the one that hangs", *(f"image {number}" for number in range(MAX_WAITING))]


# Status 429, with which a webhook puts off


def test_image_that_is_put_off_is_sent_again_when_the_webhook_says_so() -> None:
    warnings: list[tuple[str, str]] = []
    with serving(retry_after="0.3", num_put_off=2) as server:
        webhook = Webhook([Target("discord", server.url)], lambda *warning: warnings.append(warning))
        started = time.perf_counter()
        webhook.send(picture(prompt="first"))
        webhook.send(picture(prompt="second"))
        assert time.perf_counter() - started < 0.2, "the run does not wait"
        webhook.close()
        assert 0.6 <= time.perf_counter() - started < 3, "the end of a run does, for a moment"
    assert warnings == []
    assert [b"first" in body for _, body in server.received] == [True, True, True, False]


def test_preview_that_is_put_off_is_not_sent_again() -> None:
    with serving(retry_after="0.1", num_put_off=1) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: pytest.fail(str(warning)))
        webhook.send(picture("preview", prompt="old"))
        webhook.send(picture("preview", prompt="new"))
        webhook.close()
    assert [json.loads(body)["prompt"] for _, body in server.received] == ["old", "new"]


def test_webhook_that_always_puts_off_is_a_failure_in_the_end() -> None:
    warnings: list[tuple[str, str]] = []
    with serving(retry_after="0.01", num_put_off=99) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: warnings.append(warning))
        webhook.send(picture())
        webhook.close()
    assert len(server.received) == MAX_TRIES
    ((message, _),) = warnings
    assert "status 429" in message


def test_webhook_that_puts_off_for_long_does_not_hold_up_the_end() -> None:
    with serving(retry_after="3600", num_put_off=99) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: pytest.fail(str(warning)))
        for _ in range(3):
            webhook.send(picture())
        started = time.perf_counter()
        webhook.close(wait_seconds=0.3)
        assert time.perf_counter() - started < 2
        assert len(server.received) == 1


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("2", 2),
        ("0.25", 0.25),
        ("3600", 60),
        ("inf", 60),
        ("0", 1),
        ("-5", 1),
        ("nan", 1),
        ("soon", 1),
        (None, 1),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 1),
        ("Fri, 21 Oct 2950 07:28:00 GMT", 60),
    ],
)
def test_retry_after_is_read_and_bounded(asked: str | None, seconds: float) -> None:
    assert _put_off_seconds(asked) == seconds


def test_end_waits_for_a_webhook_that_has_come_back() -> None:
    warnings: list[tuple[str, str]] = []
    with serving(retry_after="0.01", num_put_off=MAX_TRIES) as server:
        targets = [Target("raw", server.url)]
        webhook = Webhook(targets, lambda *warning: warnings.append(warning))
        webhook.send(picture(prompt="lost"))
        while not warnings:
            time.sleep(0.01)
        webhook.send(picture(prompt="back"))
        while len(server.received) <= MAX_TRIES:
            time.sleep(0.01)
        time.sleep(0.1)
        for number in range(20):
            webhook.send(picture(prompt=f"last {number}"))
        webhook.close()
    assert json.loads(server.received[-1][1])["prompt"] == "last 19"


def test_dead_webhook_beside_a_good_one_costs_no_images() -> None:
    warnings: list[tuple[str, str]] = []
    with serving() as server:
        targets = [Target("raw", "http://127.0.0.1:9/secret"), Target("raw", server.url)]
        webhook = Webhook(targets, lambda *warning: warnings.append(warning))
        webhook.send(picture())
        while not warnings:
            time.sleep(0.01)
        for _ in range(20):
            webhook.send(picture())
        webhook.close()
        assert len(server.received) == 21


def test_slow_server_is_waited_for_a_moment_at_the_end_and_says_nothing_later() -> None:
    warnings: list[tuple[str, str]] = []
    with serving(answers_at_once=False, status=500) as server:
        webhook = Webhook([Target("raw", server.url)], lambda *warning: warnings.append(warning))
        webhook.send(picture())
        started = time.perf_counter()
        webhook.close(wait_seconds=0.3)
        assert 0.2 < time.perf_counter() - started < 2
        server.may_answer.set()
        webhook._thread.join(5)
    assert warnings == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"webhook_type": "slack", "webhook_url": "https://x/secret"}, "webhook_type 'raw' or 'discord'"),
        ({"webhook_type": "raw"}, "webhook_url must be an address"),
        ({"webhook_type": "raw", "webhook_url": "file:///secret"}, "begins with https:// or http://"),
        (["https://x/secret"], "must hold an object with webhook_type"),
    ],
)
def test_file_that_says_no_webhook_is_refused_without_its_secret(
    tmp_path: Path, content: Any, reason: str
) -> None:
    write_json(tmp_path / "hook.json", content)
    with pytest.raises(ValueError, match=reason) as caught:
        read_targets(tmp_path / "hook.json")
    assert "secret" not in str(caught.value)


def test_file_may_hold_several_and_simpletuners_names(tmp_path: Path) -> None:
    discord = {"webhook_type": "discord", "webhook_url": "https://d/1", "message_prefix": "rex"}
    write_json(tmp_path / "hook.json", [discord, {"webhook_type": "raw", "callback_url": "http://r/2"}])
    assert read_targets(tmp_path / "hook.json") == [
        Target("discord", "https://d/1", "rex"),
        Target("raw", "http://r/2"),
    ]
