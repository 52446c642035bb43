from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dreamspace.ui import server
from dreamspace.ui.security import BodyLimit, OriginGuard

HOST = "http://127.0.0.1:7860"


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


def client(allowed_hosts: frozenset[str] | None = None, **limits: int) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST", "OPTIONS"])])
    app.add_middleware(BodyLimit, **limits)
    app.add_middleware(OriginGuard, allowed_hosts=allowed_hosts)
    return TestClient(app, base_url=HOST)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:7860", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_post_from_another_website_is_refused(headers: dict[str, str]) -> None:
    assert client().post("/gradio_api/queue/join", headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": HOST, "Sec-Fetch-Site": "same-origin"}, {"Origin": HOST.upper().replace("HTTP", "http")}],
)
def test_a_post_of_the_page_itself_or_of_a_program_passes(headers: dict[str, str]) -> None:
    assert client().post("/gradio_api/queue/join", headers=headers, content=b"abc").text == "3 bytes"


def test_another_website_may_link_to_the_app_but_not_embed_its_pictures() -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client().get("/", headers=link).status_code == 200
    assert client().get("/media/runs/a/validation/0.png", headers=picture).status_code == 403
    assert client().options("/config", headers={"Origin": "https://evil.example"}).status_code == 403


def test_the_default_port_of_a_space_is_its_origin() -> None:
    headers = {"Host": "alice-dreamspace.hf.space", "Origin": "https://alice-dreamspace.hf.space"}
    assert client().post("/", headers=headers).status_code == 200


def test_a_name_that_points_at_this_machine_is_not_answered() -> None:
    guarded = client(frozenset({"localhost", "127.0.0.1", "::1"}))
    rebound = guarded.post("/", headers={"Host": "evil.example:7860", "Origin": "http://evil.example:7860"})
    assert rebound.status_code == 421
    assert "evil.example" in rebound.text
    assert guarded.get("/", headers={"Host": "localhost:7860"}).status_code == 200
    assert guarded.get("/", headers={"Host": "[::1]:7860"}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_only_an_app_of_this_machine_alone_offers_the_token_of_this_machine(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: served.append((self.config.app, sockets))
    )
    server.serve(host, 0, tmp_path)
    [(app, [listener])] = served
    listener.close()
    is_local = host == "127.0.0.1"
    with TestClient(app, base_url=HOST) as visitor:
        assert ("the one of this machine" in visitor.get("/config").text) == is_local
        assert visitor.get("/health", headers={"Host": "evil.example"}).status_code == (
            421 if is_local else 200
        )


def test_a_body_over_its_limit_is_refused_whether_it_says_its_size_or_not() -> None:
    limited = client(max_upload_bytes=1000, max_body_bytes=100)
    assert limited.post("/any", content=b"x" * 100).text == "100 bytes"
    assert limited.post("/any", content=b"x" * 101).status_code == 413
    assert limited.post("/gradio_api/upload", content=b"x" * 1000).text == "1000 bytes"
    chunks = (b"x" * 60 for _ in range(20))
    streamed = limited.post("/gradio_api/upload", content=chunks)
    assert streamed.status_code == 413
    assert "Send less at a time" in streamed.text
    assert limited.post("/any", headers={"Content-Length": "-5"}).status_code == 413
