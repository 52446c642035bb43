"""A small Hub on 127.0.0.1: the part of the Hub's HTTP protocol that publishing and loading a model use.

    with FakeHub(folder) as hub:
        run_in_subprocess(env={"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token})
        hub.repositories["alice/my-dog"].files["README.md"].content

It keeps repositories in memory and xet storage under `folder`. huggingface_hub reads HF_ENDPOINT when it is
imported, so its caller runs in a process of its own. LFS files that came by xet have no content here, only
their sha256: `HF_HUB_DISABLE_XET=1` makes the caller send them by LFS.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_canaryTokenThatMustNeverBeSeen42"
LFS_SUFFIXES = (".safetensors", ".bin", ".png", ".webp")


@dataclass(frozen=True)
class StoredFile:
    """A file of a repository; `oid` is the sha256 of an LFS file, else its git blob hash."""

    oid: str
    size: int
    is_lfs: bool
    content: bytes | None


@dataclass
class Repository:
    """A model repository; `files` is the tree of its newest commit."""

    id: str
    is_private: bool
    files: dict[str, StoredFile] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        """The newest commit's id, a function of the history and the tree."""
        state = [self.commits, sorted((path, file.oid) for path, file in self.files.items())]
        return hashlib.sha1(json.dumps(state).encode()).hexdigest()

    @property
    def tags(self) -> list[str]:
        """The tags of the card, as the Hub shows them."""
        card = self.files.get("README.md")
        return front_matter(card.content.decode()).get("tags", []) if card else []


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; `body` is JSON unless it is bytes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """The server and what it recorded; a context manager.

    Args:
        folder: where xet storage goes.
        user: the account that `token` belongs to.
        token: the only token that is accepted.
        role: of the token: `write` or `read`.
        organizations: namespaces beside `user` that the token may write to.

    Attributes:
        repositories: what was created and committed.
        requests: method and path of each request, in order.
        answers: what a step of `STEPS` replies instead of doing its work.
    """

    def __init__(
        self,
        folder: Path,
        user: str = "alice",
        token: str = TOKEN,
        role: str = "write",
        organizations: tuple[str, ...] = (),
    ) -> None:
        self.folder = Path(folder)
        self.user, self.token, self.role, self.organizations = user, token, role, organizations
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str]] = []
        self._blobs: dict[str, bytes] = {}
        self.answers: dict[str, Reply] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def endpoint(self) -> str:
        """The value for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, step: str, status: int, message: str = "made to fail", **headers: str) -> None:
        """Let a step of `STEPS` answer `status` from now on, with a message and headers of the Hub's form."""
        assert step in STEPS, f"unknown step {step}"
        self.answers[step] = refusal(status, message, **headers)

    def heal(self) -> None:
        """Let every step do its work again."""
        self.answers.clear()

    def num_requests(self, step: str) -> int:
        """How often a step was asked for."""
        method, pattern, _ = STEPS[step]
        return sum(verb == method and bool(re.fullmatch(pattern, path)) for verb, path in self.requests)

    def add_repository(
        self, repo_id: str, is_private: bool, files: dict[str, bytes] | None = None
    ) -> Repository:
        """Put a repository there as if somebody had pushed to it before."""
        repository = Repository(repo_id, is_private)
        for path, content in (files or {}).items():
            repository.files[path] = StoredFile(git_hash(content), len(content), False, content)
        self.repositories[repo_id] = repository
        return repository

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> Reply:
        """Answer one request; `token` is what the caller authenticated with."""
        with self._lock:
            self.requests.append((method, path))
            for step, (verb, pattern, respond) in STEPS.items():
                match = re.fullmatch(pattern, path)
                if match is None or verb != ("GET" if method == "HEAD" else method):
                    continue
                if step in self.answers:
                    return self.answers[step]
                if step not in ("validate", "put") and token != self.token:
                    return refusal(401, "Invalid username or password.")
                repo_id = match.groupdict().get("repo")
                if repo_id is not None and repo_id not in self.repositories:
                    return refusal(404, "Repository not found", X_Error_Code="RepoNotFound")
                return respond(self, match, body)
        return refusal(404, f"This Hub knows no {method} {path}")

    def _whoami(self, match: re.Match, body: bytes) -> Reply:
        token = {"displayName": "test", "role": self.role}
        organizations = [{"type": "org", "name": name} for name in self.organizations]
        auth = {"type": "access_token", "accessToken": token}
        return Reply({"type": "user", "name": self.user, "orgs": organizations, "auth": auth})

    def _create(self, match: re.Match, body: bytes) -> Reply:
        asked = json.loads(body)
        namespace = asked["organization"] or self.user
        if self.role != "write" or namespace not in (self.user, *self.organizations):
            return refusal(403, f"You don't have the rights to create a model under {namespace}")
        repo_id = f"{namespace}/{asked['name']}"
        url = f"{self.endpoint}/{repo_id}"
        if repo_id in self.repositories:
            return Reply({"error": "You already created this model repo", "url": url}, 409)
        self.add_repository(repo_id, is_private=asked.get("visibility") == "private")
        return Reply({"url": url})

    def _info(self, match: re.Match, body: bytes) -> Reply:
        repository = self.repositories[match["repo"]]
        siblings = [{"rfilename": path} for path in [".gitattributes", *sorted(repository.files)]]
        state = {"private": repository.is_private, "sha": repository.sha, "tags": repository.tags}
        return Reply({"id": repository.id, "siblings": siblings, **state})

    def _tree(self, match: re.Match, body: bytes) -> Reply:
        files = sorted(self.repositories[match["repo"]].files.items())
        return Reply([{"type": "file", "path": path, "size": f.size, "oid": f.oid} for path, f in files])

    def _validate(self, match: re.Match, body: bytes) -> Reply:
        try:
            metadata = front_matter(json.loads(body)["content"])
        except yaml.YAMLError as error:
            return Reply({"errors": [{"message": str(error)}], "warnings": []}, 400)
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        return Reply({"errors": [], "warnings": warnings})

    def _preupload(self, match: re.Match, body: bytes) -> Reply:
        stored = self.repositories[match["repo"]].files
        files = []
        for asked in json.loads(body)["files"]:
            mode = "lfs" if asked["path"].endswith(LFS_SUFFIXES) else "regular"
            file = {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}
            if asked["path"] in stored:
                file["oid"] = stored[asked["path"]].oid
            files.append(file)
        return Reply({"files": files})

    def _lfs_batch(self, match: re.Match, body: bytes) -> Reply:
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"href": f"{self.endpoint}/lfs/{asked['oid']}", "header": {}}
            verify = {"href": f"{self.endpoint}/{match['repo']}.git/info/lfs/verify", "header": {}}
            objects.append({**asked, "actions": {"upload": upload, "verify": verify}})
        return Reply({"transfer": "basic", "objects": objects})

    def _lfs_put(self, match: re.Match, body: bytes) -> Reply:
        if hashlib.sha256(body).hexdigest() != match["oid"]:
            return refusal(400, "The content does not match its sha256.")
        self._blobs[match["oid"]] = body
        return Reply({})

    def _lfs_verify(self, match: re.Match, body: bytes) -> Reply:
        return Reply({}) if json.loads(body)["oid"] in self._blobs else refusal(404, "No such object.")

    def _xet_token(self, match: re.Match, body: bytes) -> Reply:
        url, expires = f"local://{self.folder.resolve() / 'xet'}", int(time.time()) + 3600
        headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(expires)}
        return Reply({"casUrl": url, "accessToken": "xet", "exp": expires}, headers=headers)

    def _commit(self, match: re.Match, body: bytes) -> Reply:
        repository = self.repositories[match["repo"]]
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                repository.commits.append(f"{value['summary']}\n{value['description']}")
            elif entry["key"] == "file":
                content = base64.b64decode(value["content"])
                repository.files[value["path"]] = StoredFile(git_hash(content), len(content), False, content)
            elif entry["key"] == "lfsFile":
                oid = value["oid"]
                repository.files[value["path"]] = StoredFile(oid, value["size"], True, self._blobs.get(oid))
            else:
                assert entry["key"] == "deletedFile", entry["key"]
                del repository.files[value["path"]]
        url = f"{self.endpoint}/{repository.id}/commit/{repository.sha}"
        return Reply({"success": True, "commitOid": repository.sha, "commitUrl": url})

    def _resolve(self, match: re.Match, body: bytes) -> Reply:
        repository = self.repositories[match["repo"]]
        file = repository.files.get(unquote(match["path"]))
        if file is None or file.content is None:
            return refusal(404, "Entry not found", X_Error_Code="EntryNotFound")
        return Reply(file.content, headers={"X-Repo-Commit": repository.sha, "ETag": f'"{file.oid}"'})


