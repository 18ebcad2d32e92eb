"""Pictures of attribution graphs: a layout, a plotly figure, a page.  No torch."""

from viz.described import description_text
from viz.figure import figure
from viz.layout import Placement, layout
from viz.page import write_page
from viz.terminal import summary_tables

__all__ = ["Placement", "description_text", "figure", "layout", "summary_tables", "write_page"]
