"""What apps ask, and the answer to it: the same from every lane.

routes        which path is what
query         the query parameters, checked
negotiate     formats and codings by Accept and Accept-Encoding
respond       how an answer is made: fields, tag, coding, 304, errors
render        a record's bytes in a format, remembered; shape: views and fields
lists         batches, pages, indexes, search
changes       what changed since a version, and event streams; large: what is made while it is read
dictionary    answers compressed with their collection's own dictionary
openapi       the description at /openapi.json
"""
