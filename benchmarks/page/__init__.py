"""From measurement lines to what people read: tables in the terminal, the report page, its drawings.

Import ``compare``, ``report.write_report`` and ``join``. Nothing here measures.
"""
