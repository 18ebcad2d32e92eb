"""Fixtures: a tiny subject per architecture, made once."""

from __future__ import annotations

import tests.typechecks  # noqa: F401  # before all that it checks

# isort: split

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, Page

import circuits.training.finished.report
from circuits.features.active import FeatureSource
from circuits.features.neurons import Neurons
from circuits.model.subject import Subject
from circuits.recording.record import record
from tests import windows
from tests.browser import chromium, leave, new_window
from tests.tiny import ARCHITECTURES, DENSE, tiny_model, tiny_subject, toy_tokenizer

cached_subject = cache(tiny_subject)
cached_recording = cache(record)
LONG = ("test_documents", "test_notebooks")  # modules whose tests take minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests go first: one that is begun last would be waited for."""
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(params=sorted(ARCHITECTURES))
def subject(request: pytest.FixtureRequest) -> Subject:
    """A tiny random float64 model of every supported architecture in turn."""
    return cached_subject(request.param)


@pytest.fixture(params=sorted(DENSE))
def dense_subject(request: pytest.FixtureRequest) -> Subject:
    """The same, of every architecture whose MLPs have neurons: no mixture of experts."""
    return cached_subject(request.param)


def skip_without_neurons(subject: Subject, source: FeatureSource) -> None:
    """Skip what would name the neurons of a mixture of experts."""
    if isinstance(source, Neurons) and subject.frozen.layout.experts:
        pytest.skip("a mixture of experts has no neurons to name")


@pytest.fixture
def gemma() -> Subject:
    """A tiny Gemma 3, where one architecture is enough."""
    return cached_subject("gemma-3")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny float32 Gemma 3 in a folder, as transformers saves it."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model("gemma-3").float().save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def few_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dictionaries that are trained are measured on three graphs of held-out documents, not 20."""
    monkeypatch.setattr(circuits.training.finished.report, "GRAPHS", 3)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's chromium; for tests that need it (`tests.browser.needs_chromium`)."""
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of somebody who has never been here."""
    page = new_window(browser)
    yield page
    for window in page.context.pages[1:]:
        leave(window)


@pytest.fixture(scope="module", params=["posix", "windows"])
def either_system(request: pytest.FixtureRequest) -> Iterator[str]:
    """Tests of files run twice: the second time what Windows refuses is refused."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "windows":
            windows.impose(patch)
        yield request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Other threads would not know of made-up cards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
