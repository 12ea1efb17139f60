"""Budgets in, the best artifact out: candidates for each part of a model, an exact choice under all budgets
at once, trials that are built, proven and measured, and predictions corrected until the budgets hold as
measured.
"""
