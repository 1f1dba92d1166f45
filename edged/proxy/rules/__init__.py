"""The cache's decisions (RFC 9111) and what they rest on. No I/O: times come in as arguments."""
