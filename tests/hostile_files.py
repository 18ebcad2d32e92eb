"""Files to be afraid of, and sound ones beside them, for every argument that names a file.

A world is a folder of them.  Nothing in it may ever change.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import torch
import transformers
import yaml

from circuits.features.labels import write_feature_files
from graphs.core.annotations import Annotations, Group, annotations_path, write_annotations
from graphs.core.graph import AttributionGraph
from graphs.core.nodes import Description, Example
from graphs.core.provenance import DictionaryIdentity, Measured, ModelIdentity, Provenance, Target
from graphs.core.regime import Regime
from graphs.formats.storage import read_graph, write_graph
from tests.graph_oracles import make_graph
from tests.test_neuronpedia_reader import circuit_tracer_file
from tests.test_weights import cross_layer, per_layer
from tests.tiny import ARCHITECTURES, D_MODEL, VOCABULARY, tiny_model, toy_tokenizer

CLIPBOARD = "\x1b]52;c;aGVhZHdhdGVy\x07"  # puts "headwater" into the clipboard
HOSTILE = f"{CLIPBOARD}\x9b2J\x1b[2J\r\x08\u202ea\u2066b[bold]c[/bold]\udc80\u2028\x7f"
STORABLE = HOSTILE.replace("\udc80", "")  # no file holds half a character
LETTERS = "fjoidgh"  # of the toy tokenizer
SOUND_MODELS = 5  # the first ones
DEEP = 20_000  # lists in lists


def speaking_graph(name: str = "") -> AttributionGraph:
    """A graph with a hostile text in every field that holds text."""
    text = STORABLE + name
    names = ["token:1@0", "feature:0/1@0", "feature:1/2@0", "logit:3@0"]
    edges = {(one, "logit:3@0"): 1.0 for one in names[:3]} | {(names[0], names[1]): 1.0}
    graph = make_graph(names, edges, tokens=(text,), output_tokens={1: (text,), 2: (text,)})
    example = Example(tokens=(text,), activations=(1.0,))
    described = Description(
        label=text,
        promoted_at_own_layer=(text,),
        promoted=(text,),
        suppressed=(text,),
        examples=(example,),
    )
    header = Provenance(
        generator=text,
        model=ModelIdentity(name=text, architecture=text, revision=text, n_layers=2),
        dictionary=DictionaryIdentity(kind=text, name=text, revision=text),
        dtype=text,
        prompt=text,
        tokens=(text,),
        token_ids=(1,),
        targets=(Target(text=text, token_id=3, probability=1.0),),
        settings={text: text},
        measured=(
            Measured(what=text, regime=Regime.FREE, target=text, predicted=1.0, measured=1.0),
        ),
    )
    return replace(graph, provenance=header, descriptions={"0/1": described})


def write_speaking_graph(path: Path) -> Path:
    """The graph and annotations that speak as it does."""
    write_graph(speaking_graph(), path)
    group = Group(name=STORABLE, members=("feature:0/1@0", "feature:1/2@0"))
    notes = Annotations(labels={"feature:0/1@0": STORABLE}, groups=(group,))
    write_annotations(notes, annotations_path(path))
    return path


@dataclass(frozen=True)
class World:
    """Paths by what they are good for; `odd` is good for nothing."""

    root: Path
    graphs: list[str]
    models: list[str]
    dictionaries: list[str]
    prompt: str
    texts: list[str]  # prompts, corpora
    pairs: list[str]
    vectors: list[str]
    profiles: list[str]
    odd_models: list[str]
    odd_dictionaries: list[str]
    odd: list[str]


def make_world(root: Path, run: Callable[..., object]) -> World:
    """All files under a folder; `run` runs a command that makes some of them."""
    models, dictionaries = _models(root / "models"), _dictionaries(root / "dictionaries")
    graphs = _graphs(root / "graphs", models[0], dictionaries[0], run)
    lines = ["fjfoi", "", " jjj ", "fjo", "idgh" * 5]
    texts = [_written(root / "prompts.txt", "\n".join(lines))]
    generator = Random(1)
    corpus = ["".join(generator.choices(LETTERS, k=30)) for _ in range(200)]
    texts.append(_written(root / "corpus.txt", "\n".join(corpus)))
    pairs = [
        {"first": "fjfoi", "second": "fjfok"},
        {"first": "bfjfoi", "second": "bfkfoi", "kind": "k", "target": "e", "against": "h"},
    ]
    pairs_file = _written(root / "pairs.jsonl", "\n".join(map(json.dumps, pairs)))
    np.save(root / "vector.npy", np.ones(D_MODEL, dtype=np.float32))
    profile = root / "profile.safetensors"
    run("profile", models[0], texts[0], "--out", profile, "--max-features", 8)
    return World(
        root=root,
        graphs=graphs,
        models=models[:SOUND_MODELS],
        dictionaries=dictionaries[:2],
        prompt=_written(root / "prompt.txt", "fjfoi\n"),
        texts=texts,
        pairs=[pairs_file],
        vectors=[str(root / "vector.npy")],
        profiles=[str(profile)],
        odd_models=models[SOUND_MODELS:],
        odd_dictionaries=dictionaries[2:],
        odd=_odd(root / "odd"),
    )


def damaged(path: str, folder: Path, random: Random) -> str:
    """A copy of a file of which something is missing, changed, doubled or another."""
    content = bytearray(Path(path).read_bytes())
    place = random.randrange(len(content) + 1)
    match random.randrange(7):
        case 0:
            content = content[:place]
        case 1:
            for _ in range(random.choice((1, 8, 64))):
                content[random.randrange(len(content))] = random.randrange(256)
        case 2:
            content = content[:place] + content[:place] + content[place:]
        case 3:
            content[place:place] = random.randbytes(random.choice((1, 100)))
        case 4:
            content[:8] = random.choice((2**63, 2**31, 0, 10**8)).to_bytes(8, "little")
        case 5:
            digits = [i for i, byte in enumerate(content) if 48 <= byte < 58]
            content[random.choice(digits or [0])] = random.choice(b"-9e.x[")
        case _:
            content = bytearray(random.randbytes(500))
    copy = folder / f"damaged{Path(path).suffix}"
    copy.write_bytes(content)
    return str(copy)


def _written(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return str(path)


def _models(root: Path) -> list[str]:
    sound = root / "tiny"
    _save(tiny_model("gemma-3").float(), sound)
    folders = [sound]
    for name in ("gpt-oss", "gpt-2"):
        folders.append(root / name)
        _save(tiny_model(name).float(), folders[-1])
    upcast = json.loads((root / "gpt-2" / "config.json").read_text())
    upcast |= {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True}
    folders.append(_changed(root / "gpt-2", root / "upcast", "config.json", json.dumps(upcast)))
    small = ARCHITECTURES["gemma-3"][2] | {"vocab_size": VOCABULARY // 2}
    torch.manual_seed(7)
    folders.append(root / "small vocabulary")
    config = transformers.Gemma3TextConfig(**small)
    _save(transformers.Gemma3ForCausalLM(config), folders[-1])
    config = json.loads((sound / "config.json").read_text())
    for number, text in enumerate(
        (
            "",
            "null",
            "[" * DEEP,
            json.dumps(config | {"num_hidden_layers": 10**9}),
            json.dumps(config | {"num_hidden_layers": 0}),
            json.dumps(config | {"hidden_size": 10**7}),
            json.dumps(config | {"num_attention_heads": 0}),
            json.dumps(config | {"model_type": STORABLE}),
            json.dumps({STORABLE: STORABLE}),
        )
    ):
        folders.append(_changed(sound, root / f"config-{number}", "config.json", text))
    for name in ("tokenizer.json", "model.safetensors", "config.json"):
        folders.append(_changed(sound, root / f"pipe in {name}", name, None))
        os.mkfifo(folders[-1] / name)
    folders.append(_changed(sound, root / "no tokenizer", "tokenizer.json", None))
    folders.append(_changed(sound, root / "deep tokenizer", "tokenizer.json", "[" * DEEP))
    folders.append(_changed(sound, root / "zip", "model.safetensors", None))
    _zip(folders[-1] / "model.safetensors")
    folders.append(_changed(sound, root / "no weights", "model.safetensors", ""))
    folders.append(_changed(sound, root / f"speaking {CLIPBOARD}", "nothing", None))
    return [str(folder) for folder in folders]


def _save(model: transformers.PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)


def _changed(folder: Path, copy: Path, name: str, text: str | None) -> Path:
    """A copy in which one file is another, or is not there."""
    shutil.copytree(folder, copy)
    (copy / name).unlink(missing_ok=True)
    if text is not None:
        (copy / name).write_text(text)
    return copy


def _zip(path: Path, packing: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("a.npy", b"\0" * 10**6)


def _dictionaries(root: Path) -> list[str]:
    folders: list[Path] = []

    def sound(name: str, write: Callable[..., Path] = per_layer, **told: object) -> Path:
        folder = root / name
        folder.mkdir(parents=True)
        folders.append(write(folder, **told))
        return folder

    described = sound("described")
    sound("crossing", cross_layer)
    example = Example(tokens=(STORABLE,), activations=(1.0,))
    said = Description(label=STORABLE, promoted=(STORABLE,), examples=(example,))
    write_feature_files(described, "toy", [[said] * 20] * 3)
    _written(sound("speaking") / "config.yaml", yaml.safe_dump({"model_kind": STORABLE}))
    write_feature_files(sound("speaking name", scan=STORABLE), STORABLE, [[said] * 20] * 3)
    aliases = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    _written(sound("aliases") / "config.yaml", "\n".join(["a0: &a0 [x]", *aliases]))
    _written(sound("deep") / "config.yaml", "[" * DEEP)
    _written(sound("listed") / "config.yaml", "transcoders: ['hf://[x', '/dev/zero', '../..']")
    bomb = gzip.compress(b" " * 10**8)
    write_feature_files(sound("bomb"), "toy", [[said] * 20] * 3)
    (root / "bomb" / "features" / "index.json.gz").write_bytes(bomb)
    write_feature_files(sound("bombs inside"), "toy", [[said] * 20] * 3)
    for layer in range(3):
        inside = len(bomb).to_bytes(4, "little") + bomb
        (root / "bombs inside" / "features" / f"layer_{layer}.bin").write_bytes(inside * 20)
    _zip(sound("zip") / "layer_1.safetensors")
    os.truncate(sound("short") / "layer_1.safetensors", 100)
    (sound("piped") / "config.yaml").unlink()
    os.mkfifo(root / "piped" / "config.yaml")
    np.savez(sound("scope") / "params.npz", W_enc=np.zeros(3))
    (root / "scope" / "config.yaml").unlink()
    sound("two layers", change=lambda tensors: tensors.pop("W_dec"))
    (root / "empty").mkdir()
    return [str(folder) for folder in (*folders, root / "empty")]


def _graphs(root: Path, model: str, dictionary: str, run: Callable[..., object]) -> list[str]:
    root.mkdir()
    asked = ("--model", model, "--transcoders", dictionary)
    run("trace", "fjfoi", *asked, "--out", root / "one.safetensors")
    run("trace", "fjfok", *asked, "--out", root / "other.safetensors")
    few = ("--max-features", 8, "--max-logits", 2)
    run("trace", "fjfoi", "--model", model, *few, "--out", root / "neurons.safetensors")
    write_graph(read_graph(root / "one.safetensors"), root / f"{CLIPBOARD}.safetensors")
    write_speaking_graph(root / "speaking.safetensors")
    chain = ["token:1@0", *(f"feature:{layer}/0@0" for layer in range(1500)), "logit:3@0"]
    edges = dict.fromkeys(pairwise(chain), 1.0)
    write_graph(make_graph(chain, edges, tokens=("a",)), root / "chain.safetensors")
    _written(root / "theirs.json", json.dumps(circuit_tracer_file()))
    content = (root / "one.safetensors").read_bytes()
    deep = content.replace(b'\\"n_layers\\":3', b'\\"n_layers\\":1000000000')
    assert deep != content
    size = int.from_bytes(content[:8], "little") + len(deep) - len(content)
    (root / "deep.safetensors").write_bytes(size.to_bytes(8, "little") + deep[8:])
    traced = [str(root / f"{name}.safetensors") for name in ("one", "other", "neurons")]
    return [*3 * traced, *sorted(map(str, root.glob("*.safetensors"))), str(root / "theirs.json")]


def _odd(root: Path) -> list[str]:
    root.mkdir()
    os.mkfifo(root / "pipe.safetensors")
    os.mkfifo(root / "pipe.json")
    (root / "loop.safetensors").symlink_to("loop.safetensors")
    (root / "nothing.safetensors").symlink_to("nowhere")
    (root / "folder.safetensors").mkdir()
    _zip(root / "zip.safetensors")
    _zip(root / "zip.pt")
    _zip(root / "stored.safetensors", zipfile.ZIP_STORED)
    _zip(root / "stored.pt", zipfile.ZIP_STORED)
    (root / "bomb.json").write_bytes(gzip.compress(b"[" * 10**8))
    os.truncate(_written(root / "huge.json", ""), 300 * 2**20)
    os.truncate(_written(root / "huge.safetensors", ""), 300 * 2**20)
    for name, text in {
        "empty.safetensors": "",
        "empty.json": "",
        "deep.json": '{"nodes": ' + "[" * DEEP,
        "null.json": "null",
        "speaking.json": json.dumps({STORABLE: STORABLE}),
        "surrogate.json": '"\\ud800"',
        "text.txt": STORABLE,
        "zero.txt": "a\0b",
        "x" * 240 + ".json": "{}",
        "x" * 243 + ".safetensors": "",
        "\udcff.json": "{}",
        "-dash.json": "{}",
    }.items():
        _written(root / name, text)
    return [*map(str, root.iterdir()), "/dev/zero", "/dev/null", "/dev/full", "/dev/stdin"]
