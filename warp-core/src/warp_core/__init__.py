"""The storage kernel of WARP: interfaces, namespace, containers."""
