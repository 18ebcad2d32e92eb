"""Whether graphs and dictionaries are true: report cards, audits, profiles."""
