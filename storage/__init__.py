"""What is remembered: tables, queries and the one place that commits."""
