"""What a measurement is: the JSON line, its subject, metrics, intervals, environment.

Every other room imports from here; this one imports from no other.
"""
