"""The namespace: volumes, names, inodes, revisions, versions, snapshots, written once for all views."""
