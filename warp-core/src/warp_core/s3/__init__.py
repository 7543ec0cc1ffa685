"""A small client of S3 endpoints: what copies between sites need, on the loop that serves, with no library.

Python's own clients (botocore and those on top of it) take 1 to 2 ms of CPU for a request and half a second to import, which a server
that replicates would take from those whom it serves. This one takes a fraction of that, and streams bodies from where they are.
"""

from warp_core.s3.client import Body, Client, Response
from warp_core.s3.signing import Endpoint, Signer

__all__ = ["Body", "Client", "Endpoint", "Response", "Signer"]
