"""Where the public files of a feed lie.

shelf        what every place has to do, one dataset's and the whole feed's
directory    FEED_DIR/public
blobstore    the blobs of one operation on a shelf, noted in the publisher's state
"""
