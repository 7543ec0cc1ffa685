"""WARP plugin: access keys and principals."""
