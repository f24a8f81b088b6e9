"""python -m utils.explorer: the panel alone, as a page on this machine; Ctrl-C stops it."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PORT = 8866
LIMIT_MB = 256  # of one upload, as in the template; servers themselves allow only 10 MB
CELL = f"from {__package__.partition('.')[0]}.app import serve\npage = serve()"


def free_port(first: int = PORT) -> int:
    """The first free port from `first` on."""
    for port in range(first, first + 50):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise SystemExit(f"No port from {first} to {first + 49} is free: give another with --port.")


def serve(port: int, browser: bool, notebook: Path) -> None:
    """Serve the notebook until Ctrl-C."""
    from voila.app import Voila

    class App(Voila):
        def setup_template_dirs(self) -> None:
            super().setup_template_dirs()
            self.template_paths.insert(0, str(HERE / "template"))

    app = App()
    arguments = [str(notebook), f"--port={port}", "--Voila.ip=127.0.0.1", "--Voila.log_level=ERROR"]
    app.initialize(arguments if browser else [*arguments, "--no-browser"])
    app.tornado_settings = {"websocket_max_message_size": LIMIT_MB * 10**6 + 2**20}
    print(f"The explorer is at http://127.0.0.1:{port}/ (Ctrl-C stops it).", flush=True)
    app.start()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m utils.explorer", description=__doc__)
    parser.add_argument("--port", type=int, help=f"by default the first free one from {PORT} on")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    options = parser.parse_args(arguments)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([before] if before else [])])
    try:
        with tempfile.TemporaryDirectory(prefix="explorer-") as folder:
            import nbformat

            notebook = Path(folder) / "Explorer.ipynb"
            cells = [nbformat.v4.new_code_cell(CELL)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
            serve(options.port or free_port(), not options.no_browser, notebook)
    except KeyboardInterrupt:
        pass
    print("\nThe explorer has stopped; `make app` starts it again.")


if __name__ == "__main__":
    main(sys.argv[1:])
