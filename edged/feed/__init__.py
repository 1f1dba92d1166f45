"""What travels between an origin and a replica. No I/O, no clock, no chance: bytes and times come in as arguments.

head          the signed document that names the live version
chain         the blob that lists snapshots, hops, dictionaries and the schema; its pages
plan          the cheapest way from what a device holds to a version
coding/       hops and snapshots: records to few bytes and back
trust/        signatures and roots of trust
digest        the sum that a slice's content has to have
bundle        a head and its blobs in one file
schema        indexes and views, as devices are told of them;  takedowns: what must not be shown
rollout       which devices take an offered version
ahead/        what goes out before its version is live
blob  names  fieldpath  cbor  zstd  limits      what all of them are made of
"""
