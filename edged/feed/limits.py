"""Hard limits of the feed formats, checked before anything is allocated or decoded. All sizes in bytes."""

HEAD_BYTES = 1 << 20  # a signed head with its inlined hops
PATCHED_BYTES = 64 << 10  # a head that goes out, or comes, as what differs from another
TRUST_BYTES = 64 << 10  # one root of trust with all its signatures
CHAIN_BYTES = 2 << 20  # the decompressed chain document; takedowns likewise
PAGE_BYTES = 256 << 10  # one page of the chain, decompressed
BLOB_BYTES = 64 << 20  # any one blob as it travels
PART_BYTES = 16 << 20  # one snapshot part, decoded; publishers put 3 MiB into one, or one record
HOP_BYTES = 256 << 20  # one hop, decoded; beyond that a snapshot is cheaper
DICTIONARY_BYTES = 128 << 10
ITEMS = 96 << 10  # in one CBOR document or one value: in memory each takes up to 80 bytes more than as it travels
INLINE_HOP_BYTES = 16 << 10  # the largest hop that a publisher puts into the head
KEY_BYTES = 512  # a record's key in UTF-8
NAME_CHARACTERS = 64  # dataset, collection and slice names
VALUE_BYTES = 4 << 20  # one record's value
DEPTH = 64  # nesting of a record's value
SLICES = 4096  # in one dataset
ROOT_KEYS = 64  # keys or signatures in one root of trust
WINDOW_BYTES = 32 << 20  # the zstd window a decoder accepts
SPREAD_S = 24 * 3600  # within which all devices have taken a version
FUTURE_S = 24 * 3600  # how far ahead of our time a signed time may lie before the head is refused
