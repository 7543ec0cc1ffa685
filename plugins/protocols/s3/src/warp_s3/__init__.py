"""WARP plugin: S3 over HTTP/1.1."""
