"""Interventions by names of a graph's nodes, and the effects that the graph predicts."""
