"""What a study is, and how its rows are made, measured, timed and written down.

May be imported by the programs and the peers of the lab; it imports neither.
"""
