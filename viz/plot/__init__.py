"""Graphs as plotly figures."""
