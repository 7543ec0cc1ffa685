"""The file that `pytest --pyargs warp_conformance` finds; `warp_conformance.stage` collects adopted kits in its place."""
