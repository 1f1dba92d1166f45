"""What lies on disk: immutable packs, a manifest swapped by rename, readers without locks, one writer.

    packs      the bytes of one pack: laid out, built, probed; frames of values   (no I/O)
    indexes    of one pack: terms and words of what records hold
    files      of one dataset: directory and lock, manifest, schema and takedowns, the newer head
    layers     packs over packs: finding a record, conditions, search
    finds      what a view gives
    view       one version, whole and unchanging;  part   some slices of it;  loading   from the files to it
    reader     the embedded API, which follows new versions;  watches   what tells it of them
    recordtypes   TypeScript and JSON Schema of what records hold
    writing    live (what is on disk now, and the swap), staging, merging, mending;  writer   their face
    audit      every byte against its checksum, every slice against the signed head

Folders lie in that order, each on those before it. The format is docs/replica.md.
"""
