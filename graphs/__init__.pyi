"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch."""

from .analysis.flow import Ends, entering, flow, inputs_to_targets, necessity, path_lengths
from .analysis.influence import influence
from .analysis.opposing import Effect, Opposing, opposing, total_effects
from .analysis.paths import Path, Paths, strongest_paths
from .analysis.prune import PruneSettings, cumulative_influence, prune
from .analysis.scores import Scores, scores
from .analysis.select import SelectionError, names_concept, select
from .analysis.summary import NodeLine, Summary, TargetLine, summarise
from .comparison.compare import PERMUTATIONS, Comparison, Score, compare
from .comparison.concepts import Appearance, Concept, Groups, concepts, path_overlap
from .comparison.consensus import Common, Consensus, consensus
from .comparison.correspond import Correspondence, CorrespondSettings, correspond
from .comparison.evidence import Weights, mean_depth
from .comparison.many_prompts import (
    SHUFFLES,
    PromptSetComparison,
    compare_prompt_sets,
    interval,
    known_mean,
    traits,
)
from .comparison.matching import Match, match_by_identity, match_by_similarity
from .comparison.positions import align_characters, align_prompts, align_tokens
from .comparison.profiles import Profile, Profiled, profile_of, read_profile, write_profile
from .comparison.transport import Transport, transport
from .core.annotations import (
    ANNOTATIONS_SUFFIX,
    NO_ANNOTATIONS,
    Annotations,
    Group,
    annotations_path,
    read_annotations,
    write_annotations,
)
from .core.graph import AttributionGraph
from .core.identity import same_dictionary, same_source, same_vocabulary
from .core.merging import MergeConflict, merged
from .core.nodes import (
    INPUT_KINDS,
    TARGET_KINDS,
    Description,
    Example,
    NodeId,
    NodeKind,
    NodeTable,
)
from .core.opening import Bos, DocumentOpening, Opening, PrefixRule
from .core.provenance import (
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
from .core.regime import Regime
from .core.report import (
    KS,
    CurveReport,
    EffectReport,
    ReplacementReport,
    Report,
    RowsReport,
    SetReport,
    StrongestReport,
)
from .disk.files import GraphFileError, first_problem, is_packed, regular_file
from .disk.portable import portable
from .errors import HeadwaterError
from .formats.assembly import Links, assemble, imported_columns
from .formats.dot import to_dot, write_dot
from .formats.interchange import to_networkx, write_gexf, write_graphml, write_node_link
from .formats.neuronpedia.contents import Upload, hidden
from .formats.neuronpedia.names import CIRCUIT_TRACER_KIND
from .formats.neuronpedia.reader import ReadGraph, read_neuronpedia
from .formats.neuronpedia.writer import (
    LARGEST_UPLOAD,
    to_neuronpedia,
    upload_problems,
    write_neuronpedia,
)
from .formats.parquet import parquet_paths, write_parquet
from .formats.storage import read_graph, write_graph
from .formats.tables import MissingPackage, edges_frame, edges_table, nodes_frame, nodes_table
from .formats.target_weights import target_seeds
from .formats.updates import (
    keep_annotations,
    keep_measured,
    keep_report,
    update_annotations,
)
from .groups.automatic import keep_groups, with_groups
from .groups.collapse import Collapsed, CyclicGroups, collapse
from .groups.grouping import (
    GroupSettings,
    TooManyFeatures,
    find_groups,
    named_groups,
    similarity,
)
from .interventions.changes import Change, Intervention, intervention
from .interventions.edits import Add, Edit, EditError, Scale, Set, Steer, Swap
from .interventions.effects import Effects, NodeEffect, TokenEffect
from .interventions.mediators import (
    Answer,
    Audited,
    Kind,
    Mediator,
    Recurring,
    by_kind,
    recurring,
)
from .interventions.pairs import Line, PromptPair, read_pairs
from .interventions.predict import predict
from .interventions.reporting import areas, effect_report, set_report

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
    "MissingPackage",
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
    "edges_frame",
    "edges_table",
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
    "nodes_frame",
    "nodes_table",
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
