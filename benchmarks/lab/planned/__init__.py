"""What each verb plans and takes on models of any size, here and on a server GPU: cases, records, pages."""
