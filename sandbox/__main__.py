"""`python -m sandbox`: serve the three APIs until interrupted."""

from __future__ import annotations

import argparse

from sandbox.server import serve


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="sandbox", description="Three vendor APIs on loopback, with made-up data.")
    parser.add_argument("--port", type=int, default=8765, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="same seed, same data (default: %(default)s)")
    parser.add_argument("--recordings", type=int, default=500, help="Screendesk recordings (default: %(default)s)")
    parser.add_argument("--users", type=int, default=25, help="Screendesk users (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=300, help="Getscreen connections (default: %(default)s)")
    parser.add_argument("--meetings", type=int, default=60, help="PostHog desktop recordings (default: %(default)s)")
    options = parser.parse_args()
    serve(options.port, options.seed, options.recordings, options.users, options.connections, options.meetings)


if __name__ == "__main__":
    main()
