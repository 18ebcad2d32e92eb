"""Schema of the JSON of circuit-tracer and Neuronpedia.

Sources: circuit_tracer/frontend/graph_models.py and Neuronpedia's graph-schema.json; both allow
further keys.  Programs leave out fields that they do not know, so few are required.
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

from graphs.core.nodes import Description
from graphs.core.provenance import UNKNOWN, Provenance


class _Foreign(BaseModel):
    """An object from another program: null counts as missing; `raw` is the original."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])

    @property
    def raw(self) -> dict[str, Any]:
        """All keys as they were read, including unknown ones and nulls."""
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
    """`metadata`: the prompt and the origin of the graph."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)  # copied to exports

    slug: str = ""
    scan: str = UNKNOWN
    transcoder_list: list[str] = []
    prompt_tokens: Annotated[list[str], FailFast()]
    prompt: str | None = None  # None: the tokens joined
    node_threshold: float | None = None
    schema_version: int | None = None  # 1: features are numbered by Cantor pairs
    n_layers: int | None = Field(default=None, ge=1, lt=10**6)  # of EleutherAI and Anthropic
    info: dict[str, JsonValue] = {}
    feature_details: dict[str, JsonValue] = {}  # where the viewer loads features from
    generation_settings: dict[str, JsonValue] = {}
    pruning_settings: dict[str, JsonValue] = {}


class Node(_Foreign):
    """A member of `nodes`."""

    node_id: str
    feature: int | None = None
    layer: str | int
    ctx_idx: int = Field(ge=0, lt=2**31)
    feature_type: str
    token_prob: float = 0.0  # a probability, or the weight of a custom direction
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
        """Tokens and predictions may lack a layer.

        OpenMOSS' server writes an object with all fields of a feature instead of its number.
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
    """`qParams`: a person's edits in the viewer.

    circuit-tracer's server writes back the parameters of the page's address, so lists may be
    strings: ids with commas between them, supernodes and labels as JSON.
    """

    pinnedIds: list[str] | str = []
    supernodes: list[list[str]] | str = []  # label, then the ids of members
    clerps: list[tuple[str | int, str]] | str = []  # key and label
    linkType: str = "both"
    clickedId: str = ""
    sg_pos: str = ""


class Extra(_Foreign):
    """`headwater`: fields that the format lacks; the lists are parallel to `nodes`."""

    provenance: Provenance
    weights_dtype: Literal["float32", "float64"]
    value: list[float | None]
    seed: list[float] | None = None  # None: the token_prob of each node
    dropped: list[float]
    dropped_absolute: list[float]
    expanded: list[bool]
    output_tokens: dict[int, tuple[str, ...]]
    descriptions: dict[str, Description] = {}
    automatic: list[str] = []  # names of automatic supernodes


class GraphFile(BaseModel):
    """The whole file.  Validation of a list stops at its first fault."""

    # Not _Foreign, which would turn the whole file into Python objects before validation.
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    metadata: Metadata
    qParams: QParams | None = None
    nodes: Annotated[list[Node], FailFast()]
    links: Annotated[list[Link], FailFast()]
    headwater: dict[str, JsonValue] | None = None


class Answer(BaseModel):
    """A response of OpenMOSS' server, which contains the file."""

    graph_data: GraphFile


def member(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The value of a key if it is an object, else an empty one."""
    value: Any = values.get(name)
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}
