"""WARP plugin: BlobStore on a local file system."""
