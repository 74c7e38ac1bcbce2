"""An in-process messaging system with faults, for tests, simulation and as the reference connector."""

from connectors.memory.cluster import MemoryCluster
from connectors.memory.connector import MemoryConnector, MemorySettings, factory
from connectors.memory.faults import PlannedAppend

__all__ = ["MemoryCluster", "MemoryConnector", "MemorySettings", "PlannedAppend", "factory"]
