"""WARP plugin: embedded, durable MetaStore for one node."""
