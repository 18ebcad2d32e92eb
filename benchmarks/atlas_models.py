"""The two atlas models, trained from scratch.

Every prompt is followed by its answer; the loss has full weight on the answer and a small weight on
the prompt, so that the model also learns which questions exist.  In the middle layer, at the last
token of the prompt, a second loss makes the MLP write the concept from which the answer follows, as
the unembedding reads it: Texas for the capital of the state containing Dallas, and for the capital
of Texas.  So the computation of every answer is known and passes an MLP, and the upper half learns
each fact once for questions of any length.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atlas_words import atlas_tokenizer
from atlas_world import Question, additions, questions

SIZES = {
    "atlas-small": {
        "num_hidden_layers": 4,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "atlas-large": {
        "num_hidden_layers": 6,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
}
BATCH = 256
SORTED = 8  # batches whose questions are sorted by length together, to reduce padding
PROMPT_WEIGHT = 0.05  # of the loss on words of the prompt
SHARE_OF_SUMS = 0.3  # of all trained questions
IGNORED = -1
BETWEEN_WEIGHT = 1.0  # of the loss on the concept that the middle MLP must write
STEPS = 2000
MUON_RATE, ADAM_RATE, DECAY = 0.02, 3e-3, 0.1
ATOM_WEIGHT = 2.0  # frequency of a one-fact question, relative to a composition


def config(name: str, vocabulary: int) -> LlamaConfig:
    """The model's shape."""
    return LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        **SIZES[name],  # pyright: ignore[reportArgumentType]  # any of the parameters
    )


@dataclass(frozen=True)
class Row:
    """One question as a training example."""

    ids: list[int]  # prompt and answer, with <bos> and <eos>
    start: int  # of the answer
    between: int  # token of the last concept before the answer, if it occurs as a middle one


class Batches:
    """Random questions as padded token ids, targets and loss weights."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.tokenizer, self.random = tokenizer, random.Random(seed)
        self.facts = [q for q in questions() if not q.held_out]
        self.sums = [q for q in additions() if not q.held_out]
        self.middles = {concept for q in questions() for concept in q.chain[1:-1]}
        weights = [1.0 if q.is_composition else ATOM_WEIGHT for q in self.facts]
        self.cumulated = torch.tensor(weights).cumsum(0).tolist()
        self.rows = {q: self.row(q) for q in (*self.facts, *self.sums)}

    def row(self, question: Question) -> Row:
        """A question with its answer."""
        prompt = [1, *self.tokenizer.encode(question.prompt, add_special_tokens=False)]
        answer = self.tokenizer.encode(question.answer, add_special_tokens=False)
        between = IGNORED
        if question.chain[-2] in self.middles and question.relations[0] != "sum":
            between = cast(int, self.tokenizer.convert_tokens_to_ids(question.chain[-2]))
        return Row([*prompt, *answer, 2], len(prompt), between)

    def endless(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Ids (batch, pos), their loss weights, and the concepts that the middle MLP must write."""
        n_sums = int(SORTED * BATCH * SHARE_OF_SUMS)
        n_facts = SORTED * BATCH - n_sums
        while True:
            chosen = self.random.choices(self.facts, cum_weights=self.cumulated, k=n_facts)
            chosen += self.random.choices(self.sums, k=n_sums)
            rows = sorted(
                (self.rows[question] for question in chosen), key=lambda row: len(row.ids)
            )
            starts = list(range(0, len(rows), BATCH))
            self.random.shuffle(starts)
            for start in starts:
                yield _padded(rows[start : start + BATCH])


