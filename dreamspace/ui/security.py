"""What stands before every request: which hosts and origins may ask, and how much they may send."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD_BYTES = 1_000_000_000
MAX_BODY_BYTES = 4_000_000

_UPLOAD_PATH = "/gradio_api/upload"
_DEFAULT_PORTS = (80, 443)


class OriginGuard:
    """Answers 403 to requests that another website makes in the user's browser.

    Gradio allows every origin with credentials on a public host. Programs other than browsers send neither
    `Origin` nor `Sec-Fetch-Site` and pass.

    Args:
        allowed_hosts: host names, without port, that the app answers to; None takes any. Naming them keeps a
            website from reaching an app on this machine by a DNS name that it points here.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] | None = None) -> None:
        self.app = app
        self.allowed_hosts = allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.allowed_hosts is not None and _host_name(host) not in self.allowed_hosts:
            message = (
                f"This app does not answer to the name '{_host_name(host)}'. Start it with --host 0.0.0.0.\n"
            )
            await PlainTextResponse(message, 421)(scope, receive, send)
        elif _is_foreign(scope["method"], headers, host):
            await PlainTextResponse("Requests from other websites are refused.\n", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class BodyLimit:
    """Answers 413 to a request whose body, all files together, is larger than its path may take."""

    def __init__(
        self, app: ASGIApp, max_upload_bytes: int = MAX_UPLOAD_BYTES, max_body_bytes: int = MAX_BODY_BYTES
    ) -> None:
        self.app = app
        self.max_upload_bytes = max_upload_bytes
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.max_upload_bytes if scope["path"] == _UPLOAD_PATH else self.max_body_bytes
        refusal = PlainTextResponse(
            f"This is more than the {limit / 1e6:.0f} MB that fit into one request. Send less at a time.\n",
            413,
        )
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limit:
            await refusal(scope, receive, send)
            return
        num_bytes = 0
        has_answered = False

        async def counted_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > limit:
                raise _TooLargeError
            return message

        async def noted_send(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        try:
            await self.app(scope, counted_receive, noted_send)
        except _TooLargeError:
            if not has_answered:
                await refusal(scope, receive, send)


class _TooLargeError(Exception):
    """The body went over its limit while it came in."""


def _is_foreign(method: str, headers: Headers, host: str) -> bool:
    origin = headers.get("origin")
    if origin is not None and _address(origin) != _without_default_port(host):
        return True
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return False
    # Following a link to the app, or a Space's frame around it, is a navigation.
    return method not in ("GET", "HEAD") or headers.get("sec-fetch-mode") != "navigate"


def _address(origin: str) -> str:
    """Host and port of an `Origin` header; "" for "null", which no host is equal to."""
    parts = urlsplit(origin)
    return _without_default_port(parts.netloc)


def _without_default_port(host: str) -> str:
    for port in _DEFAULT_PORTS:
        host = host.removesuffix(f":{port}")
    return host.lower()


def _host_name(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "").lower()
