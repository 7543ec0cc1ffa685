"""Containers: append-only logs of framed, checksummed records on several stores; the data plane of a node."""
