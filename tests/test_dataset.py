"""Datasets on the Hub, from a server on loopback that speaks its file protocol."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import huggingface_hub.constants as hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from circuits.training import dataset
from circuits.training.dataset import dataset_corpus
from circuits.training.settings import TrainingError
from tests.tiny import toy_tokenizer

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Dataset repositories: name → branch → file → content."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.fetched: list[str] = []


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
        for name, branches in self.server.repositories.items():
            for branch, files in branches.items():
                if path == f"/api/datasets/{name}/revision/{branch}":
                    listing = [{"rfilename": file} for file in files]
                    told = {"id": name, "sha": COMMIT, "siblings": listing}
                    return self._send(200, json.dumps(told).encode(), with_body)
                for file, content in files.items():
                    if path == f"/datasets/{name}/resolve/{COMMIT}/{file}":
                        if with_body:
                            self.server.fetched.append(file)
                        return self._send(200, content, with_body)
        return self._send(404, b"{}", with_body)

    def _send(self, status: int, content: bytes, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on loopback, in place of the real one, with an empty cache."""
    with Hub() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(hub, "ENDPOINT", address)
        monkeypatch.setattr(
            hub, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield running
        running.shutdown()
        thread.join()


def parquet(folder: Path, texts: list[str], column: str = "text", group: int = 2) -> bytes:
    path = folder / "made.parquet"
    pq.write_table(pa.table({column: pa.array(texts, pa.string())}), path, row_group_size=group)
    return path.read_bytes()


def test_rows_of_all_files_follow_each_other_and_start_anywhere(server: Hub, tmp_path: Path):
    files = {
        "data/train-0.parquet": parquet(tmp_path, ["f", "fj", "fjo"]),
        "data/train-1.parquet": parquet(tmp_path, ["o", "oi"]),
        "data/test-0.parquet": parquet(tmp_path, ["d"]),
        "README.md": b"-",
    }
    server.repositories["org/set"] = {"main": files}
    corpus = dataset_corpus("org/set", toy_tokenizer(), 3)
    whole = list(islice(corpus.documents(0), 12))
    assert whole[:5] == [[1, 5], [1, 5, 9], [1, 5, 9], [1, 14], [1, 14, 8]]
    assert whole[5:10] == whole[:5]
    for first in range(9):
        fresh = dataset_corpus("org/set", toy_tokenizer(), 3)
        assert list(islice(fresh.documents(first), 3)) == whole[first : first + 3]
    assert sorted(server.fetched) == ["data/train-0.parquet", "data/train-1.parquet"]


def test_files_are_fetched_when_they_are_needed(server: Hub, tmp_path: Path):
    files = {
        f"{i}.parquet": parquet(tmp_path, [*texts]) for i, texts in enumerate(("fj", "oi", "de"))
    }
    server.repositories["org/set"] = {"main": files}
    list(islice(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0), 3))
    assert server.fetched == ["0.parquet", "1.parquet"]


def test_without_parquet_the_conversion_of_the_hub_is_read(server: Hub, tmp_path: Path):
    converted = {"default/train/0000.parquet": parquet(tmp_path, ["fj"])}
    branches = {"main": {"data.csv": b"text\n"}, dataset.CONVERTED: converted}
    server.repositories["org/set"] = branches
    corpus = dataset_corpus("org/set", toy_tokenizer(), 9)
    assert list(islice(corpus.documents(0), 2)) == [[1, 5, 9]] * 2
    branches[dataset.CONVERTED] = {}
    with pytest.raises(TrainingError, match="holds no parquet files"):
        dataset_corpus("org/set", toy_tokenizer(), 9)


def test_what_cannot_be_read_is_refused_in_one_sentence(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(TrainingError, match="'org/none' cannot be had from the Hugging Face Hub"):
        dataset_corpus("org/none", toy_tokenizer(), 9)
    content = parquet(tmp_path, ["fj"], column="body")
    server.repositories["org/set"] = {"main": {"0.parquet": content}}
    with pytest.raises(TrainingError, match=r"no texts in a column 'text': .* one of body"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"text": [1, 2]}), numbers)
    server.repositories["org/set"] = {"main": {"3.parquet": numbers.read_bytes()}}
    with pytest.raises(TrainingError, match="choose with --column one of another dataset"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    damaged = bytearray(parquet(tmp_path, ["fjfjfj" * 20] * 9, group=9))
    damaged[10:60] = bytes(50)
    server.repositories["org/set"] = {"main": {"4.parquet": bytes(damaged)}}
    with pytest.raises(TrainingError, match=r"4\.parquet of org/set is not a whole parquet file"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    server.repositories["org/set"] = {"main": {"1.parquet": content[:50]}}
    with pytest.raises(TrainingError, match=r"1\.parquet of org/set is not a whole parquet file"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    server.repositories["org/set"] = {"main": {"2.parquet": parquet(tmp_path, [])}}
    with pytest.raises(TrainingError, match="'org/set' has no rows"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    monkeypatch.setattr(dataset, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r'run: pip install "headwater\[train\]"'):
        dataset_corpus("org/set", toy_tokenizer(), 9)


def test_a_missing_text_is_empty(server: Hub, tmp_path: Path):
    content = tmp_path / "made.parquet"
    pq.write_table(pa.table({"text": ["fj", None, "oi"]}), content)
    server.repositories["org/set"] = {"main": {"0.parquet": content.read_bytes()}}
    documents = list(islice(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0), 3))
    assert documents == [[1, 5, 9], [1], [1, 14, 8]]


def test_without_a_network_one_sentence_says_so(server: Hub):
    server.shutdown()
    server.server_close()
    with pytest.raises(TrainingError, match="'org/set' cannot be had from the Hugging Face Hub"):
        dataset_corpus("org/set", toy_tokenizer(), 9)
    with pytest.raises(TrainingError, match="cannot be had from the Hugging Face Hub"):
        dataset_corpus("../corpus", toy_tokenizer(), 9)
