"""Floor: accuracy, latency, memory and energy are measured, recorded, compared and reported.

Rooms: ``records`` below ``speed`` and ``quality``, then ``page``, then ``demo``. ``lab`` holds the evidence
for published figures; it is not packaged, and nothing outside it may import it.
"""
