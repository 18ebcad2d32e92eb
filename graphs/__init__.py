"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch."""

from graphs.analysis.flow import Ends, entering, flow, inputs_to_targets, necessity, path_lengths
from graphs.analysis.influence import influence
from graphs.analysis.opposing import Effect, Opposing, opposing, total_effects
from graphs.analysis.paths import Path, Paths, strongest_paths
from graphs.analysis.prune import PruneSettings, cumulative_influence, prune
from graphs.analysis.scores import Scores, scores
from graphs.analysis.select import SelectionError, names_concept, select
from graphs.analysis.summary import NodeLine, Summary, TargetLine, summarise
from graphs.comparison.compare import PERMUTATIONS, Comparison, Score, compare
from graphs.comparison.concepts import Appearance, Concept, Groups, concepts, path_overlap
from graphs.comparison.consensus import Common, Consensus, consensus
from graphs.comparison.correspond import Correspondence, CorrespondSettings, correspond
from graphs.comparison.evidence import Weights, mean_depth
from graphs.comparison.many_prompts import (
    SHUFFLES,
    PromptSetComparison,
    compare_prompt_sets,
    interval,
    known_mean,
    traits,
)
from graphs.comparison.matching import Match, match_by_identity, match_by_similarity
from graphs.comparison.positions import align_characters, align_prompts, align_tokens
from graphs.comparison.profiles import Profile, Profiled, profile_of, read_profile, write_profile
from graphs.comparison.transport import Transport, transport
from graphs.core.annotations import (
    ANNOTATIONS_SUFFIX,
    NO_ANNOTATIONS,
    Annotations,
    Group,
    annotations_path,
    read_annotations,
    write_annotations,
)
from graphs.core.graph import AttributionGraph
from graphs.core.identity import same_dictionary, same_source, same_vocabulary
from graphs.core.merging import MergeConflict, merged
from graphs.core.nodes import (
    INPUT_KINDS,
    TARGET_KINDS,
    Description,
    Example,
    NodeId,
    NodeKind,
    NodeTable,
)
from graphs.core.opening import Bos, DocumentOpening, Opening, PrefixRule
from graphs.core.provenance import (
    NEURONS,
    SCHEMA_VERSION,
    UNKNOWN,
    Checks,
    DictionaryIdentity,
    Measured,
    ModelIdentity,
    Provenance,
    Sink,
    Target,
)
from graphs.core.regime import Regime
from graphs.core.report import (
    KS,
    CurveReport,
    EffectReport,
    ReplacementReport,
    Report,
    RowsReport,
    SetReport,
    StrongestReport,
)
from graphs.disk.files import GraphFileError, first_problem, is_packed, regular_file
from graphs.disk.portable import portable
from graphs.errors import HeadwaterError
from graphs.formats.assembly import Links, assemble, imported_columns
from graphs.formats.dot import to_dot, write_dot
from graphs.formats.interchange import to_networkx, write_gexf, write_graphml, write_node_link
from graphs.formats.neuronpedia.contents import Upload, hidden
from graphs.formats.neuronpedia.names import CIRCUIT_TRACER_KIND
from graphs.formats.neuronpedia.reader import ReadGraph, read_neuronpedia
from graphs.formats.neuronpedia.writer import (
    LARGEST_UPLOAD,
    to_neuronpedia,
    upload_problems,
    write_neuronpedia,
)
from graphs.formats.parquet import parquet_paths, write_parquet
from graphs.formats.storage import read_graph, write_graph
from graphs.formats.target_weights import target_seeds
from graphs.formats.updates import (
    keep_annotations,
    keep_measured,
    keep_report,
    update_annotations,
)
from graphs.groups.automatic import keep_groups, with_groups
from graphs.groups.collapse import Collapsed, CyclicGroups, collapse
from graphs.groups.grouping import (
    GroupSettings,
    TooManyFeatures,
    find_groups,
    named_groups,
    similarity,
)
from graphs.interventions.changes import Change, Intervention, intervention
from graphs.interventions.edits import Add, Edit, EditError, Scale, Set, Steer, Swap
from graphs.interventions.effects import Effects, NodeEffect, TokenEffect
from graphs.interventions.mediators import (
    Answer,
    Audited,
    Kind,
    Mediator,
    Recurring,
    by_kind,
    recurring,
)
from graphs.interventions.pairs import Line, PromptPair, read_pairs
from graphs.interventions.predict import predict
from graphs.interventions.reporting import areas, effect_report, set_report

