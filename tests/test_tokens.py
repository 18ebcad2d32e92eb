from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from circuits.attribution.target_names import candidates
from circuits.model.prompt import (
    GEMMA_3_CHAT_OPENING,
    PromptError,
    count_prefix,
    opening_ids,
    read_prompt,
)
from circuits.model.prompt_rule import PromptRule
from graphs import Bos
from graphs.core.opening import Opening, PrefixRule
from tests.tiny import toy_tokenizer
from tests.tokenizers_like import llama_like


def gemma_like(mark: str = "<start_of_turn>", bos: str | None = "<bos>"):
    """A tokenizer that has Gemma 3's opening under Gemma 3's ids, or another word for its mark."""
    vocabulary = {"<bos>": 2, mark: 105, "user": 2364, "\n": 107, "x": 9}
    backend = Tokenizer(models.WordLevel(vocabulary, "x"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_a_text_begins_as_the_tokenizer_begins_it(adds_bos: bool):
    tokenizer = toy_tokenizer(adds_bos=adds_bos)
    assert list(read_prompt("fj", tokenizer).ids) == tokenizer("fj").input_ids
    assert opening_ids(tokenizer) == ((1,) if adds_bos else ())


def test_what_a_tokenizer_puts_behind_a_text_is_left_out():
    tokenizer = toy_tokenizer(eos=2)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="b c $A c", special_tokens=[("b", 1), ("c", 2)]
    )
    assert tokenizer("fj").input_ids == [1, 2, 5, 9, 2]
    prompt = read_prompt("fj", tokenizer)
    assert (prompt.ids, prompt.n_prefix) == ((1, 2, 5, 9), 1)
    assert read_prompt("bcfj", tokenizer).ids == (1, 2, 5, 9)


@pytest.mark.parametrize(
    ("bos", "text", "adds_bos", "ids", "said"),
    [
        ("auto", "fj", True, (1, 5, 9), "added"),
        ("auto", "fj", False, (5, 9), "left out"),
        ("always", "fj", True, (1, 5, 9), "added"),
        ("always", "fj", False, (1, 5, 9), "added"),
        ("never", "fj", True, (5, 9), "left out"),
        ("never", "fj", False, (5, 9), "left out"),
        *((bos, "bfj", adds, (1, 5, 9), "typed") for bos in Bos for adds in (True, False)),
    ],
)
def test_bos_stands_in_front_once_where_it_is_asked_for(
    bos: str, text: str, adds_bos: bool, ids: tuple[int, ...], said: str
):
    prompt = read_prompt(text, toy_tokenizer(adds_bos=adds_bos), PromptRule(Bos(bos)))
    first_is_bos = ids[0] == 1
    assert (prompt.ids, prompt.n_prefix) == (ids, int(first_is_bos))
    rule = "special" if first_is_bos else "ordinary"
    assert prompt.opening == Opening(asked=Bos(bos), bos=said, rule=PrefixRule(rule))


def test_bos_is_refused_where_the_tokenizer_has_none():
    with pytest.raises(PromptError, match="has no BOS token: leave out --bos always"):
        read_prompt("fj", toy_tokenizer(bos=None), PromptRule(Bos.ALWAYS))


def test_without_bos_a_special_token_in_front_is_context_only_and_an_ordinary_one_is_not():
    tokenizer = toy_tokenizer(bos=None, eos=0)
    for text, n_prefix, rule in (("fj", 0, "ordinary"), ("afj", 1, "special")):
        prompt = read_prompt(text, tokenizer)
        assert (prompt.text, prompt.n_prefix) == (text, n_prefix)
        assert prompt.opening == Opening(asked=Bos.AUTO, bos="unknown", rule=PrefixRule(rule))


def test_a_special_token_counts_without_a_name(tmp_path: Path):
    """The same tokenizer with `bos_token: null`, as people write it to be rid of a second BOS."""
    toy_tokenizer(adds_bos=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "bos_token": None}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.all_special_ids) == (None, [])
    assert tokenizer.decode([1, 5, 9], skip_special_tokens=True) == "fj"
    prompts = [read_prompt(text, tokenizer) for text in ("bfj", "fj")]
    assert [(prompt.ids, prompt.n_prefix) for prompt in prompts] == [
        ((1, 5, 9), 1),
        ((5, 9), 0),
    ]


def test_a_bos_of_id_zero_counts():
    prompt = read_prompt("fj", toy_tokenizer(bos=0))
    assert (prompt.ids, prompt.n_prefix) == ((0, 5, 9), 1)
    assert read_prompt("afj", toy_tokenizer(bos=0)).ids == (0, 5, 9)


@pytest.mark.parametrize(
    ("asked", "rule"), [(0, "asked"), (1, "special"), (2, "asked"), (3, "asked")]
)
def test_as_many_positions_are_context_only_as_are_asked_for(asked: int, rule: str):
    prompt = read_prompt("fj", toy_tokenizer(), PromptRule(n_prefix=asked))
    assert prompt.n_prefix == asked
    assert prompt.opening is not None
    assert prompt.opening.rule == rule


