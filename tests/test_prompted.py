"""Where the text to trace comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.arguments.prompted import LARGEST_PROMPT, given_prompt
from headwater.cli.app import app
from tests.test_cli import PROMPT, assert_refused, run
from tests.test_weights import per_layer


def piped(content: bytes, *arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=content)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a b", "a b"),
        (b" a\tb ", " a\tb "),
        (b"a b\n", "a b"),  # as `echo` writes it
        (b"a b\r\n", "a b"),
        (b"a b\n\n", "a b\n"),
        (b"a\r\nb\rc\r", "a\r\nb\rc\r"),
        (b"\n", ""),
        (b"\n\n", "\n"),
        (b"\xef\xbb\xbfa", "a"),  # Notepad's mark of UTF-8
        ("é \u2028\x0b".encode(), "é \u2028\x0b"),
    ],
)
def test_a_file_is_the_prompt_but_for_the_line_break_that_ends_it(
    content: bytes, text: str, tmp_path: Path
):
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)
    assert given_prompt(None, str(path)) == text


def test_an_argument_is_the_prompt_as_it_is():
    for text in ("a\n", "", "--", "@a"):
        assert given_prompt(text, None) == text


def test_commands_read_the_same_prompt_from_everywhere(model_folder: Path, tmp_path: Path):
    path, dictionary = tmp_path / "prompt.txt", tmp_path / "dictionary"
    path.write_text(f"{PROMPT}\n")
    dictionary.mkdir()
    per_layer(dictionary)
    model = ("--model", model_folder, "--json")
    for command in (
        ("trace", *model),
        ("estimate", *model),
        ("features", *model, "--dictionary", dictionary),
    ):
        told = [
            run(*command, PROMPT),
            run(*command, "--prompt-file", path),
            piped(PROMPT.encode(), *command, "-"),
            piped(PROMPT.encode(), *command, "--prompt-file", "-"),
        ]
        found = [json.loads(result.stdout) for result in told]
        for other in found:
            for key in ("tokens", "targets", "features", "active_features", "rows"):
                assert other.get(key) == found[0].get(key)
        assert found[0].get("tokens", list("bfjfoi")) == list("bfjfoi")


def test_a_prompt_that_no_argument_can_hold_is_read(model_folder: Path, tmp_path: Path):
    """What the model makes of it is another matter: its context holds 64 tokens."""
    path = tmp_path / "long.txt"
    path.write_text("f" * 200_000)
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run([sys.executable, "-c", "", path.read_text()], check=False)
    result = run("trace", "--prompt-file", path, "--model", model_folder)
    assert_refused(result, "The prompt has 200001 tokens, the model's context holds 64")


def test_what_is_no_prompt_gets_one_sentence_before_anything_is_loaded(tmp_path: Path):
    path, none = tmp_path / "prompt.txt", ("--model", tmp_path / "no-model")
    path.write_text("a")
    assert_refused(run("trace", "a", "--prompt-file", path, *none), "The prompt is given twice")
    assert_refused(run("trace", "-", "--prompt-file", path, *none), "The prompt is given twice")
    for command in ("trace", "estimate", "features"):
        assert_refused(run(command, *none), "There is no prompt: give a text, or a file with")
        refused = run(command, "--prompt-file", tmp_path / "gone.txt", *none)
        assert_refused(refused, "gone.txt: No such file or directory.")
    for folder in (tmp_path, ""):
        refused = run("trace", "--prompt-file", folder, *none)
        assert_refused(refused, "Is a directory.")
    assert_refused(run("trace", "--prompt-file", "x" * 5000, *none), "File name too long")
    for content in (b"\xff\xfea\0", "a".encode("utf-16-le"), b"caf\xe9"):
        path.write_bytes(content)
        refused = run("trace", "--prompt-file", path, *none)
        assert_refused(refused, "prompt.txt is not a text in UTF-8: give one that is.")
        assert_refused(
            piped(content, "trace", "-", *none), "in standard input is not a text in UTF"
        )
    path.write_bytes(b"a" * (LARGEST_PROMPT + 1))
    refused = run("trace", "--prompt-file", path, *none)
    assert_refused(refused, "prompt.txt has more than 4 MiB: shorten it")
    assert_refused(run("trace", "--prompt-file", "/dev/zero", *none), "has more than 4 MiB")


def test_files_of_prompts_can_be_piped(model_folder: Path, tmp_path: Path):
    one, other = (str(tmp_path / f"{name}.safetensors") for name in ("one", "other"))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("fjfoi\nbfjfoi\n")
    command = ("profile", model_folder, "--out")
    assert piped(prompts.read_bytes(), *command, one, "-").exit_code == 0
    assert run(*command, other, prompts).exit_code == 0
    assert Path(one).read_bytes() == Path(other).read_bytes()
    pair = b'{"first": "fjfoi", "second": "bfjfoi"}\n'
    folder = tmp_path / "out"
    few = ("--model", model_folder, "--max-features", 9, "--mediators", 1, "--random-sets", 1)
    done = piped(pair, "audit", "-", "--out", folder, *few, "--json")
    assert [one["pair"]["first"] for one in json.loads(done.stdout)["pairs"]] == ["fjfoi"]
    refused = piped(b"", "profile", model_folder, "-", "--out", tmp_path / "none.safetensors")
    assert_refused(refused, "standard input has no prompts: write one per line")
