"""What memory will not hold is refused before it is begun, with the setting to lower."""

from __future__ import annotations

from circuits.estimate import Need, Plan
from circuits.features import FeatureSource
from circuits.frozen import FrozenModel
from circuits.memory import free_bytes, free_device_bytes, gigabytes
from circuits.tokens import Prompt


class DoesNotFit(ValueError):
    """The work needs more memory than there is."""


def require_room_to_record(frozen: FrozenModel, source: FeatureSource, n_tokens: int) -> None:
    """Raises DoesNotFit if the forward pass itself will not fit: all its patterns are kept."""
    # Every layer's pattern, three more while one is made; residuals and MLP inputs of each layer.
    patterns = (frozen.n_layers + 3) * _heads(frozen) * n_tokens**2
    residuals = 5 * frozen.n_layers * n_tokens * frozen.d_model
    numbers = patterns + residuals + source.numbers(frozen, n_tokens)
    wanted, free = numbers * frozen.unembedding.element_size(), free_device_bytes(frozen.device)
    if wanted > free:
        raise DoesNotFit(
            f"A prompt of {n_tokens:,} tokens needs about {gigabytes(wanted)} more memory to be "
            f"recorded and {gigabytes(free)} are free: shorten the prompt; "
            "`headwater trace --force` tries nevertheless."
        )


def require_room_to_sweep(frozen: FrozenModel, prompt: Prompt) -> None:
    """Raises DoesNotFit, before anything is computed, if no choice of features would help.

    What is held during a sweep whatever is active: patterns as recorded and as laid out for it;
    of every layer three residuals that are recorded, errors and two kinds of constants.
    """
    length, swept = len(prompt), len(prompt) - prompt.context_only
    patterns = _heads(frozen) * length * (length + swept)
    residuals = 3 * frozen.d_model * (length + swept)
    least = frozen.n_layers * (patterns + residuals) * frozen.unembedding.element_size()
    free = free_device_bytes(frozen.device)
    if least > free:
        raise DoesNotFit(
            f"A trace of {length:,} tokens needs at least {gigabytes(least)} more memory, however "
            f"few features are expanded, and {gigabytes(free)} are free: shorten the prompt; "
            "`headwater trace --force` tries nevertheless."
        )


def _heads(frozen: FrozenModel) -> int:
    block = frozen.blocks[0]
    return block.output.shape[1] // block.d_head


def require_room(plan: Plan) -> None:
    """Raises DoesNotFit, saying which setting to lower, if memory will not hold the rows."""
    host, device = free_bytes(), free_device_bytes(plan.frozen.device)

    def fits(need: Need) -> bool:
        return need.host <= host and need.device <= device

    wanted, limit = plan.need(), plan.limit
    if fits(wanted):
        return
    most, too_many = 0, limit
    while too_many - most > 1:
        half = (most + too_many) // 2
        most, too_many = (half, too_many) if fits(plan.lowered(half).need()) else (most, half)
    most = _two_digits(most)
    asked = "--all" if plan.expansion.everything else f"--max-features {limit}"
    advice = (
        f"lower {asked} to --max-features {most}"
        if most
        else "shorten the prompt or take a dictionary of which fewer features are active"
    )
    short, free = (wanted.host, host) if wanted.host > host else (wanted.device, device)
    raise DoesNotFit(
        f"This trace of {len(plan.recording.prompt):,} tokens and {len(plan.features):,} active "
        f"features needs about {gigabytes(short)} more memory and {gigabytes(free)} are free: "
        f"{advice}; `headwater trace --force` tries nevertheless."
    )


def _two_digits(count: int) -> int:
    """Rounded down, so that an estimate is not taken for an exact number."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return count // unit * unit
