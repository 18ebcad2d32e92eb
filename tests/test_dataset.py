"""Datasets on the Hub, from a server on loopback that speaks its file protocol."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from circuits.corpora import dataset
from circuits.corpora.dataset import dataset_corpus
from circuits.training.settings import TrainingError
from graphs import Bos
from tests.hub_server import Hub, running_hub
from tests.tiny import toy_tokenizer


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache", monkeypatch) as running:
        yield running


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
    server.repositories["datasets", "org/set"] = {"main": files}
    corpus = dataset_corpus("org/set", toy_tokenizer(), 3)
    whole = list(islice(corpus.documents(0), 12))
    assert whole[:5] == [[1, 5], [1, 5, 9], [1, 5, 9], [1, 14], [1, 14, 8]]
    assert whole[5:10] == whole[:5]
    for first in range(9):
        fresh = dataset_corpus("org/set", toy_tokenizer(), 3)
        assert list(islice(fresh.documents(first), 3)) == whole[first : first + 3]
    assert sorted(server.fetched) == ["data/train-0.parquet", "data/train-1.parquet"]


def test_rows_begin_as_they_are_asked_to(server: Hub, tmp_path: Path):
    files = {"data/train-0.parquet": parquet(tmp_path, ["fjo", "bo"])}
    server.repositories["datasets", "org/set"] = {"main": files}
    for bos, adds_bos, front in (
        (Bos.AUTO, False, []),
        (Bos.NEVER, True, []),
        (Bos.ALWAYS, False, [1]),
    ):
        corpus = dataset_corpus("org/set", toy_tokenizer(adds_bos=adds_bos), 3, bos=bos)
        whole = [[*front, 5, 9, 14][:3], [1, 14]]
        assert list(islice(corpus.documents(0), 2)) == whole


def test_files_are_fetched_when_they_are_needed(server: Hub, tmp_path: Path):
    files = {
        f"{i}.parquet": parquet(tmp_path, [*texts]) for i, texts in enumerate(("fj", "oi", "de"))
    }
    server.repositories["datasets", "org/set"] = {"main": files}
    list(islice(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0), 3))
    assert server.fetched == ["0.parquet", "1.parquet"]


def test_without_parquet_the_conversion_of_the_hub_is_read(server: Hub, tmp_path: Path):
    converted = {"default/train/0000.parquet": parquet(tmp_path, ["fj"])}
    branches = {"main": {"data.csv": b"text\n"}, dataset.CONVERTED: converted}
    server.repositories["datasets", "org/set"] = branches
    corpus = dataset_corpus("org/set", toy_tokenizer(), 9)
    assert list(islice(corpus.documents(0), 2)) == [[1, 5, 9]] * 2
    branches[dataset.CONVERTED] = {}
    with pytest.raises(TrainingError, match="has no parquet files"):
        dataset_corpus("org/set", toy_tokenizer(), 9)


def test_what_cannot_be_read_is_refused_in_one_sentence(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(
        TrainingError, match="'org/none' could not be loaded from the Hugging Face Hub"
    ):
        dataset_corpus("org/none", toy_tokenizer(), 9)
    content = parquet(tmp_path, ["fj"], column="body")
    server.repositories["datasets", "org/set"] = {"main": {"0.parquet": content}}
    with pytest.raises(TrainingError, match=r"no text column 'text': .* one of body"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"text": [1, 2]}), numbers)
    server.repositories["datasets", "org/set"] = {"main": {"3.parquet": numbers.read_bytes()}}
    with pytest.raises(TrainingError, match="choose with --column one of another dataset"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    damaged = bytearray(parquet(tmp_path, ["fjfjfj" * 20] * 9, group=9))
    damaged[10:60] = bytes(50)
    server.repositories["datasets", "org/set"] = {"main": {"4.parquet": bytes(damaged)}}
    with pytest.raises(
        TrainingError, match=r"4\.parquet of org/set is not a complete parquet file"
    ):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    server.repositories["datasets", "org/set"] = {"main": {"1.parquet": content[:50]}}
    with pytest.raises(
        TrainingError, match=r"1\.parquet of org/set is not a complete parquet file"
    ):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    server.repositories["datasets", "org/set"] = {"main": {"2.parquet": parquet(tmp_path, [])}}
    with pytest.raises(TrainingError, match="'org/set' has no rows"):
        next(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0))
    monkeypatch.setattr(dataset, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r'run: pip install "headwater\[train\]"'):
        dataset_corpus("org/set", toy_tokenizer(), 9)


def test_a_missing_text_is_empty(server: Hub, tmp_path: Path):
    content = tmp_path / "made.parquet"
    pq.write_table(pa.table({"text": ["fj", None, "oi"]}), content)
    server.repositories["datasets", "org/set"] = {"main": {"0.parquet": content.read_bytes()}}
    documents = list(islice(dataset_corpus("org/set", toy_tokenizer(), 9).documents(0), 3))
    assert documents == [[1, 5, 9], [1], [1, 14, 8]]


def test_without_a_network_one_sentence_says_so(server: Hub):
    server.shutdown()
    server.server_close()
    with pytest.raises(
        TrainingError, match="'org/set' could not be loaded from the Hugging Face Hub"
    ):
        dataset_corpus("org/set", toy_tokenizer(), 9)
    with pytest.raises(TrainingError, match="could not be loaded from the Hugging Face Hub"):
        dataset_corpus("../corpus", toy_tokenizer(), 9)
