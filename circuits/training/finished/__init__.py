"""The finished dictionary: written, described and measured."""
