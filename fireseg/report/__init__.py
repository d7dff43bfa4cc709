"""Compares runs side by side: a leaderboard as a page, a table and a CSV file."""
