"""The feed over HTTP: heads with a long poll, roots of trust, blobs."""
