"""Latency, throughput, memory, energy and operators of a bundle on this machine.

Import ``profile.profile_bundle``; the rest is how it is measured.
"""
