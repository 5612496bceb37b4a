"""The inspector: foreign files are read in a throw-away process under limits, never in the supervisor.

`intake` reads a file's bytes without trusting the file system entry, `judge` has a process of its own (`main`) look
at them, `verdicts` remembers what it said by content. Called by the library.
"""
