"""Settings of a training run, checked once."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from circuits.errors import TrainingError
from circuits.features.points import ReadPoint, WritePoint

POOL_BYTES = 2**31  # of activations that are shuffled together
MOST_SHUFFLED = 65_536  # tokens
MOST_SILENT = 200_000  # tokens without firing after which a feature is dead
VALUE_BYTES = 4
# Rules of 2026: budgets shared, everything found anew at each step, another schedule.
FORMER_RULES = {"shared_budget": True, "refresh": 1, "warm_up": 0.05, "cool_down": 0.25}
FORMER_RATE = 1e-3  # unless another was given
POSITIVE = ("d_dict", "l0", "steps", "batch_tokens", "learning_rate", "bandwidth", "start_size")
CHECKPOINT = "checkpoint.run"  # file of a run: safetensors, but no part of the dictionary


class AnotherFailed(TrainingError):
    """Another process of the run failed before this one, and has said why."""


class Kind(StrEnum):
    PER_LAYER = "per-layer"
    SKIP = "skip"  # per layer, with an affine skip
    CROSS_LAYER = "cross-layer"


class Sparsity(StrEnum):
    JUMP_RELU = "jumprelu"  # straight-through thresholds, quadratic penalty towards the target L0
    TANH = "tanh"  # straight-through thresholds, tanh penalty of the methods paper
    TOP_K = "topk"
    BATCH_TOP_K = "batch-topk"


class Split(StrEnum):
    """What is divided among the processes of a run, which is the same either way."""

    TOKENS = "tokens"
    FEATURES = "features"


@dataclass(frozen=True)
class TrainSettings:
    """One run.  Raises TrainingError for numbers that are invalid or inconsistent."""

    kind: Kind = Kind.CROSS_LAYER
    sparsity: Sparsity = Sparsity.BATCH_TOP_K
    d_dict: int = 4096  # features per layer
    l0: float = 20.0  # target of active features per layer and token
    steps: int = 10_000
    batch_tokens: int = 2048
    learning_rate: float = 3e-3
    warm_up: float = 0.02  # share of steps over which rate and penalties rise
    cool_down: float = 0.9  # share of steps over which the rate falls to 0
    penalty: float = 1.0  # weight of the L0 or tanh penalty
    bandwidth: float = 0.05  # of the straight-through kernel, in units of normalised inputs
    prefixes: tuple[
        float, ...
    ] = ()  # Matryoshka: shares of the dictionary that must reconstruct alone
    dead_after: int | None = None  # tokens without firing; None: by the run's length
    revival: float = 1 / 32  # weight of the loss that lets dead features explain the error
    high_frequency: float = 0.1  # share of tokens above which firing is penalised
    frequency_penalty: float = 0.1
    read: ReadPoint = ReadPoint.MLP_INPUT
    write: WritePoint = WritePoint.CONTRIBUTION
    shuffled_tokens: int | None = None  # whose activations are shuffled together; None: by bytes
    # Choose active features in bfloat16, and let the model compute in TF32; None: on accelerators.
    bfloat16: bool | None = None
    shared_budget: bool | None = None  # of batch-topk, over layers; None: if cross-layer
    refresh: int = 10  # steps after which budgets and dead features are found anew
    seed: int = 0
    kl_steps: int = 0  # of the final phase, in which reconstructions replace the MLPs
    kl_rate: float = 0.03  # its learning rate at first, as a share of the other
    start_size: float = 1.0  # of activations at first, beside those that explain most
    layers: tuple[int, ...] | None = None  # that are trained; None: all of the model's

    def __post_init__(self) -> None:
        for name in POSITIVE:
            if not 0 < getattr(self, name) < math.inf:  # so that NaN is refused too
                raise TrainingError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.kl_steps < 0:
            raise TrainingError(f"kl_steps must not be below 0, got {self.kl_steps}.")
        if not 0 <= self.penalty < math.inf:
            raise TrainingError(f"penalty must not be below 0, got {self.penalty}.")
        if self.l0 > self.d_dict:
            raise TrainingError(
                f"An L0 of {self.l0:g} cannot be reached with {self.d_dict} features per layer: "
                "choose fewer active features or a wider dictionary."
            )
        if self.sparsity == Sparsity.TOP_K and self.l0 != round(self.l0):
            raise TrainingError(
                f"topk needs a whole number of features per token, got {self.l0:g}: round it, or "
                "choose batch-topk."
            )
        if self.shuffled_tokens is not None and self.shuffled_tokens < self.batch_tokens:
            raise TrainingError(
                f"{self.shuffled_tokens} shuffled tokens do not fill a batch of "
                f"{self.batch_tokens}: shuffle at least as many."
            )
        if not all(0 < share < 1 for share in self.prefixes):
            raise TrainingError("Matryoshka prefixes must be shares between 0 and 1.")
        if self.layers is not None:
            self._require_layers(self.layers)

    def _require_layers(self, layers: tuple[int, ...]) -> None:
        if not layers or layers != tuple(sorted(set(layers))) or layers[0] < 0:
            raise TrainingError(
                f"Layers to train must be numbers from 0 on, each once and in order, got {layers}."
            )
        if self.kind == Kind.CROSS_LAYER and layers[-1] - layers[0] + 1 != len(layers):
            raise TrainingError(
                "A cross-layer transcoder has all layers from its first to its last: give a range, "
                "or train one per layer."
            )

    def layers_of(self, n_layers: int) -> tuple[int, ...]:
        """The layers that are trained.  Raises TrainingError for one that the model lacks."""
        layers = tuple(range(n_layers)) if self.layers is None else self.layers
        if layers[-1] >= n_layers:
            raise TrainingError(
                f"The model has {n_layers} layers, 0 to {n_layers - 1}: layer {layers[-1]} cannot "
                "be trained."
            )
        return layers

    def sized(self, n_layers: int, d_model: int) -> TrainSettings:
        """With a number of tokens to shuffle: as many as take POOL_BYTES, at most MOST_SHUFFLED.

        There are twice as many as features, which take half of what parameters take, so that each
        feature can begin as an example of its own.  All pools of a run have one size, with which
        the last one is trained on too, but for a few batches.
        """
        if self.shuffled_tokens is not None:
            return self
        room = POOL_BYTES // (2 * VALUE_BYTES * n_layers * d_model)
        most = max(2 * self.d_dict, min(room, MOST_SHUFFLED))
        n_pools = -(-self.steps // max(1, most // self.batch_tokens))
        return replace(self, shuffled_tokens=-(-self.steps // n_pools) * self.batch_tokens)

    @property
    def all_steps(self) -> int:
        """Those of the final phase included."""
        return self.steps + self.kl_steps

    @property
    def k(self) -> int:
        """Whole features per token, for what takes the same number at each."""
        return max(1, round(self.l0))

    @property
    def silent_tokens(self) -> int:
        """Tokens without firing after which a feature is dead: at most a tenth of the run."""
        if self.dead_after is not None:
            return self.dead_after
        return min(self.steps * self.batch_tokens // 10, MOST_SILENT)

    def rounds(self, *, accelerator: bool) -> bool:
        """Whether products that need not be exact are made in tensor cores."""
        return accelerator if self.bfloat16 is None else self.bfloat16

    @property
    def one_budget(self) -> bool:
        """Whether all layers of batch-topk share a budget."""
        return self.kind == Kind.CROSS_LAYER if self.shared_budget is None else self.shared_budget

    def former(self) -> tuple[TrainSettings, ...]:
        """The same run by the rules of 2026, with each learning rate that may have been meant."""
        rates = [self.learning_rate]
        if self.learning_rate == TrainSettings.learning_rate:
            rates.append(FORMER_RATE)
        return tuple(
            replace(
                self,
                **FORMER_RULES,
                learning_rate=rate,
                bfloat16=bool(self.bfloat16),
                dead_after=MOST_SILENT if self.dead_after is None else self.dead_after,
                shuffled_tokens=self.shuffled_tokens or max(MOST_SHUFFLED, self.batch_tokens),
            )
            for rate in rates
        )

    def run_name(self, *subject: str) -> str:
        """A name for a run with these settings on a model and a corpus, unique to them."""
        named = asdict(self)
        if self.layers is None:
            del named["layers"]
        if self.kl_steps == 0:
            del named["kl_steps"], named["kl_rate"]
        if self.start_size == 1:
            del named["start_size"]
        if self in self.former():  # runs of that time keep their names
            del named["shared_budget"], named["refresh"]
        text = json.dumps([named, *subject])
        return hashlib.sha256(text.encode()).hexdigest()[:16]
