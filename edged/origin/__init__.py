"""Publishes: reads the input, finds the difference, validates, slices, writes blobs, swaps the head.

    publisher   the operations: init, publish, rollback, takedown, restore, rotate-key, log
    reading     input lines to records;  incoming   what of them differs from the state
    rules       `<dataset>.toml`;  slicing, validate   what it says of a record
    state       the publisher's database of one dataset;  applying   changes into it, digests along
    hops, snapshots, release   what devices fetch: blobs, the chain, the signed head
    retention   what may be deleted and when;  history   `origin log`
    keys, roots, files, locks   secrets, roots of trust, durable writing, one publisher at a time
    station     serves FEED_DIR/public over HTTP

The head is the commit record. A version is prepared in the database and in blobs that nothing names yet, then
`public/<dataset>/head` is renamed into place; what was prepared and never named is undone when the dataset is opened.
"""
