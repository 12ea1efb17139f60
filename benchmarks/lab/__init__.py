"""The evidence: programs and peers behind the published figures, and their results. Not packaged.

It may use every floor; nothing outside this folder imports from it.
"""
