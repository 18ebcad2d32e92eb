"""No output replaces what is read, nor a file of another kind; links are written through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import graphs
from graphs import GraphFileError
from graphs.formats.neuronpedia.contents import Upload
from headwater.arguments.usage import UsageError
from headwater.outputs.kinds import Kind, kind_of
from headwater.outputs.places import Output, output_to, require_folder, require_outputs
from tests.test_audit_command import contents
from tests.test_cli import assert_refused, run
from tests.test_viewer_numbers import layered

NOTES = graphs.Annotations(labels={"0/0": "mine"})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two graphs with their annotations, prompts, and files of a person's own."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("one", "two")):
        graphs.write_graph(layered(seed), f"{name}.safetensors")
        graphs.write_annotations(NOTES, f"{name}.annotations.json")
        (tmp_path / name).mkdir()
        graphs.write_graph(layered(seed), f"{name}/graph.safetensors")
    graphs.write_neuronpedia(layered(0), "foreign.json", Upload("foreign"))
    (tmp_path / "prompts.txt").write_text("fjfoi\n")
    (tmp_path / "thesis").write_text("# Mine\n")
    return tmp_path


READ = [  # commands, and what they read that an output would replace
    ("prune one.safetensors --html", "one.safetensors"),
    ("prune one.safetensors --out", "one.safetensors"),
    ("prune one.safetensors --html", "one.annotations.json"),
    ("view one.safetensors --html", "one.annotations.json"),
    ("view one.safetensors two.safetensors --html", "two.safetensors"),
    ("view one.safetensors two.safetensors --html", "two.annotations.json"),
    ("export one.safetensors --out", "one.safetensors"),
    ("export one.safetensors --out", "one.annotations.json"),
    ("export one.safetensors --format dot --out", "one.safetensors"),
    ("export foreign.json --out", "foreign.json"),
    ("compare one.safetensors two.safetensors --html", "two.safetensors"),
    ("compare one.safetensors two.safetensors --html", "one.annotations.json"),
    ("compare one two --html", "two/graph.safetensors"),
    ("profile {model} prompts.txt --out", "prompts.txt"),
    ("profile {model} prompts.txt --of one.safetensors --out", "one.safetensors"),
    ("profile {model} prompts.txt --of one.safetensors --out", "one.annotations.json"),
    ("trace fjfoi --model {model} --out", "{model}/model.safetensors"),
    ("trace fjfoi --model {model} --html", "one.annotations.json"),
]


@pytest.mark.parametrize("way", ["itself", "hard link", "symbolic link", "through a folder"])
@pytest.mark.parametrize(("command", "read"), READ)
def test_no_output_replaces_what_is_read(
    here: Path, model_folder: Path, command: str, read: str, way: str
):
    command, read = (text.format(model=model_folder) for text in (command, read))
    out = here / "out.safetensors"
    if way == "itself":
        out = Path(read)
    elif way == "hard link":
        out.hardlink_to(read)
    elif way == "symbolic link":
        out.symlink_to(Path(read).absolute())
    else:
        (here / "folder").symlink_to(Path(read).absolute().parent, target_is_directory=True)
        out = here / "folder" / Path(read).name
    before = contents(here), contents(model_folder)
    result = run(*command.split(), out)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert str(out) in result.stderr
    assert (contents(here), contents(model_folder)) == before


WRITTEN = {
    "trace fjfoi --model {model} --out": "thesis",
    "trace fjfoi --model {model} --html": "foreign.json",
    "prune one.safetensors --html": "two.safetensors",
    "prune one.safetensors --out": "thesis",
    "view one.safetensors --out": "thesis",
    "export one.safetensors --out": "two.annotations.json",
    "export one.safetensors --format node-link --out": "foreign.json",
    "import foreign.json --out": "thesis",
    "compare one.safetensors two.safetensors --out": "foreign.json",
    "profile {model} prompts.txt --out": "one/graph.safetensors",
}


@pytest.mark.parametrize("command", WRITTEN)
def test_no_output_replaces_a_file_of_another_kind(here: Path, model_folder: Path, command: str):
    there = WRITTEN[command]
    before = contents(here)
    result = run(*command.format(model=model_folder).split(), there)
    option = command.split()[-1]
    if not there.endswith("annotations.json"):
        said = f"Writing {there} would overwrite {kind_of(Path(there))}: give {option} another "
        assert_refused(result, said)
    else:
        assert_refused(result, "would be read as annotations of a graph: give --out another")
    assert contents(here) == before


def test_annotations_of_another_kind_are_not_in_the_way_of_a_graphs_own(here: Path):
    (here / "three.annotations.json").write_text("my notes")
    before = contents(here)
    result = run("import", "foreign.json", "--out", "three.safetensors")
    assert_refused(result, "three.annotations.json would overwrite a text")
    assert contents(here) == before


@pytest.mark.parametrize("replaced", ["nothing", "its own kind", "an empty file"])
def test_what_is_of_its_kind_is_replaced(here: Path, replaced: str):
    files = {
        "prune one.safetensors --out": ("out.safetensors", Kind.GRAPH),
        "prune one.safetensors --html": ("page.html", Kind.PAGE),
        "export one.safetensors --out": ("out.json", Kind.NEURONPEDIA),
        "export one.safetensors --format gexf --out": ("out.gexf", Kind.GEXF),
    }
    for command, (name, kind) in files.items():
        times = 1
        if replaced == "its own kind":
            times = 2
        elif replaced == "an empty file":
            (here / name).touch()
        for _ in range(times):
            result = run(*command.split(), name)
            assert result.exit_code == 0, result.output
            assert kind_of(here / name) == kind


def test_a_link_stays_and_what_it_leads_to_is_written(here: Path):
    (here / "results").mkdir()
    (here / "results" / "old.html").touch()
    for target in ("results/old.html", "results/new.html"):  # the second is not there yet
        link = here / Path(target).stem
        link.symlink_to(target)
        assert run("prune", "one.safetensors", "--html", link).exit_code == 0
        assert link.readlink() == Path(target)
        assert kind_of(here / target) == Kind.PAGE
    assert sorted(path.name for path in (here / "results").iterdir()) == ["new.html", "old.html"]
    (here / "circle").symlink_to("circle")
    assert_refused(
        run("prune", "one.safetensors", "--html", "circle"), "it is a symbolic link to itself"
    )
    (here / "nowhere").symlink_to("none/page.html")
    assert_refused(run("prune", "one.safetensors", "--html", "nowhere"), "There is no folder")


def test_two_outputs_need_two_files(here: Path):
    require_outputs((*output_to(here / "a", Kind.GRAPH), *output_to(None, Kind.PAGE)))
    (here / "linked.html").symlink_to("a.html")
    for other in ("a.html", "two/../a.html", "linked.html"):
        outputs = (*output_to(here / "a.html", Kind.PAGE), Output(here / other, Kind.PAGE))
        with pytest.raises(UsageError, match="Two outputs would go to"):
            require_outputs(outputs)


def test_an_output_needs_a_folder_that_is_there(here: Path):
    for path, message in {
        here / "one": "is a folder: give a file name",
        here / "none" / "a.html": "There is no folder",
        here / ("a" * 300): "file name too long",
        here / "a\0b": "embedded null",
        Path(os.devnull): "is not a file",
        Path("/"): "is a folder",
    }.items():
        with pytest.raises(GraphFileError, match=message):
            require_outputs(output_to(path, Kind.PAGE))


def test_tables_need_a_name(here: Path):
    result = run("export", "one.safetensors", "--format", "parquet", "--out", "/")
    assert_refused(result, "/ is a folder: give a file name")


def test_a_folder_is_new_or_empty_or_has_the_mark_of_its_run(here: Path):
    require_folder(here / "none" / "deep", "mark")
    (here / "empty").mkdir()
    (here / "empty" / ".headwater-0123.tmp").touch()  # another run begins there
    require_folder(here / "empty", "mark")
    with pytest.raises(UsageError, match="has other files in it, such as graph"):
        require_folder(here / "one", "mark")
    (here / "one" / "mark").touch()
    require_folder(here / "one", "mark", "prompts.txt", "owner/name", None)
    (here / "link").symlink_to("one/graph.safetensors")
    with pytest.raises(UsageError, match=r"link lies in .*one: give --out a folder without it"):
        require_folder(here / "one", "mark", "link")
    with pytest.raises(UsageError, match="is a file: give --out a folder"):
        require_folder(here / "thesis", "mark")
    with pytest.raises(GraphFileError, match=r"Cannot write to the folder .*: .*thesis is a fil"):
        require_folder(here / "thesis" / "out", "mark")
    with pytest.raises(GraphFileError, match=r"Cannot write to the folder .*: File name too long"):
        require_folder(here / ("a" * 300), "mark")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.safetensors", Kind.GRAPH),
        ("a", Kind.GRAPH),
        ("a.html", Kind.PAGE),
        ("a.json", Kind.NEURONPEDIA),
        ("a.gv", Kind.DOT),
        ("a.gexf", Kind.GEXF),
    ],
)
def test_a_graph_is_written_as_its_name_says(here: Path, name: str, kind: Kind):
    assert run("prune", "one.safetensors", "--out", name).exit_code == 0
    assert kind_of(here / name) == kind


def test_a_name_of_no_format_is_refused_and_nothing_written(here: Path):
    before = sorted(here.iterdir())
    refused = run("prune", "one.safetensors", "--out", "a.png")
    assert_refused(refused, "'a.png' has none of the suffixes of graph files: .safetensors, .html")
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("trace", "fox"),
        ("prune", "one.safetensors"),
        ("view", "one.safetensors"),
        ("compare", "one.safetensors", "one.safetensors"),
        ("export", "one.safetensors"),
        ("import", "one.safetensors"),
        ("profile", "atlas-small", "texts.txt"),
    ],
)
def test_a_folder_is_no_name_of_a_file(here: Path, arguments: tuple[str, ...]):
    before = sorted(here.iterdir())
    assert_refused(run(*arguments, "--out", "folder/"), "folder/ is a folder: give a file name")
    assert sorted(here.iterdir()) == before


def test_numbers_have_one_limit(here: Path):
    refused = run("show", "one.safetensors", "--per-layer", "10000000000")
    assert_refused(
        refused, "--per-layer is between -1,000,000,000 and 1,000,000,000, got 10,000,000,000."
    )
    refused = run("trace", "fox", "--position", "-10000000000")
    assert_refused(
        refused, "--position is between -1,000,000,000 and 1,000,000,000, got -10,000,000,000."
    )


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("export one.safetensors --out a.html", "a.html is not the name of an export: give --form"),
        ("export one.safetensors --out a", "a is not the name of an export: give --format"),
        ("import foreign.json --out a.html", "a.html is not the name of a graph of headwater: nam"),
        ("view one.safetensors --out a.json", "a.json is not the name of a page of headwater: nam"),
        ("compare one.safetensors two.safetensors --out a.txt", "name it a.html."),
    ],
)
def test_a_name_that_promises_something_else_is_refused(here: Path, command: str, sentence: str):
    before = sorted(here.iterdir())
    assert_refused(run(*command.split()), sentence)
    assert sorted(here.iterdir()) == before
