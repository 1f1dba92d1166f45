"""Who signed what, and whether to believe it.

cose          COSE_Sign1 and COSE_Sign with Ed25519 (RFC 9052)
root          roots of trust and heads: where bytes from strangers become trusted values
succession    the roots that a device has come to know, from its trust file on
"""
