"""The README and every page of the documentation: what is shown is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import circuits
import graphs
import headwater
import viz
from circuits.model.packaged import PACKAGED
from headwater.cli.commands import PANELS
from tests.documents import (
    ROOT,
    RUN,
    Session,
    assert_shown,
    blocks,
    environment,
    is_line,
    is_number,
)
from tests.format_writers import as_json, gemma_scope_2, gemma_scope_2_tensors, store
from tests.hub_server import running_hub
from tests.test_real_model import require_package
from tests.tiny import tiny_model, toy_dictionary
from tests.tokenizers_like import byte_level
from tests.warm import warm_program

PAGES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
SHOWN = {name: list(blocks(page)) for name, page in PAGES.items()}
FENCE = "```"


def require_weights_of(code: str) -> None:
    """Skip a program with a model whose package is not installed."""
    for model, package in PACKAGED.items():
        if model in code:
            require_package(package.distribution)


def programs() -> list[str]:
    """Pages with something to run; that about published dictionaries needs a Hub."""
    run = {name for name, found in SHOWN.items() if any(one.language in RUN for one in found)}
    return sorted(run - {"dictionaries"})


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm_program(tmp_path_factory.mktemp("warm"), environment()) as folder:
        yield folder


@pytest.fixture
def hub_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Hub on loopback, with tiny files under the names of published ones."""
    folder = tmp_path_factory.mktemp("published")
    model, dictionaries, n_layers = folder / "model", folder / "dictionaries", 14
    tokenizer, made = byte_level(), toy_dictionary(skip=True, n_layers=n_layers)
    layers = {"num_hidden_layers": n_layers, "layer_types": ["full_attention"] * n_layers}
    tiny_model("gemma-3", vocab_size=len(tokenizer), **layers).float().save_pretrained(model)
    tokenizer.save_pretrained(model)
    gemma_scope_2(made, dictionaries / "transcoder_all" / "width_16k_l0_small_affine")
    one = dictionaries / "resid_post" / "layer_13_width_16k_l0_medium"
    tensors = gemma_scope_2_tensors(toy_dictionary().layers[0], made.layers[13].decoders[0])
    store(tensors, one / "params.safetensors")
    as_json({"type": "sae", "hf_hook_point_in": "model.layers.13.output"}, one / "config.json")
    with pytest.MonkeyPatch.context() as patch, running_hub(folder / "cache", patch) as hub:
        hub.publish("google/gemma-3-1b-pt", model)
        hub.publish("google/gemma-scope-2-1b-pt", dictionaries)
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_CACHE": str(folder / "cache"),
            "XDG_CACHE_HOME": str(folder),
        }


def test_published_dictionaries_are_used_as_shown(
    hub_environment: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    programs = tmp_path_factory.mktemp("warm")
    with warm_program(programs, environment() | hub_environment):
        Session(tmp_path, hub_environment, programs).run(PAGES["dictionaries"])
    graph = graphs.read_graph(tmp_path / "paris.safetensors")
    assert graph.provenance.dictionary.name.startswith("google/gemma-scope-2-1b-pt")


@pytest.mark.real_model
@pytest.mark.parametrize("name", programs())
def test_a_page_runs_in_an_empty_folder(name: str, tmp_path: Path, warm: Path):
    require_weights_of("".join(one.text for one in SHOWN[name] if one.language in RUN))
    Session(tmp_path, programs=warm).run(PAGES[name])


def test_the_readme_is_short():
    assert len(PAGES["README"].splitlines()) <= 150


def test_pages_name_every_command_and_no_other():
    known = {name for commands in PANELS.values() for name in commands}
    code = "".join(block.text for found in SHOWN.values() for block in found)
    assert set(re.findall(r"^\s*headwater ([a-z]+)", code, re.M)) <= known
    text = "\n".join(PAGES.values())
    assert [name for name in known if not re.search(rf"`{name}`|headwater {name}", text)] == []


def test_the_site_is_built_without_a_warning_and_from_this_machine_alone(tmp_path: Path):
    program = Path(sys.executable).parent / "mkdocs"
    done = subprocess.run(
        [program, "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\"\s>]+)", text)
        loaded += re.findall(r"<link[^>]*rel=\"?(?:stylesheet|preconnect|icon|preload)[^>]*>", text)
        assert loaded
        assert not [one for one in loaded if re.search(r"(https?:)?//", one)], page
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert "url(" in styles
    assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles)


@pytest.mark.parametrize("package", [headwater, circuits, graphs, viz], ids=lambda p: p.__name__)
def test_the_api_pages_have_every_public_name(package: ModuleType):
    name = package.__name__
    page = (ROOT / "docs" / "api" / f"{name}.md").read_text(encoding="utf-8")
    assert sorted(re.findall(rf"^::: {name}\.(\w+)$", page, re.M)) == sorted(package.__all__)


def test_the_navigation_has_every_page():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/]+\.md", str(yaml.safe_load(settings)["nav"])))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert listed == there


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a  1.50", "a 1.504", True),
        ("a 1.50", "a 1.52", False),
        ("a 15", "a 16", False),
        ("1,204 of 7", "1,204 of 7", True),
        ("−5.5%", "−5.4%", True),
        ("+5.5", "-5.5", False),
        ("is · Aus…", "is · Austin", True),
        ("is · Aus…", "is Austin", False),
        ("3e-06 …", "4e-06 of", True),
        ("3e-06 …", "3e-05 of", False),
    ],
)
def test_lines_are_compared_as_exactly_as_they_are_shown(shown: str, printed: str, same: bool):
    assert is_line(" ".join(shown.split()), printed) == same


def test_lines_are_consecutive_unless_it_is_shown():
    assert_shown("a\nb\n", "a\nb\n", "")
    assert_shown("…\nb\n…\n", "a\nb\nc\n", "")
    for shown in ("a\n", "b\n", "a\nc\n", "…\nc\nb\n…", "…\n5\n"):
        with pytest.raises(AssertionError):
            assert_shown(shown, "a\nb\nc\n", "")
    assert is_number("16.6", "16.55")


def test_a_block_that_fails_or_prints_something_else_is_found(tmp_path: Path):
    for language, code, text in (
        ("sh", "echo 1", "2"),
        ("python", "1 + 1", "3"),
        ("python", "1 + 1  # 3", "2"),
        ("sh", "false", ""),
        ("python", "1 / 0", ""),
    ):
        page = f"{FENCE}{language}\n{code}\n{FENCE}\n{FENCE}text\n{text}\n{FENCE}\n"
        with pytest.raises(AssertionError):
            Session(tmp_path).run(page)
    first, then = (f"{FENCE}python\n{code}\n{FENCE}\n" for code in ("x = 2\nx  # 2", "x + 1"))
    Session(tmp_path).run(f"{first}{then}{FENCE}text\n3\n{FENCE}\n")
