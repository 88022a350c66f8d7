"""Screendesk API v2: recordings, live calls and users, by page number."""
