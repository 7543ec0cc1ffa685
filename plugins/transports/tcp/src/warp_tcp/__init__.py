"""WARP plugin: node to node over TCP with mutual TLS."""
