"""Faulty implementations, one module for each kind; see `warp_conformance.mutation`."""
