"""A node: the data directory, the parts opened in order, and the control socket."""
