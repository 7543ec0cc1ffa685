"""The namespace as a small executable model: dictionaries and lists that say what every verb means."""

from warp_conformance.model.namespace import File, Held, Kept, Model, ModelVolume, Version

__all__ = ["File", "Held", "Kept", "Model", "ModelVolume", "Version"]
