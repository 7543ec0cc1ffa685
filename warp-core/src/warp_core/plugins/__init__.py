"""Discovery: which plugins are installed, which loaded, which failed and why.

A plugin is an entry point of the group `warp.plugins`: its name is `kind.name`, its value a module
whose import is cheap and that holds the hook implementation. Listing imports nothing; a plugin is
loaded when something asks for it by name, and one that fails is reported while the rest go on.
"""

from warp_core.plugins.discovery import GROUP, Found, Plugins, State, Status, describe

__all__ = ["GROUP", "Found", "Plugins", "State", "Status", "describe"]
