"""What service and clients say to each other: states, requests, replies, events, error codes.

Imported by both sides; no torch, no server, no screen. Clients ignore fields and events they do not know.
"""
