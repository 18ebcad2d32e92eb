"""Engine: plotly's script, without the work that the viewer does not need.

plotly ships as one script with all kinds of charts.  The viewer uses axes and scatter plots, which
are in plotly's core; setting up the other charts takes most of the time in which the script runs,
and a map library's second script, held as a text, takes a tenth of the bytes.  Neither happens
here.  The whole script is one function, which browsers parse twice, unless it is in parentheses.
A version of plotly in which these places are not found is used as it is: it works the same, but is
larger and slower.
"""

from __future__ import annotations

import re
from functools import cache

from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingTypeStubs]  # it has none

from viz.html.packed import packed

# The call that sets up all charts: a list of dozens of calls.
_CHARTS = re.compile(r"\.register\(\[(?:[\w$]+\(\),){20,}[\w$]+\(\)\]\)")
_OTHER = re.compile(r"[^\x00-\x7f]")
# The function that is the whole script, where it is handed to the one that calls it.
_WHOLE = re.compile(r"(\? self : this, )(\(\) => \{\n.*\n\})(\)\);?\s*)\Z", re.DOTALL)
# A module that is a text of at least 100,000 characters.
_TEXT = re.compile(r"(\.exports=)'(?:[^'\\]|\\.){100000,}'")


@cache
def engine_part() -> str:
    """The part "plotly" of a page: plotly's script, with its core alone set up."""
    return packed("plotly", in_ascii(parsed_once(without_charts(get_plotlyjs()))).encode())


def in_ascii(script: str) -> str:
    """The script with other characters as escapes, which texts and patterns of JavaScript may have.

    Browsers keep a text of ASCII in half the memory, and compile it faster.
    """
    return _OTHER.sub(_escaped, script)


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def without_charts(script: str) -> str:
    """The script without what only other charts need; unchanged where that is not found once."""
    if len(_CHARTS.findall(script)) != 1:
        return script
    return _TEXT.sub(r"\1''", _CHARTS.sub(".register([])", script))


def parsed_once(script: str) -> str:
    """The script with its function in parentheses; unchanged where it is not one function.

    Engines take a function in parentheses for one that is called at once, and compile it then.  Any
    other they only check at first, and parse again when it is called.
    """
    return _WHOLE.sub(r"\1(\2)\3", script)
