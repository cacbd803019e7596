"""What is deleted when, by a table, with a record of every deletion."""
