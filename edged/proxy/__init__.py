"""Services that are fetched, not synced: a caching reverse proxy by RFC 9111.

application  a request comes in, whatever lane it came by: at once from memory, else by a task
gateway      routes, store, upstreams, and what goes on in the background
exchange/    one request on its way: context (its key), exchange (from the store, with others, or upstream), fetch
             (upstream and back), flight (one body for many readers), methods (all but GET and HEAD), websocket, sending
rules/       what is decided, without I/O: keys, vary, freshness, decisions, answer, validation, forward, status …
store/       what is kept: memory and disktier, cache (both as one), store and disk (diskcache, hardened), inventory
             (beside a running daemon)
upstream/    connections to services: upstream (one route's), guarded (where an answer ends)
timeline     ages that no clock can bend
"""
