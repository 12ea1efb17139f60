"""What each verb plans and what it takes on models of any size: cases, records, pages and plots."""
