"""WARP plugin: chunker that cuts at fixed sizes."""
