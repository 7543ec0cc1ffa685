"""`python -m warp_cli` is `warp`."""

from warp_cli.main import run

if __name__ == "__main__":
    run()
