"""Who may do what: ACLs, bucket policies, public access block, and the one place that asks them.

`acl`, `conditions`, `policy` and `rules` are pure: they know requests by their values only. `judging` gathers those values.
"""
