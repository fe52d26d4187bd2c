"""What is said because of the date."""
