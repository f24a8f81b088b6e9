"""What the notebooks leave behind: figures, numbers, executed copies, one HTML page.

python -m utils.report run [--profile demo]        run the course, build report.html
python -m utils.report html [--profile demo]       only build report.html again
python -m utils.report notebooks [--profile demo]  run, then keep the outputs in notebooks/
python -m utils.report address name/project        write the public address into everything
--only 05_gradcam 06_lrp: run these notebooks and no other, even if they are finished
"""

from __future__ import annotations

import argparse
import sys

from .. import env
from . import address
from .course import executed, publish, run_course, settled
from .page import build_html


def main(arguments: list[str] | None = None) -> None:
    """The command line; see the module's first lines. Errors end it with one sentence."""
    parser = argparse.ArgumentParser(
        prog="python -m utils.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("task", choices=["run", "html", "notebooks", "address"])
    parser.add_argument("repo", nargs="?", default="", help="for address: name/project, or nothing")
    parser.add_argument("--profile", help="smoke, demo, paper or full (default: XTL_PROFILE)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NOTEBOOK")
    options = parser.parse_args(arguments)
    try:
        if options.task == "address":
            changed = address.write(options.repo)
            print(f"{len(changed)} files changed.")
        else:
            _run(options.task, options.profile, options.only)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt as stop:
        print(f"\n{stop or 'Stopped. The same command goes on from there.'}", file=sys.stderr)
        sys.exit(130)


def _run(task: str, name: str | None, only: list[str]) -> None:
    if task == "notebooks":
        publish(env.profile(name).name, only=only)
    elif task == "run":
        run_course(name, only=only)
    with settled(name) as (profile, _):
        report = executed(profile) / "15_report.ipynb"
        if only and not report.exists():
            return
        if not report.exists():
            raise FileNotFoundError(
                f"There is no executed 15_report for the profile {profile.name}: "
                f"run `make report PROFILE={profile.name}`."
            )
        page = build_html(report, profile.figures / "report.html")
    print(
        f"The report is figures/{page.parent.name}/{page.name} "
        f"({page.stat().st_size / 1e6:.1f} MB): open it in a browser."
    )


if __name__ == "__main__":
    main()
