"""WARP plugin: BlobStore in memory, for tests and throwaway servers."""
