"""Attribution graphs: nodes, influence, pruning, scores and files.  No torch.

Public names are in `__init__.pyi`, and are imported when they are first used.
"""

# pyright: basic
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