REPO = r"(?P<repo>[^/]+/[^/]+)"
STEPS: dict[str, tuple[str, str, Callable[[FakeHub, re.Match, bytes], Reply]]] = {
    "whoami": ("GET", r"/api/whoami-v2", FakeHub._whoami),
    "create": ("POST", r"/api/repos/create", FakeHub._create),
    "info": ("GET", rf"/api/models/{REPO}(/revision/[^/]+)?", FakeHub._info),
    "tree": ("GET", rf"/api/models/{REPO}/tree/[^/]+", FakeHub._tree),
    "validate": ("POST", r"/api/validate-yaml", FakeHub._validate),
    "preupload": ("POST", rf"/api/models/{REPO}/preupload/main", FakeHub._preupload),
    "lfs": ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", FakeHub._lfs_batch),
    "put": ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", FakeHub._lfs_put),
    "verify": ("POST", rf"/{REPO}\.git/info/lfs/verify", FakeHub._lfs_verify),
    "xet": ("GET", rf"/api/models/{REPO}/xet-write-token/main", FakeHub._xet_token),
    "commit": ("POST", rf"/api/models/{REPO}/commit/main", FakeHub._commit),
    "resolve": ("GET", rf"/{REPO}/resolve/[^/]+/(?P<path>.+)", FakeHub._resolve),
}


def front_matter(card: str) -> dict[str, Any]:
    """The YAML block of a card, {} without one, found by the Hub's own expression."""
    match = re.search(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))", card)
    return (yaml.safe_load(match.group(2)) or {}) if match else {}


def git_hash(content: bytes) -> str:
    """The git blob hash of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error of the Hub's form; underscores in the names of headers stand for dashes."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply({"error": message}, status, {"X-Error-Message": message, **headers})


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
            reply = hub.answer(self.command, urlsplit(self.path).path, token, body)
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = _reply  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests stay quiet."""

    return Handler
