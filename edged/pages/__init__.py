"""The pages for people: what stands in files/, and how it is served.

page    a page, or a file of one, as an answer
files/  hand-written HTML, CSS and JavaScript
"""
