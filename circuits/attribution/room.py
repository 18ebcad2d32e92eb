"""What memory will not hold is refused before it is begun, with the setting to lower."""

from __future__ import annotations

from dataclasses import replace

from circuits.attribution.estimate import Need, Plan
from circuits.attribution.targets import TargetSettings, read_targets
from circuits.features.active import FeatureSource
from circuits.machine.memory import free_bytes, free_device_bytes, gigabytes
from circuits.model.frozen import FrozenModel
from circuits.model.prompt import Prompt
from circuits.recording.record import record
from graphs.errors import HeadwaterError

PILOT = 256  # first tokens of a long prompt that are run to see how much is active
LONG = 4 * PILOT  # tokens; of shorter prompts the recording itself is soon done


class DoesNotFit(HeadwaterError):
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


def require_room_to_gather(frozen: FrozenModel, prompt: Prompt, source: FeatureSource) -> None:
    """Raises DoesNotFit, before a long prompt is run, for what its first tokens tell of the rest.

    Of each feature a vector is kept for every layer that it writes to.  Half as many per token as
    the first ones have are counted on, as texts differ; what is between, `require_room` sees.
    A source that chooses among its features, as neurons are chosen, has its own bound.
    """
    if len(prompt) < LONG:
        return
    first = replace(prompt, ids=prompt.ids[:PILOT], tokens=prompt.tokens[:PILOT])
    recording = record(frozen, first)
    targets = read_targets(frozen, recording, TargetSettings(), str)
    features = source.activate(frozen, recording, targets.covectors)
    if len(features) < features.found:
        return
    per_token = len(features) / max(1, PILOT - prompt.context_only)
    vectors = int((features.last_written - features.layer + 1).sum()) / max(1, len(features))
    swept = len(prompt) - prompt.context_only
    least = swept * per_token / 2 * vectors * frozen.d_model * frozen.unembedding.element_size()
    free = free_device_bytes(frozen.device)
    if least > free:
        raise DoesNotFit(
            f"Of {len(prompt):,} tokens the first {PILOT} have {len(features):,} active features; "
            f"half as many per token on all need {gigabytes(least)} more memory and "
            f"{gigabytes(free)} are free: shorten the prompt or take a dictionary of which fewer "
            "features are active; `headwater trace --force` tries nevertheless."
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
