"""The survival kit: the same faults for any streaming server, and a scorecard of what it kept.

`unbroken verify-server` is its command; docs/howto/verify-server.md tells how to use it and how to write an adapter. It puts
no code into the server and judges by what was recorded alone.
"""

from unbroken.testing.survival.adapter import (
    Adapter,
    Capability,
    Complete,
    Delivery,
    Ended,
    LostError,
    RefusedError,
)
from unbroken.testing.survival.loading import ADAPTERS, Wanted, adapter_class, loaded
from unbroken.testing.survival.runner import Bounds, running, survive
from unbroken.testing.survival.scenario import FaultKind, Scenario, scenarios
from unbroken.testing.survival.scorecard import ASPECTS, Cell, Outcome, Row, Scorecard
from unbroken.testing.survival.stage import Target

__all__ = [
    "ADAPTERS",
    "ASPECTS",
    "Adapter",
    "Bounds",
    "Capability",
    "Cell",
    "Complete",
    "Delivery",
    "Ended",
    "FaultKind",
    "LostError",
    "Outcome",
    "RefusedError",
    "Row",
    "Scenario",
    "Scorecard",
    "Target",
    "Wanted",
    "adapter_class",
    "loaded",
    "running",
    "scenarios",
    "survive",
]
