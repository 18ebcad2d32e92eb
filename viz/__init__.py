"""Pictures of attribution graphs: a layout, a plotly figure, a page.  No torch."""

from viz.figure import figure
from viz.layout import Placement, layout
from viz.page import write_page
from viz.terminal import summary_tables

__all__ = ["Placement", "figure", "layout", "summary_tables", "write_page"]
