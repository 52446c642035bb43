"""The app as a FastAPI application, and the server that runs it."""

import os
import socket
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI

from dreamspace import __version__
from dreamspace.jobs.workspace import Workspace
from dreamspace.ui.downloads import downloads_router
from dreamspace.ui.layout import build_page
from dreamspace.ui.media import media_router
from dreamspace.ui.security import BodyLimit, OriginGuard
from dreamspace.ui.theme import CSS, HEAD, THEME

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def create_app(workspace: Workspace, is_local: bool = False) -> FastAPI:
    """The whole app on one workspace.

    Args:
        is_local: whether only this machine can reach it: it answers to the names of this machine alone then,
            and lends its own Hub token to who has none.
    """
    # Uploads pass through here on their way into the workspace.
    os.environ.setdefault("GRADIO_TEMP_DIR", str(workspace.cache / "uploads"))
    app = FastAPI(title="Dreamspace", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    app.include_router(media_router(workspace))
    app.include_router(downloads_router(workspace))
    gr.mount_gradio_app(
        app, build_page(workspace, is_local), "/", theme=THEME, css=CSS, head=HEAD, footer_links=[],
        run_history=False, enable_monitoring=False, pwa=False, ssr_mode=False, mcp_server=False,
        show_error=False,
    )  # fmt: skip
    app.add_middleware(BodyLimit)
    app.add_middleware(OriginGuard, allowed_hosts=LOOPBACK_HOSTS if is_local else None)
    return app


def serve(host: str, port: int, workspace_dir: Path | None = None) -> None:
    """Run the app until it is interrupted.

    Raises:
        ValueError: if the workspace cannot be used, or the address is taken.
    """
    workspace = Workspace(workspace_dir)
    listener = _listen(host, port)
    app = create_app(workspace, is_local=host in LOOPBACK_HOSTS)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    print(
        f"Dreamspace is at http://{shown}:{listener.getsockname()[1]} (workspace: {workspace.root})",
        flush=True,
    )
    config = uvicorn.Config(app, log_level="warning", proxy_headers=True, timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket: what takes the port is found out before anything is built."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 to 65535, got {port}. 0 takes any that is free.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"The address {host}:{port} cannot be used: {(error.strerror or str(error)).lower()}. "
            f"Is Dreamspace running already? Choose another port with --port {port % 65535 + 1}."
        ) from None
    return listener