def test_more_prefix_positions_than_tokens_are_refused():
    with pytest.raises(PromptError, match="has 3 tokens, fewer than the 4 prefix positions given"):
        read_prompt("fj", toy_tokenizer(), PromptRule(n_prefix=4))


def test_one_string_per_position():
    prompt = read_prompt("fj", toy_tokenizer())
    assert (prompt.text, prompt.tokens, len(prompt)) == ("bfj", ("b", "f", "j"), 3)


def test_words_that_the_vocabulary_lacks_are_named():
    tokenizer = llama_like()
    tokenizer.unk_token = "<unk>"
    with pytest.raises(PromptError, match="does not contain 'x', 'yz': use words"):
        read_prompt("a x Paris yz x", tokenizer)
    with pytest.raises(PromptError, match="does not contain 'x'"):
        candidates("x", tokenizer)
    assert read_prompt("a <unk>", tokenizer).ids[-1] == 0


def spaced(*words: str) -> PreTrainedTokenizerFast:
    """These words and no others; what stands between words is no token unless it is such a word."""
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    between = "removed" if " " not in words else "isolated"
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), between)
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>")


WITH_SPACE, WITHOUT = ("<unk>", "<s>", "a", " ", "\n"), ("<unk>", "<s>", "a")


@pytest.mark.parametrize("text", [" ", "\n", "\n \n"])
@pytest.mark.parametrize("chat", [False, True])
def test_whether_a_prompt_is_empty_its_tokens_say(text: str, chat: bool):
    ids = {" ": 3, "\n": 4}
    tokenizer = spaced(*WITH_SPACE)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    read = read_prompt(text, tokenizer, chat=chat)
    assert read.ids == tuple(ids[sign] for sign in text)
    assert read.tokens == tuple(text)
    tokenizer = spaced(*WITHOUT)
    tokenizer.chat_template = "{{ messages[0]['content'] }} a"
    with pytest.raises(
        PromptError, match=r"The prompt '.*' has no tokens: give a text of at least"
    ):
        read_prompt(text, tokenizer, chat=chat)


def test_a_prompt_of_nothing_is_refused_in_few_words():
    for text, tokenizer in (("", toy_tokenizer()), (" " * 10**5, spaced(*WITHOUT))):
        with pytest.raises(PromptError, match="has no tokens") as caught:
            read_prompt(text, tokenizer)
        assert len(str(caught.value)) < 100


def test_a_space_that_the_vocabulary_lacks_is_shown():
    with pytest.raises(PromptError, match=r"vocabulary does not contain '\\t': use words"):
        read_prompt("a\ta", spaced("<unk>", "<s>", "a", " "))


def test_chat_needs_a_template():
    with pytest.raises(PromptError, match="no chat template"):
        read_prompt("fj", toy_tokenizer(), chat=True)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only assistants') }}", "only assistants"),
        ("{{ 1/0 }}", "division by zero"),
        ("{{ x.y.z }}", "'x' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ [1] + 2 }}", "can only concatenate list"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_a_chat_template_that_fails_says_why(template: str, said: str):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = template
    message = rf"template fails on this prompt \({re.escape(said)}|.*{said}.*: leave out"
    with pytest.raises(PromptError, match=message):
        read_prompt("fj", tokenizer, chat=True)


def test_chat_applies_the_template():
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = (
        "bc{{ messages[0]['content'] }}{% if add_generation_prompt %}d{% endif %}"
    )
    assert read_prompt("fj", tokenizer, chat=True).ids == (1, 2, 5, 9, 3)


@pytest.mark.parametrize(("bos", "front"), [("auto", ()), ("never", ()), ("always", (1,))])
def test_a_chat_template_has_its_own_opening(bos: str, front: tuple[int, ...]):
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}d"
    prompt = read_prompt("fj", tokenizer, PromptRule(Bos(bos)), chat=True)
    said = [{"role": "user", "content": "fj"}]
    own = tokenizer.apply_chat_template(said, add_generation_prompt=True)["input_ids"]
    assert prompt.ids == (*front, *own) == (*front, 5, 9, 3)


def test_the_opening_of_a_gemma_3_chat_is_context_only():
    ids = [*GEMMA_3_CHAT_OPENING, 9, 10]
    assert count_prefix(ids, gemma_like()) == 4


def test_the_same_ids_in_another_vocabulary_are_only_a_bos():
    ids = [*GEMMA_3_CHAT_OPENING, 9, 10]
    assert count_prefix(ids, gemma_like(mark="the")) == 1
    assert count_prefix(ids, gemma_like(mark="the", bos=None)) == 0


def test_a_broken_opening_is_only_a_bos():
    assert count_prefix([2, 105, 2364, 9], gemma_like()) == 1
