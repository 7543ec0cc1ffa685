"""Bricks for tests with real servers, real clients, crashes and power cuts."""
