"""One verb a file, each with ``command``; imported only when the verb runs.

A verb parses options, calls one public function of a floor and prints; no work is done here.
"""
