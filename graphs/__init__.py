"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch."""

from graphs.annotations import (
    ANNOTATIONS_SUFFIX,
    NO_ANNOTATIONS,
    Annotations,
    Group,
    annotations_path,
    read_annotations,
    write_annotations,
)
from graphs.assembly import Links, assemble, columns_of_others
from graphs.carriers import Answer, Audited, Carrier, Kind, Recurring, by_kind, recurring
from graphs.changes import Change, Intervention, intervention
from graphs.collapse import Collapsed, CyclicGroups, collapse
from graphs.compare import PERMUTATIONS, Comparison, Score, compare
from graphs.concepts import Appearance, Concept, Groups, concepts, path_overlap
from graphs.consensus import Common, Consensus, consensus
from graphs.correspond import Correspondence, CorrespondSettings, correspond
from graphs.descriptions import Description, Example
from graphs.dot import to_dot, write_dot
from graphs.edits import Add, Edit, EditError, Push, Scale, Set, Swap
from graphs.effects import Effects, NodeEffect, TokenEffect
from graphs.evidence import Weights, mean_depth
from graphs.files import GraphFileError, first_problem, is_packed, regular_file
from graphs.flow import Ends, entering, flow, necessity, path_lengths, whole
from graphs.graph import AttributionGraph
from graphs.grouping import GroupSettings, TooManyFeatures, find_groups, named, similarity
from graphs.identity import one_dictionary, one_source, one_vocabulary
from graphs.influence import influence, resolved_influence
from graphs.interchange import to_networkx, write_gexf, write_graphml, write_node_link
from graphs.matching import Match, match_by_identity, match_by_similarity
from graphs.merging import MergeConflict, merged
from graphs.neuronpedia import LARGEST_UPLOAD, complaints, to_neuronpedia, write_neuronpedia
from graphs.neuronpedia_file import Upload, hidden
from graphs.neuronpedia_names import CIRCUIT_TRACER_KIND
from graphs.neuronpedia_reader import ReadGraph, read_neuronpedia
from graphs.nodes import INPUT_KINDS, TARGET_KINDS, NodeId, NodeKind, NodeTable
from graphs.opening import Bos, ContextRule, DocumentOpening, Opening
from graphs.opposing import Effect, Opposing, opposing, total_effects
from graphs.pairs import Line, PromptPair, read_pairs
from graphs.parquet import parquet_paths, write_parquet
from graphs.paths import Path, Paths, strongest_paths
from graphs.portable import portable
from graphs.positions import align_characters, align_prompts, align_tokens
from graphs.predict import predict
from graphs.profiles import Profile, Profiled, read_profile, write_profile
from graphs.prompts import (
    SHUFFLES,
    Across,
    across_prompts,
    interval,
    known_mean,
    traits,
)
from graphs.provenance import (
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
from graphs.prune import PruneSettings, cumulative_influence, prune
from graphs.regime import Regime
from graphs.report import (
    KS,
    CurveReport,
    EffectReport,
    ReplacementReport,
    Report,
    RowsReport,
    SetReport,
    StrongestReport,
)
from graphs.reporting import areas, effect_report, set_report
from graphs.scores import Scores, scores
from graphs.select import SelectionError, names_concept, select
from graphs.storage import read_graph, write_graph
from graphs.summary import NodeLine, Summary, TargetLine, summarise
from graphs.target_weights import weighed
from graphs.transport import Transport, transport
from graphs.updates import keep_measured, keep_report, update_annotations

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
    "Across",
    "Add",
    "Annotations",
    "Answer",
    "Appearance",
    "AttributionGraph",
    "Audited",
    "Bos",
    "Carrier",
    "Change",
    "Checks",
    "Collapsed",
    "Common",
    "Comparison",
    "Concept",
    "Consensus",
    "ContextRule",
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
    "Intervention",
    "Kind",
    "Line",
    "Links",
    "Match",
    "Measured",
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
    "Profile",
    "Profiled",
    "PromptPair",
    "Provenance",
    "PruneSettings",
    "Push",
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
    "across_prompts",
    "align_characters",
    "align_prompts",
    "align_tokens",
    "annotations_path",
    "areas",
    "assemble",
    "by_kind",
    "collapse",
    "columns_of_others",
    "compare",
    "complaints",
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
    "influence",
    "interval",
    "intervention",
    "is_packed",
    "keep_measured",
    "keep_report",
    "known_mean",
    "match_by_identity",
    "match_by_similarity",
    "mean_depth",
    "merged",
    "named",
    "names_concept",
    "necessity",
    "one_dictionary",
    "one_source",
    "one_vocabulary",
    "opposing",
    "parquet_paths",
    "path_lengths",
    "path_overlap",
    "portable",
    "predict",
    "prune",
    "read_annotations",
    "read_graph",
    "read_neuronpedia",
    "read_pairs",
    "read_profile",
    "recurring",
    "regular_file",
    "resolved_influence",
    "scores",
    "select",
    "set_report",
    "similarity",
    "strongest_paths",
    "summarise",
    "to_dot",
    "to_networkx",
    "to_neuronpedia",
    "total_effects",
    "traits",
    "transport",
    "update_annotations",
    "weighed",
    "whole",
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
