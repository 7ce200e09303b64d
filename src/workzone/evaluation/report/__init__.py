"""What people read: the report, its plots and pages, and the same figures on a terminal."""
