"""TLS for the lane: a session over memory, so that the epoll loop alone does I/O, and the certificates it shows.

certificates   PEM files to contexts, chosen by the name that a client asks for; read anew when they change
session        one connection's handshake, records and end, bytes in and bytes out
stream         a session as a trio stream, for what goes on under Hypercorn
"""
