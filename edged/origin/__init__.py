"""Publishes: reads the input, finds the difference, validates, slices, writes blobs, swaps the head.

    publisher   the operations: init, publish, rollback, rollout, takedown, restore, rotate-key
    input/      reading: lines to records;  comparing: what of them differs from the state
    declared/   rules: `<dataset>.toml`;  slicing, validate: what it says of a record
    takedowns   what hides a record, its hold over rollbacks, what leaves the host with it
    edition     makes the next version;  applying: changes into the state, digests along;  results: its figures
    blobs/      hops, snapshots, dictionaries, pages: what devices fetch;  renewal: of what is spoilt
    shelves/    where it lies
    verify      whether what heads lead to is there;  rebuild: a lost state from what is public
    rotation    in which order roots of trust and heads go public
    release     the chain, the signed head, the swap that makes it live;  announcing: it to a broker
    upkeep      skip hops and snapshots, made once the version is live;  ahead/: a version sealed before it is live
    state       the publisher's database of one dataset
    retention   what may be deleted and when;  history: `origin log`;  fleet: access logs
    signing/    keys, roots: secrets and roots of trust
    serving/    FEED_DIR/public over HTTP, heads kept fresh

The head is the commit record. A version is prepared in the database and in blobs that nothing names yet, then
`public/<dataset>/head` is renamed into place; what was prepared and never named is undone when the dataset is opened.
"""
