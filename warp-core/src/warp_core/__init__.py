"""The storage kernel of WARP: interfaces, namespace, containers."""

__version__ = "2026.11.0"
