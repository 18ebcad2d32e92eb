"""Options that do not go together are refused."""

from __future__ import annotations

import pytest

from headwater.cli.usage import UsageError, require_consistent


def test_options_that_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        require_consistent(transcoders="folder", features="neurons", targets=[], against=None)
    with pytest.raises(UsageError, match="--against needs --target"):
        require_consistent(transcoders=None, features=None, targets=[], against="a")
