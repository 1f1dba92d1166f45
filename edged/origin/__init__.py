"""Publishes: reads the input, finds the difference, validates, slices, writes blobs, swaps the head.

    publisher   the operations: init, publish, rollback, takedown, restore, rotate-key
    reading     input lines to records;  incoming   what of them differs from the state
    rules       `<dataset>.toml`;  slicing, validate   what it says of a record
    edition     makes the next version;  applying   changes into the state, digests along
    hops, snapshots   what devices fetch;  release   the chain, the signed head, the swap
    state       the publisher's database of one dataset;  blobstore, files   durable writing
    retention   what may be deleted and when;  history   `origin log`
    keys, roots   secrets and roots of trust;  locks   one publisher at a time
    serve       FEED_DIR/public over HTTP, by feedapp and heads
    catalogue   a made-up catalogue for demonstration, tests and benchmarks

The head is the commit record. A version is prepared in the database and in blobs that nothing names yet, then
`public/<dataset>/head` is renamed into place; what was prepared and never named is undone when the dataset is opened.
"""
