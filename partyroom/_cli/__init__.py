"""What a person types: ``python -m partyroom``, one module for each verb.

Owns the command line: its verbs, what they print, and their exit codes.

Promises that looking never changes anything, that what changes something says so before and after, and that whatever
goes wrong is one line on the error stream and an exit code, never a traceback.

Must never be imported by the library itself.
"""
