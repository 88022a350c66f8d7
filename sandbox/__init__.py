"""The three vendor APIs on loopback: made-up data that behaves like the real thing, mutations, and faults.

`World` holds the data and is what tests drive; `create_app` serves it; `SandboxServer` puts it on a port.
`python -m sandbox` does the same from a shell. Nothing here knows who reads these APIs.
"""
