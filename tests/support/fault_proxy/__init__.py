"""A proxy between two that talk, which does to their connections what networks and busy servers do.

`Link` knows no protocol: what happens on it happens to all connections. `FaultProxy` knows HTTP: it does to chosen
requests what a `Fault` says, and to all of them what happens to its network.
"""

from tests.support.fault_proxy.effects import Effect, cut, damage, stall, unharmed
from tests.support.fault_proxy.link import Link
from tests.support.fault_proxy.network import WELL, Condition
from tests.support.fault_proxy.requests import Answer, Fault, FaultProxy
from tests.support.fault_proxy.stale import FirstAnswers

__all__ = [
    "WELL",
    "Answer",
    "Condition",
    "Effect",
    "Fault",
    "FaultProxy",
    "FirstAnswers",
    "Link",
    "cut",
    "damage",
    "stall",
    "unharmed",
]
