"""Files: the POSIX-shaped view of a volume."""


class Files:
    """Inodes, directories, handles, locks. Verbs: see `docs/architecture.md`."""
