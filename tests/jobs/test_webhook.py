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
from dreamspace.jobs.webhook import MAX_WAITING, Picture, Target, Webhook, read_targets

IMAGE = Image.new("RGB", (48, 32), (200, 30, 30))


class Server(NamedTuple):
    """A web server, what it was sent (headers, body), and what lets it answer."""

    url: str
    received: list[tuple[Any, bytes]]
    may_answer: threading.Event


@contextmanager
def serving(answers_at_once: bool = True, status: int = 204) -> Iterator[Server]:
    received, may_answer = [], threading.Event()
    if answers_at_once:
        may_answer.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            may_answer.wait(30)
            self.send_response(status)
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
        assert webhook._queue.qsize() <= MAX_WAITING
        while not warnings:
            time.sleep(0.01)
        started = time.perf_counter()
        webhook.close()
        assert time.perf_counter() - started < 0.3, "one that has failed is not waited for"
    ((message, _),) = warnings
    assert "TimeoutError" in message


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
