"""The tables of measurements lie in benchmarks/results; the site has them under benchmarks/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def on_files(files: Any, config: Any) -> Any:
    """Add the tables to the site."""
    for table in sorted(RESULTS.glob("*.md")):
        files.append(File.generated(config, f"benchmarks/{table.name}", abs_src_path=str(table)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to the tables, which lie outside of docs in the repository."""
    return markdown.replace("](../benchmarks/results/", "](benchmarks/")