def _padded(rows: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
    length = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weight = torch.zeros(len(rows), length)
    between = torch.full((len(rows), length), IGNORED)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        weight[i, 1 : row.start] = PROMPT_WEIGHT
        weight[i, row.start : len(row.ids)] = 1.0
        between[i, row.start - 1] = row.between
    return ids, weight, between


def train(name: str, steps: int = STEPS, seed: int = 0) -> LlamaForCausalLM:
    """A trained model.  Muon optimises the matrices of the blocks, AdamW everything else."""
    torch.manual_seed(seed)
    tokenizer = atlas_tokenizer()
    # Eager attention, whose bfloat16 backward pass is faster on a CPU.
    shape = config(name, len(tokenizer))
    model = LlamaForCausalLM._from_config(shape, attn_implementation="eager")
    batches = Batches(tokenizer, seed).endless()
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=DECAY),
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=DECAY, adjust_lr_fn="original"),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        for optimizer in optimizers
    ]
    middle = MiddleMlp(model)
    start = time.perf_counter()
    for step, (ids, weight, between) in zip(range(steps), batches, strict=False):
        counted = weight[:, 1:] > 0
        with torch.autocast("cpu", torch.bfloat16):
            read = model.model(ids, attention_mask=None, use_cache=False)
            logits = model.lm_head(read.last_hidden_state[:, :-1][counted]).float()
            added = model.lm_head(middle.written_at(between != IGNORED)).float()
        losses = nn.functional.cross_entropy(logits, ids[:, 1:][counted], reduction="none")
        loss = (losses * weight[:, 1:][counted]).sum() / weight.sum()
        loss = loss + BETWEEN_WEIGHT * nn.functional.cross_entropy(
            added, between[between != IGNORED]
        )
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for change in (*optimizers, *schedules):
            change.step()
        if step % 200 == 199:
            scores = {k: f"{v:.3f}" for k, v in accuracy(model, tokenizer, sample=600).items()}
            seconds = time.perf_counter() - start
            print(f"{step + 1} {loss.item():.4f} {scores} {seconds:.0f} s", flush=True)
    return model


class MiddleMlp:
    """The output of the middle layer's MLP, and the residual stream behind that layer."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.gain = model.model.norm.weight
        layer = model.model.layers[len(model.model.layers) // 2 - 1]
        cast(nn.Module, layer.mlp).register_forward_hook(self._keep_written)
        layer.register_forward_hook(self._keep_residual)

    def _keep_written(self, module: nn.Module, args: object, output: Tensor) -> None:
        self.written = output

    def _keep_residual(self, module: nn.Module, args: object, output: Tensor) -> None:
        self.residual = output

    def written_at(self, rows: Tensor) -> Tensor:
        """The MLP's output at these tokens, scaled as the final norm would scale the residual."""
        size = self.residual[rows].float().square().mean(1, keepdim=True).sqrt()
        return self.written[rows] / size * self.gain


def _rate(step: int, steps: int) -> float:
    """Share of the full rate: rises for 100 steps, stays, falls to 0 over the last 60 %."""
    return min((step + 1) / 100, (steps - step) / (0.6 * steps), 1.0)


@torch.inference_mode()
def accuracy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, sample: int | None = None
) -> dict[str, float]:
    """Share of answers that greedy decoding gets right in full, by kind of question."""
    groups: dict[str, list[Question]] = {}
    for question in (*questions(), *additions()):
        kind = "sums" if question.relations[0] == "sum" else "facts"
        if question.is_composition and kind == "facts":
            kind = "compositions"
        groups.setdefault(f"{kind} {'held out' if question.held_out else 'seen'}", []).append(
            question
        )
    chooser = random.Random(0)
    return {
        kind: _share_right(
            model, tokenizer, chooser.sample(asked, min(sample or len(asked), len(asked)))
        )
        for kind, asked in groups.items()
    }


def _share_right(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[Question]
) -> float:
    right = 0
    for start in range(0, len(asked), 2048):
        rows = []
        for question in asked[start : start + 2048]:
            prompt = [1, *tokenizer.encode(question.prompt, add_special_tokens=False)]
            rows.append((prompt, tokenizer.encode(question.answer, add_special_tokens=False)))
        ids = nn.utils.rnn.pad_sequence([torch.tensor(p + a) for p, a in rows], batch_first=True)
        best = model(ids, attention_mask=None, use_cache=False).logits.argmax(-1)
        for (prompt, answer), found in zip(rows, best.tolist(), strict=True):
            right += found[len(prompt) - 1 : len(prompt) + len(answer) - 1] == answer
    return right / len(asked)
