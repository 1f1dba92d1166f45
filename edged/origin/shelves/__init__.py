"""Where the blobs of a feed lie."""
