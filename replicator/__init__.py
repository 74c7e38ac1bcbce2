"""Global Replicator: copies messages and consumer progress between independent messaging clusters."""

__version__ = "0.1.0"
