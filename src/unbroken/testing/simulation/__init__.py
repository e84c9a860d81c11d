"""Simulation: virtual time, a network in memory and a clock to set, and the whole product run in them by seed.

`run_virtual`, `SimulatedNetwork` and `SimulatedClock` are for the tests of anything that streams over asyncio; the rest puts
Unbroken's own server and clients into them. Nothing here runs in production, and with a network nothing opens a socket.
"""

from unbroken.testing.simulation.clock import SimulatedClock
from unbroken.testing.simulation.loop import VirtualLoop, run_virtual
from unbroken.testing.simulation.network import NetworkPath, SimulatedNetwork

__all__ = ["SimulatedNetwork", "NetworkPath", "SimulatedClock", "VirtualLoop", "run_virtual"]
