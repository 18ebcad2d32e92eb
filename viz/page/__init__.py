"""HTML pages of graphs, comparisons and audits."""
