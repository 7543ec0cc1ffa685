"""`warp import`: objects of another S3 endpoint, with their versions, into volumes of a node that runs."""