__all__ = [
    "ANNOTATIONS_SUFFIX",
    "CIRCUIT_TRACER_KIND",
    "INPUT_KINDS",
    "KS",
    "LARGEST_UPLOAD",
    "NEURONS",
    "NO_ANNOTATIONS",
    "PERMUTATIONS",
    "SCHEMA_VERSION",
    "SHUFFLES",
    "TARGET_KINDS",
    "UNKNOWN",
    "Add",
    "Annotations",
    "Answer",
    "Appearance",
    "AttributionGraph",
    "Audited",
    "Bos",
    "Change",
    "Checks",
    "Collapsed",
    "Common",
    "Comparison",
    "Concept",
    "Consensus",
    "CorrespondSettings",
    "Correspondence",
    "CurveReport",
    "CyclicGroups",
    "Description",
    "DictionaryIdentity",
    "DocumentOpening",
    "Edit",
    "EditError",
    "Effect",
    "EffectReport",
    "Effects",
    "Ends",
    "Example",
    "GraphFileError",
    "Group",
    "GroupSettings",
    "Groups",
    "HeadwaterError",
    "Intervention",
    "Kind",
    "Line",
    "Links",
    "Match",
    "Measured",
    "Mediator",
    "MergeConflict",
    "ModelIdentity",
    "NodeEffect",
    "NodeId",
    "NodeKind",
    "NodeLine",
    "NodeTable",
    "Opening",
    "Opposing",
    "Path",
    "Paths",
    "PrefixRule",
    "Profile",
    "Profiled",
    "PromptPair",
    "PromptSetComparison",
    "Provenance",
    "PruneSettings",
    "ReadGraph",
    "Recurring",
    "Regime",
    "ReplacementReport",
    "Report",
    "RowsReport",
    "Scale",
    "Score",
    "Scores",
    "SelectionError",
    "Set",
    "SetReport",
    "Sink",
    "Steer",
    "StrongestReport",
    "Summary",
    "Swap",
    "Target",
    "TargetLine",
    "TokenEffect",
    "TooManyFeatures",
    "Transport",
    "Upload",
    "Weights",
    "align_characters",
    "align_prompts",
    "align_tokens",
    "annotations_path",
    "areas",
    "assemble",
    "by_kind",
    "collapse",
    "compare",
    "compare_prompt_sets",
    "concepts",
    "consensus",
    "correspond",
    "cumulative_influence",
    "effect_report",
    "entering",
    "find_groups",
    "first_problem",
    "flow",
    "hidden",
    "imported_columns",
    "influence",
    "inputs_to_targets",
    "interval",
    "intervention",
    "is_packed",
    "keep_annotations",
    "keep_groups",
    "keep_measured",
    "keep_report",
    "known_mean",
    "match_by_identity",
    "match_by_similarity",
    "mean_depth",
    "merged",
    "named_groups",
    "names_concept",
    "necessity",
    "opposing",
    "parquet_paths",
    "path_lengths",
    "path_overlap",
    "portable",
    "predict",
    "profile_of",
    "prune",
    "read_annotations",
    "read_graph",
    "read_neuronpedia",
    "read_pairs",
    "read_profile",
    "recurring",
    "regular_file",
    "same_dictionary",
    "same_source",
    "same_vocabulary",
    "scores",
    "select",
    "set_report",
    "similarity",
    "strongest_paths",
    "summarise",
    "target_seeds",
    "to_dot",
    "to_networkx",
    "to_neuronpedia",
    "total_effects",
    "traits",
    "transport",
    "update_annotations",
    "upload_problems",
    "with_groups",
    "write_annotations",
    "write_dot",
    "write_gexf",
    "write_graph",
    "write_graphml",
    "write_neuronpedia",
    "write_node_link",
    "write_parquet",
    "write_profile",
]
