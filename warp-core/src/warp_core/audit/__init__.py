"""The audit log: a chain of lines that shows what was changed in it (`docs/formats/audit.md`)."""
