"""The kits that prove a WARP plugin."""
