"""A Hugging Face Hub on loopback: its file protocol, and nothing else of it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants as hub
import pytest

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Repositories: kind ("models" or "datasets") and name → branch → file → content."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[tuple[str, str], dict[str, dict[str, bytes]]] = {}
        self.gated: set[str] = set()  # names whose files are refused
        self.broken = 0  # downloads that still break off half-way
        self.fetched: list[str] = []

    def publish(self, name: str, folder: Path, branch: str = "main") -> None:
        """A model repository with the files of a folder."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.repositories.setdefault(("models", name), {})[branch] = files


class _Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0].replace("%2F", "/")
        for (kind, name), branches in self.server.repositories.items():
            prefix = "" if kind == "models" else f"/{kind}"
            if path.startswith(f"/api/{kind}/{name}/tree/"):  # of chat templates, which none has
                return self._refuse(404, "EntryNotFound")
            if path.startswith(f"/api/{kind}/{name}"):
                branch = path.removeprefix(f"/api/{kind}/{name}").removeprefix("/revision/")
                return self._list(branches, branch or "main", name, with_body)
            if path.startswith(f"{prefix}/{name}/resolve/"):
                branch, _, file = path.removeprefix(f"{prefix}/{name}/resolve/").partition("/")
                return self._give(branches, branch, file, name, with_body)
        return self._refuse(404, "RepoNotFound")

    def _list(
        self, branches: dict[str, dict[str, bytes]], branch: str, name: str, with_body: bool
    ) -> None:
        files = branches.get("main" if branch == COMMIT else branch)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        listing = [{"rfilename": file} for file in files]
        told = {"id": name, "sha": COMMIT, "siblings": listing}
        return self._send(200, json.dumps(told).encode(), with_body)

    def _give(
        self,
        branches: dict[str, dict[str, bytes]],
        branch: str,
        file: str,
        name: str,
        with_body: bool,
    ) -> None:
        if name in self.server.gated:
            return self._refuse(403, "GatedRepo")
        chosen = branches.values() if branch == COMMIT else [branches.get(branch, {})]
        content = next((files[file] for files in chosen if file in files), None)
        if content is None:
            return self._refuse(404, "EntryNotFound")
        if with_body:
            self.server.fetched.append(file)
        return self._send(200, content, with_body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, status: int, content: bytes, with_body: bool) -> None:
        start = 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) + 1 if last else len(content)
            total, content, status = len(content), content[start:end], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{total}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body and self.server.broken > 0 and len(content) > 1000:
            self.server.broken -= 1
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.close()
        elif with_body:
            self.wfile.write(content)


@contextmanager
def running_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub in place of the real one, with an empty cache."""
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub, "ENDPOINT", address)
        monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("circuits.model.hub.user_cache_path", lambda name: cache / name)
        yield running
        running.shutdown()
        thread.join()
