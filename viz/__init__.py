"""Pictures of attribution graphs: a layout, a plotly figure, a page.  No torch."""

from viz.compared import comparison_text
from viz.described import description_text
from viz.figure import figure
from viz.layout import Placement, layout
from viz.page import write_page
from viz.stories import groups_text, paths_text, story
from viz.terminal import summary_tables

__all__ = [
    "Placement",
    "comparison_text",
    "description_text",
    "figure",
    "groups_text",
    "layout",
    "paths_text",
    "story",
    "summary_tables",
    "write_page",
]
