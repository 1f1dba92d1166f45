"""The cache's decisions (RFC 9111) and what they rest on. No I/O: times come in as arguments.

decisions     may it be served, asked for, stored; what a stored response is
keys, vary    what of a request decides its answer, and so belongs into the key
directives, freshness, structured    what Cache-Control and its kin say, and how long that makes a response fresh
validation, invalidation, answer     304 and HEAD, what a POST ends, the answer that a stored response gives
forward       what is passed on, up and down, and what is refused
status, digest, circuit              Cache-Status, RFC 9530, whether an upstream is worth asking
"""
