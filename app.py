"""Dreamspace in a browser: `python app.py [--host H] [--port P] [--workspace DIR]`."""

import argparse
import os
import sys
from pathlib import Path

from dreamspace.ui.server import serve


def main(arguments: list[str] | None = None) -> int:
    """Serve the app; returns the exit status: 0 when it is interrupted, 2 for what the caller can mend."""
    parser = argparse.ArgumentParser(
        prog="python app.py", description="Dreamspace: teach a model your own subject."
    )
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="address to listen on; 0.0.0.0 lets other machines in (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument(
        "--workspace",
        type=Path,
        help="folder for photos and runs (default: DREAMSPACE_HOME, else ./workspace)",
    )
    options = parser.parse_args(arguments)
    try:
        serve(options.host, options.port, options.workspace)
    except ValueError as error:
        print(f"dreamspace: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
