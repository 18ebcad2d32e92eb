"""Comparison of graphs: aligned positions, matched nodes, overlap, consensus."""
