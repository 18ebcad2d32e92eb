"""Circuit tracing and attribution graphs for language models.

    import headwater as hw
    graph = hw.trace("The capital of the state containing Dallas is")
    graph.top(10)

What one starts with is here; everything else is in `circuits` (models, dictionaries, traces,
interventions), `graphs` (what to do with graphs, without torch) and `viz` (text, figures, pages).
Names are in `__init__.pyi`, and are imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
