"""`warp conformance`: run the kits that fit a plugin, and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from warp_core.errors import PluginError

from warp_cli.failing import FAILURE, reported
from warp_cli.output import say
from warp_cli.typing import JsonOption, UnusedConfig, UnusedData, single

if TYPE_CHECKING:
    from warp_conformance.report import Report

app = single()

DETAIL_LINES = 40  # of a failure: two mistakes that one property test found; --json has all of it


@app.command()
def conformance(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="NAME or KIND/NAME.")],
    junit: Annotated[
        Path | None, typer.Option("--junit", help="Also write a JUnit XML file.")
    ] = None,
    keyword: Annotated[str, typer.Option("-k", help="Only tests that match, as for pytest.")] = "",
    config: UnusedConfig = None,
    data: UnusedData = None,
    json: JsonOption = False,
) -> int:
    """Run the kits that fit the named installed plugins, and say what passed."""

    def run() -> int:
        try:
            from warp_conformance.report import check
        except ModuleNotFoundError:
            raise PluginError(
                "the kits are not installed: `pip install warp-conformance` brings them"
            ) from None
        import contextlib
        import io

        from warp_cli.progress import shown

        done = 0
        with shown("running kits", quiet=json) as progress:

            def tell(result: object) -> None:
                nonlocal done
                done += 1
                progress({"tests": done})

            with contextlib.redirect_stdout(io.StringIO()):
                report = check(names, junit=junit, keyword=keyword, on_result=tell)
        if json:
            print(report.to_json().decode())
        else:
            _show(report, keyword)
        return 0 if report.passed else FAILURE

    return reported(run, json=json)


def _show(report: Report, keyword: str) -> None:
    for result in report.failures:
        say(f"[red]failed[/] {result.kit}.{result.test}")
        print("\n".join(f"    {line}" for line in result.detail.splitlines()[-DETAIL_LINES:]))
    if keyword and not report.results:
        say(f"[red]no test matches -k {keyword}[/]")
    elif report.error:
        say(f"[red]{report.error}[/]")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts().items())
    verdict = "[green]conforms[/]" if report.passed else "[red]does not conform[/]"
    say(f"{', '.join(report.plugins)}: {verdict} ({counts or 'nothing ran'})")
