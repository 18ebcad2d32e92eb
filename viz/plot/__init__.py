"""Plotly figures of graphs and comparisons."""
