"""WARP plugin: garbage collection and compaction."""
