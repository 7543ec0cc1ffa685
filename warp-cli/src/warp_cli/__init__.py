"""The command `warp`."""
