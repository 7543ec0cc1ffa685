"""WARP plugin: MetaStore in memory, for tests and throwaway servers."""
