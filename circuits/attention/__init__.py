"""Attention taken apart: the heads that carry each edge, and why they look where they look."""
