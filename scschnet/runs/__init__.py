"""What a run folder is: its options, tables and files, and a finished run read from it."""
