"""Blocks: the disk-shaped view of a file marked as a disk."""


class Blocks:
    """Read, write, flush, trim, zero, status, compare_and_write, reservations, resize."""
