"""`edged demo`: a made-up catalogue, edits to it without end, and an origin and a device that show them."""
