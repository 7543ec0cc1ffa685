"""Clusters: a router above single-node stacks. Each stack is a domain, held by one node at a time under a fenced lease."""
