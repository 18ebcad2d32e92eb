"""Graphs as pages."""
