"""Owns what becomes of a test whose piece of equipment is not here.

Called by fixtures. It never decides what a test needs.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from tests.support.provision import everything_required


def missing(piece: str) -> NoReturn:
    """End the test that needs `piece`: an error where everything is required, a named skip elsewhere."""
    reason = f"not run: {piece} is not provisioned (./run test provisions it)"
    if everything_required(os.environ):
        pytest.fail(reason)
    pytest.skip(reason)
