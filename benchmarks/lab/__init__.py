"""The evidence: studies and programs behind the published figures, peers, and their results. Not packaged.

A study is a YAML of rows in studies/; run_study.py makes, measures and times them and writes their page.
The lab may use every floor; nothing outside this folder imports from it.
"""
