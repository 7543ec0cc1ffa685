"""Layers: what wraps a store or a metadata engine. The same interface outside and in.

`faulty` makes it fail as scripted, `slow` makes it wait, `metered` counts and times its calls.
"""

from warp_core.layers.faulty import FaultyMeta, FaultyStore, Rule, Script
from warp_core.layers.forward import MetaLayer, StoreLayer
from warp_core.layers.metered import MeteredMeta, MeteredStore
from warp_core.layers.slow import Pace, SlowMeta, SlowStore

__all__ = [
    "FaultyMeta",
    "FaultyStore",
    "MetaLayer",
    "MeteredMeta",
    "MeteredStore",
    "Pace",
    "Rule",
    "Script",
    "SlowMeta",
    "SlowStore",
    "StoreLayer",
]
