"""Where queries and keys meet: attention behind the projections, norms and rotations of both.

transformers looks implementations of attention up by their names; `OWN` names this one.  It takes
the softmax in the type of numbers of its inputs, at least in float32, where eager attention mostly
takes it in float32.  Who runs the model may ask to see what meets, or mix it in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

OWN = "headwater"


class Meeting(NamedTuple):
    """What meets in one layer."""

    query: Float[Tensor, "batch head query d_head"]
    key: Float[Tensor, "batch kv_head key d_head"]
    value: Float[Tensor, "batch kv_head key d_head"]
    scaling: float
    softcap: float | None  # of scores
    mask: Float[Tensor, "#batch 1 query key"] | None  # added to scores
    sinks: Float[Tensor, " head"] | None  # scores of a key without a value, one per head

    @property
    def by_head(self) -> Meeting:
        """The same with a key and a value for every head, where several share theirs."""
        group = self.query.shape[1] // self.key.shape[1]
        if group == 1:
            return self
        key, value = (one.repeat_interleave(group, 1) for one in (self.key, self.value))
        return self._replace(key=key, value=value)

    @property
    def scores(self) -> Float[Tensor, "batch head query key"]:
        """Before softcap and mask."""
        return self.query @ self.by_head.key.mT * self.scaling

    def capped(self, scores: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Scores as the softmax gets them, but for the mask."""
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap

    @property
    def pattern(self) -> Float[Tensor, "batch head query key"]:
        """What the softmax makes of the scores."""
        logits = self.capped(self.scores)
        if self.mask is not None:
            logits = logits + self.mask
        precise = torch.promote_types(logits.dtype, torch.float32)
        if self.sinks is None:
            return logits.softmax(-1, dtype=precise).to(logits)
        sinks = self.sinks.to(logits)[:, None, None].expand(*logits.shape[:-1], 1)
        return torch.cat([logits, sinks], -1).softmax(-1, dtype=precise).to(logits)[..., :-1]


Mix = Callable[[Meeting], Tensor]  # what heads mix (batch, head, query, d_head)


def register() -> None:
    """Make the implementation known to transformers, with the masks of eager attention."""
    AttentionInterface.register(OWN, _attend)
    AttentionMaskInterface.register(OWN, eager_mask)


class Unrounded(TorchFunctionMode):
    """Within the block, float64 stays float64 where a module asks for float32.

    Some architectures rotate queries and keys in float32, whatever the model's type of numbers.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """As torch calls it."""
        del types
        if func is Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **(kwargs or {}))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    meetings: list[Meeting] | None = None,
    mix: Mix | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """What attention mixes, and its pattern unless `mix` mixes; `meetings` gets what meets."""
    del module
    factor: float = query.shape[-1] ** -0.5 if scaling is None else scaling
    meeting = Meeting(query, key, value, factor, softcap, attention_mask, s_aux)
    if meetings is not None:
        meetings.append(meeting)
    if mix is not None:
        return mix(meeting).transpose(1, 2).contiguous(), None
    pattern = meeting.pattern
    return (pattern @ meeting.by_head.value).transpose(1, 2).contiguous(), pattern
