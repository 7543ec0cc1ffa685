"""Typed interfaces of the seven kinds of plugin: what an author implements and what core calls."""
