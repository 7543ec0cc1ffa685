"""WARP plugin: Zstandard compression filter."""
