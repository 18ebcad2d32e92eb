"""Views of attribution graphs: text for terminals, plotly figures, HTML pages.  No torch."""

from .page.audit_page import write_audit
from .page.comparison_page import write_comparison
from .page.notebook import NotebookPage, show
from .page.page import write_page, write_pages
from .page.prompts_page import prompt_scores, prompts_text, write_prompts
from .page.small import summary_html
from .paper.figures import PaperFigure, overview_figure, paper_figure
from .paper.formats import FigureError
from .plot.comparing import depth_profile, matched_flow, scores_with_null
from .plot.figure import figure
from .plot.layout import Placement, layout
from .text.attended import (
    entries_text,
    heads_text,
    paths_of_heads_text,
    reasons_text,
    score_text,
)
from .text.audited import audit_text
from .text.compared import comparison_scores, comparison_text
from .text.consensual import consensus_text
from .text.corresponding import correspondence_scores, correspondence_text
from .text.described import description_text
from .text.effects import effects_tables
from .text.opposed import opposing_text
from .text.path_text import describe_path, describe_paths, groups_text, paths_text
from .text.skipped import skipped_text
from .text.stable import stability_text
from .text.terminal import report_table, summary_tables

__all__ = [
    "FigureError",
    "NotebookPage",
    "PaperFigure",
    "Placement",
    "audit_text",
    "comparison_scores",
    "comparison_text",
    "consensus_text",
    "correspondence_scores",
    "correspondence_text",
    "depth_profile",
    "describe_path",
    "describe_paths",
    "description_text",
    "effects_tables",
    "entries_text",
    "figure",
    "groups_text",
    "heads_text",
    "layout",
    "matched_flow",
    "opposing_text",
    "overview_figure",
    "paper_figure",
    "paths_of_heads_text",
    "paths_text",
    "prompt_scores",
    "prompts_text",
    "reasons_text",
    "report_table",
    "score_text",
    "scores_with_null",
    "show",
    "skipped_text",
    "stability_text",
    "summary_html",
    "summary_tables",
    "write_audit",
    "write_comparison",
    "write_page",
    "write_pages",
    "write_prompts",
]
