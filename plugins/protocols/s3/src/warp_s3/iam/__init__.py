"""Users, groups, roles and policies of an account, and temporary credentials: the query protocol on S3's own endpoint.

`wire` reads forms and writes XML; `entities` are what is kept, and `directory` holds a copy of all; the modules of users, groups,
roles, policies, providers, keys and sessions decide on that copy, by `table`; `identities` says who has an access key; `service` puts
them together.
"""
