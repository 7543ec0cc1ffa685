"""Layers: what wraps a store or a metadata engine. The same interface outside and in.

`faulty` makes it fail as scripted, `slow` makes it wait, `metered` counts and times its calls, `forward` is the plain layer that
others are made of. Import from these modules: a node needs one of them, and its start is measured.
"""
