"""One module for each kind of plugin: its kits, and `adopt(entry)`, which says which of them fit an entry and how to open it."""
