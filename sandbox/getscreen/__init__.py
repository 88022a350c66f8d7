"""Getscreen.me HTTP API v1: connection history and open invitations, by offset and limit."""
