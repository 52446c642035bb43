"""Pictures of a run to a webhook, in the background: whatever becomes of them, the run goes on."""

import base64
import json
import secrets
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError

from PIL import Image

from dreamspace.files import read_json

TIMEOUT_SECONDS = 10.0
"""For each wait for the other side."""

FAREWELL_SECONDS = 5.0
"""That a run which is over waits for its last pictures, unless the webhook has failed before."""

MAX_WAITING = 64
"""Pictures in the queue; previews are dropped from half of it on, and give way to images where it is full."""

MAX_TRIES = 5
"""Of an image that a webhook puts off (status 429); a preview has one, since the next ones are newer."""

PUT_OFF_SECONDS = 1.0
"""That a webhook which puts off without saying until when is left alone."""

MAX_PUT_OFF_SECONDS = 60.0
"""That one is left alone at the longest, whatever it asks for."""

WebhookType = Literal["raw", "discord"]
Kind = Literal["preview", "sample"]


@dataclass(frozen=True)
class Target:
    """Where pictures are sent. The address is a secret: it is in no message of ours, and not printed."""

    type: WebhookType
    url: str = field(repr=False)
    prefix: str = ""


def read_targets(path: Path) -> list[Target]:
    """The webhooks of a SimpleTuner webhook_config: a JSON object, or a list of them.

    Raises:
        ValueError: if a type is unknown or an address missing; the sentence does not repeat the address.
    """
    content = read_json(path)
    entries = content if isinstance(content, list) else [content]
    return [_target(entry, path) for entry in entries]


def _target(entry: Any, path: Path) -> Target:
    if not isinstance(entry, dict) or entry.get("webhook_type") not in ("raw", "discord"):
        raise ValueError(f"{path} must hold an object with webhook_type 'raw' or 'discord', and webhook_url.")
    # SimpleTuner's raw webhooks call it callback_url.
    url = entry.get("webhook_url") or entry.get("callback_url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError(f"{path}: webhook_url must be an address that begins with https:// or http://.")
    return Target(entry["webhook_type"], url, str(entry.get("message_prefix") or ""))


@dataclass(frozen=True)
class Picture:
    """A picture to send and what it shows."""

    kind: Kind
    image: Image.Image
    step: int
    prompt: str
    seed: int
    weights: str | None = None
    inference_step: int | None = None

    @property
    def message(self) -> str:
        """What it shows, in a line."""
        at = f"step {self.step}"
        if self.inference_step is not None:
            at += f", denoising step {self.inference_step}"
        return f"{at}, seed {self.seed}: {self.prompt}"


class Webhook:
    """Sends pictures from a queue in a thread of its own; the first failure of each target is said, no other.

    Args:
        warn: called with a sentence and a hint, from that thread or from within `send`.
    """

    def __init__(
        self,
        targets: list[Target],
        warn: Callable[[str, str], None],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._targets, self._warn, self._timeout_seconds = targets, warn, timeout_seconds
        self._waiting: deque[Picture] = deque()
        self._changed, self._is_ending = threading.Condition(), False
        self._failing: set[int] = set()
        self._said: set[int | None] = set()
        self._is_closed, self._lock = False, threading.Lock()
        self._thread = threading.Thread(target=self._send_all, name="webhook", daemon=True)
        self._thread.start()

    def send(self, picture: Picture) -> None:
        """Have a picture sent, if the queue has room for it; returns at once."""
        with self._changed:
            has_room = self._make_room(picture.kind)
            if has_room:
                self._waiting.append(picture)
                self._changed.notify()
        if not has_room and picture.kind == "sample":
            self._say(
                None,
                f"An image is not sent to the webhook, for which {MAX_WAITING} others wait. The training "
                "goes on.",
                "The webhook is slower than images are drawn; all of them are in the run's folder. Further "
                "ones that are not sent are not said.",
            )

    def close(self, wait_seconds: float = FAREWELL_SECONDS) -> None:
        """Let the last pictures go, for a moment; afterwards nothing is said any more."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        if len(self._failing) < len(self._targets):
            self._thread.join(wait_seconds)
        with self._lock:
            self._is_closed = True

    def _make_room(self, kind: Kind) -> bool:
        if kind == "preview":
            return len(self._waiting) < MAX_WAITING // 2
        if len(self._waiting) < MAX_WAITING:
            return True
        oldest = next((place for place, waiting in enumerate(self._waiting) if waiting.kind == "preview"), -1)
        if oldest >= 0:
            del self._waiting[oldest]
        return oldest >= 0

    def _next(self) -> Picture | None:
        """The picture that has waited longest; None once the queue is empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending)
            return self._waiting.popleft() if self._waiting else None

    def _send_all(self) -> None:
        while (picture := self._next()) is not None:
            for number, target in enumerate(self._targets):
                try:
                    self._deliver(target, picture)
                    self._failing.discard(number)
                except (OSError, HTTPException, ValueError) as error:
                    self._failing.add(number)
                    self._say(number, *_failure(target, error))

    def _deliver(self, target: Target, picture: Picture) -> None:
        """Send a picture, after as long as the webhook puts it off."""
        request = _request(target, picture)
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                _post(request, self._timeout_seconds)
                return
            except HTTPError as error:
                if error.code != HTTPStatus.TOO_MANY_REQUESTS or not tries_left:
                    raise
                time.sleep(_put_off_seconds(error.headers.get("Retry-After")))
            if picture.kind == "preview":
                return

    def _say(self, subject: int | None, message: str, hint: str) -> None:
        """Warn of a target, or None for the queue, unless it has been done."""
        with self._lock:
            if subject not in self._said and not self._is_closed:
                self._warn(message, hint)
            self._said.add(subject)


def _put_off_seconds(asked: str | None) -> float:
    """How long a Retry-After wants to be left alone: seconds, or a date."""
    try:
        seconds = float(asked or "")
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(asked or "") - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):  # a date without a zone, or none
            seconds = 0.0
    return min(seconds, MAX_PUT_OFF_SECONDS) if seconds > 0 else PUT_OFF_SECONDS


