"""Where the public files of a feed lie.

shelf        what every place has to do, one dataset's and the whole feed's
directory    FEED_DIR/public
opening      which of them feed.toml names
s3           a bucket of an object store;  objectstore: requests to it;  sigv4: how they are signed
blobstore    the blobs of one operation on a shelf, noted in the publisher's state
"""
