"""The JSON of circuit-tracer and Neuronpedia: what a file holds.

Sources: circuit_tracer/frontend/graph_models.py and Neuronpedia's graph-schema.json; further keys
are allowed by both.  Programs leave out what they do not know, so little is demanded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    PrivateAttr,
    model_validator,
)
from pydantic.dataclasses import dataclass

from graphs.core.descriptions import Description
from graphs.core.provenance import UNKNOWN, Provenance


class _Foreign(BaseModel):
    """What other programs wrote: null is as good as missing, and `raw` is all of it as it was."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])

    @property
    def raw(self) -> dict[str, Any]:
        """Every key as it was read, further ones and nulls too."""
        return self._raw

    @model_validator(mode="wrap")
    @classmethod
    def _null_is_missing(cls, data: Any, read: Callable[[Any], Any]) -> Any:
        if not isinstance(data, dict):
            return read(data)
        given = cast(dict[str, Any], data)
        made = read({key: value for key, value in given.items() if value is not None})
        made._raw = given
        return made


class Metadata(_Foreign):
    """`metadata`: the prompt, and where the graph came from."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)  # said again in exports

    slug: str = ""
    scan: str = UNKNOWN
    transcoder_list: list[str] = []
    prompt_tokens: Annotated[list[str], FailFast()]
    prompt: str | None = None  # None: the tokens in a row
    node_threshold: float | None = None
    schema_version: int | None = None  # 1: features are numbered by Cantor pairs
    n_layers: int | None = Field(default=None, ge=1, lt=10**6)  # of EleutherAI and Anthropic
    info: dict[str, JsonValue] = {}
    feature_details: dict[str, JsonValue] = {}  # where the viewer finds the features
    generation_settings: dict[str, JsonValue] = {}
    pruning_settings: dict[str, JsonValue] = {}


class Node(_Foreign):
    """A member of `nodes`."""

    node_id: str
    feature: int | None = None
    layer: str | int
    ctx_idx: int = Field(ge=0, lt=2**31)
    feature_type: str
    token_prob: float = 0.0  # a probability, or the weight of a target that somebody made
    is_target_logit: bool = False
    run_idx: int = 0
    reverse_ctx_idx: int = 0
    jsNodeId: str = ""
    clerp: str = ""
    influence: float | None = None
    activation: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, data: Any) -> Any:
        """Tokens and predictions need no layer: where they are is known.

        OpenMOSS' server puts all that it knows about a feature in the place of its number.
        """
        if not isinstance(data, dict):
            return data
        given = cast(dict[str, Any], data)
        if given.get("feature_type") in ("embedding", "logit"):
            given = {"layer": "", **given}
        record = member(given, "feature")
        return {**given, "feature": record.get("feature_index")} if record else given


@dataclass(slots=True, config=ConfigDict(extra="ignore", allow_inf_nan=False))
class Link:
    """A member of `links`: the signed direct effect of source on target.  There may be millions."""

    source: str
    target: str
    weight: float


class QParams(_Foreign):
    """`qParams`: what a person did in the viewer.

    circuit-tracer's server writes back what stood in the address of the page, so lists may have
    become text: ids with commas, supernodes and labels as JSON.
    """

    pinnedIds: list[str] | str = []
    supernodes: list[list[str]] | str = []  # label, then the ids of members
    clerps: list[tuple[str | int, str]] | str = []  # what is labelled, and the label
    linkType: str = "both"
    clickedId: str = ""
    sg_pos: str = ""


class Extra(_Foreign):
    """`headwater`: what the format has no field for; the lists run parallel to `nodes`."""

    provenance: Provenance
    weights_dtype: Literal["float32", "float64"]
    value: list[float | None]
    seed: list[float] | None = None  # None: the token_prob of each node
    dropped: list[float]
    dropped_absolute: list[float]
    expanded: list[bool]
    output_tokens: dict[int, tuple[str, ...]]
    descriptions: dict[str, Description] = {}
    automatic: list[str] = []  # names of the supernodes that a program made


class GraphFile(BaseModel):
    """The whole file.  Lists stop at their first fault: there may be as many as members."""

    # Not _Foreign, which would make Python objects of the whole file before it is checked.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    metadata: Metadata
    qParams: QParams | None = None
    nodes: Annotated[list[Node], FailFast()]
    links: Annotated[list[Link], FailFast()]
    headwater: dict[str, JsonValue] | None = None


class Answer(BaseModel):
    """What OpenMOSS' server answers: the file is a part of it."""

    graph_data: GraphFile


def member(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A member that is an object; empty for anything else."""
    value: Any = values.get(name)
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