def _failure(target: Target, error: Exception) -> tuple[str, str]:
    """A sentence and a hint. The texts of errors are not in them: some repeat the address."""
    reason = f"status {error.code}" if isinstance(error, HTTPError) else type(error).__name__
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        reason = type(error.reason).__name__
    return (
        f"A picture could not be sent to the {target.type} webhook ({reason}). The training goes on.",
        "Check webhook_url in the file that webhook_config names. Further failures are not said.",
    )


def _post(request: urllib.request.Request, timeout_seconds: float) -> None:
    with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
        answer.read(1)


def _request(target: Target, picture: Picture) -> urllib.request.Request:
    buffer = BytesIO()
    if picture.kind == "preview":
        picture.image.save(buffer, "jpeg", quality=90)
    else:
        picture.image.save(buffer, "png", compress_level=1)
    content = buffer.getvalue()
    if target.type == "raw":
        body, content_type = _raw_body(picture, content), "application/json"
    else:
        boundary = secrets.token_hex(16)
        body = _discord_body(f"{target.prefix} {picture.message}".strip(), picture.kind, content, boundary)
        content_type = f"multipart/form-data; boundary={boundary}"
    # Discord refuses requests of programs without a name.
    headers = {"Content-Type": content_type, "User-Agent": "Dreamspace (DreamBooth trainer)"}
    return urllib.request.Request(target.url, body, headers, method="POST")


def _raw_body(picture: Picture, content: bytes) -> bytes:
    return json.dumps(
        {
            "message_type": picture.kind,
            "message": picture.message,
            "step": picture.step,
            "prompt": picture.prompt,
            "seed": picture.seed,
            "weights": picture.weights,
            "inference_step": picture.inference_step,
            "images": [base64.b64encode(content).decode()],
        }
    ).encode()


def _discord_body(message: str, kind: Kind, content: bytes, boundary: str) -> bytes:
    """A form of two fields: what is said, and the picture. Nobody is called by a prompt that holds an @."""
    media_type, name = ("image/jpeg", "preview.jpg") if kind == "preview" else ("image/png", "image.png")
    said = json.dumps({"content": message[:2000], "allowed_mentions": {"parse": []}})
    fields = [
        ('name="payload_json"', "application/json", said.encode()),
        (f'name="files[0]"; filename="{name}"', media_type, content),
    ]
    parts = [
        f"--{boundary}\r\nContent-Disposition: form-data; {words}\r\nContent-Type: {kind_of}\r\n\r\n".encode()
        + value
        + b"\r\n"
        for words, kind_of, value in fields
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode()
