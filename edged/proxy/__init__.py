"""Services that are fetched, not synced: a caching reverse proxy by RFC 9111."""
