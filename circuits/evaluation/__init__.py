"""Evaluation of graphs and dictionaries: report cards, audits, profiles."""
