"""Figures that a paper prints: boxes, arrows around them, and files as SVG, PDF or PNG."""
