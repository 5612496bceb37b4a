"""The inspector: foreign files are read in throw-away processes under limits, never in the supervisor.

`intake` takes in a file's bytes without trusting the file system entry; `inspector` asks a fork server (`main`), which
makes one confined child for each question (`child`, `operations`); `judge` makes verdicts of what was said and
`verdicts` remembers them by content. Used by the library and by the service's questions about single files.
"""
