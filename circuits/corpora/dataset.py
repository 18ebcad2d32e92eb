"""Documents of a dataset on the Hugging Face Hub: rows of its parquet files, fetched as needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download
from transformers import PreTrainedTokenizerBase

from circuits.corpora.corpus import token_ids
from circuits.errors import TrainingError
from circuits.model.hub import reason
from circuits.model.prompt import opening_ids
from graphs.core.opening import Bos

CONVERTED = "refs/convert/parquet"  # where the Hub keeps its own conversion of other formats


@dataclass(frozen=True)
class DatasetCorpus:
    """Rows of a dataset, each the beginning of a text; repeated without end."""

    name: str
    files: tuple[str, ...]
    revision: str  # commit
    column: str
    tokenizer: PreTrainedTokenizerBase
    length: int  # tokens per document at most
    front: tuple[int, ...]  # what documents begin with
    rows: dict[str, int] = field(default_factory=dict[str, int])  # per file, once known

    def documents(self, first: int) -> Iterator[list[int]]:
        """Token ids of row `first` and all that follow, without end.

        Raises TrainingError if a file cannot be downloaded or read, or if there are no rows.
        """
        skipped = first
        while True:
            for name in self.files:
                if skipped >= self.rows.get(name, skipped + 1):
                    skipped -= self.rows[name]
                    continue
                yield from map(self._ids, self._texts(name, skipped))
                skipped = max(0, skipped - self.rows[name])
            if not any(self.rows.values()):
                raise TrainingError(f"The dataset {self.name!r} has no rows: give another corpus.")

    def fingerprint(self) -> str:
        """The dataset at its commit, and the part that is read."""
        return f"{self.name} at {self.revision}, {self.length} tokens of {self.column}"

    def _texts(self, name: str, skipped: int) -> Iterator[str]:
        """Texts of one file after the first `skipped`; a missing one is empty."""
        from pyarrow import ArrowException

        file = self._open(name)
        self.rows[name] = file.metadata.num_rows
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if skipped < count:
                try:
                    column = file.read_row_group(group, columns=[self.column]).column(0)
                except (ArrowException, OSError) as error:
                    raise self._damaged(name) from error
                yield from (text or "" for text in column[skipped:].to_pylist())
            skipped = max(0, skipped - count)

    def _open(self, name: str) -> Any:
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile

        path = fetched(self.name, name, self.revision)
        try:
            file = ParquetFile(path)
        except (ArrowException, OSError) as error:
            raise self._damaged(name) from error
        texts = [
            column.name
            for column in file.schema_arrow
            if types.is_string(column.type) or types.is_large_string(column.type)
        ]
        if self.column not in texts:
            raise TrainingError(
                f"{self.name} has no text column {self.column!r}: choose with --column one of "
                f"{', '.join(texts) or 'another dataset'}."
            )
        return file

    def _damaged(self, name: str) -> TrainingError:
        return TrainingError(
            f"{name} of {self.name} is not a complete parquet file: remove it from the cache."
        )

    def _ids(self, text: str) -> list[int]:
        return token_ids(text, self.tokenizer, self.front)[: self.length]


def dataset_corpus(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    column: str = "text",
    bos: Bos = Bos.AUTO,
) -> DatasetCorpus:
    """The dataset of this name on the Hub.

    Raises TrainingError if it cannot be reached, has no parquet files or pyarrow is missing.
    """
    if find_spec("pyarrow") is None:
        raise TrainingError('Datasets need pyarrow; run: pip install "headwater[train]"')
    for revision in ("main", CONVERTED):
        try:
            info = HfApi().dataset_info(name, revision=revision)
        except Exception as error:  # of the client, its transport, and invalid names
            raise TrainingError(
                f"The dataset {name!r} could not be loaded from the Hugging Face Hub "
                f"({reason(error)}): give another dataset, a file or a folder."
            ) from error
        names = sorted(file.rfilename for file in info.siblings or ())
        parquet = [file for file in names if file.endswith(".parquet")]
        training = [file for file in parquet if "train" in file]
        if parquet:
            files = tuple(training or parquet)
            front = opening_ids(tokenizer, bos)
            return DatasetCorpus(name, files, str(info.sha), column, tokenizer, length, front)
    raise TrainingError(f"The dataset {name!r} has no parquet files: give another corpus.")


def fetched(name: str, file: str, revision: str) -> Path:
    """A dataset's file in the local cache.  Raises TrainingError if it cannot be downloaded."""
    try:
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=revision))
    except Exception as error:  # as above
        raise TrainingError(
            f"{file} of {name!r} could not be downloaded: {reason(error)}."
        ) from error
