"""`warp simulate`: run whole nodes in virtual time, with faults drawn from a seed, and judge what clients saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from warp_core.errors import PluginError

from warp_cli.failing import FAILURE, reported
from warp_cli.output import as_json, say, table
from warp_cli.typing import JsonOption, UnusedConfig, UnusedData, single

if TYPE_CHECKING:
    from collections.abc import Sequence

    from warp_conformance.simulation import Report

app = single()


@app.command()
def simulate(
    scenarios: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]...", help="By name, or a TOML file. Default: all."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 1,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds.")] = 1,
    trace: Annotated[bool, typer.Option("--trace", help="Print every event.")] = False,
    names: Annotated[bool, typer.Option("--list", help="Print the scenarios there are.")] = False,
    config: UnusedConfig = None,
    data: UnusedData = None,
    json: JsonOption = False,
) -> int:
    """Run nodes on simulated disks, links and clocks. A seed decides everything: the same one prints the same digest."""

    def run() -> int:
        try:
            from warp_conformance import simulation
        except ModuleNotFoundError:
            raise PluginError(
                "the simulation is not installed: `pip install warp-conformance` brings it"
            ) from None
        chosen = scenarios or list(simulation.names())
        loaded = [(name, simulation.load(name)) for name in chosen]
        if names:
            _list(loaded, json)
            return 0
        from warp_cli.progress import shown

        reports: list[Report] = []
        with shown("simulating", quiet=json or trace) as progress:
            for name, scenario in loaded:
                for each in range(seed, seed + seeds):
                    report = simulation.simulate(
                        name, scenario, each, watch=print if trace and not json else None
                    )
                    reports.append(report)
                    progress({"seeds": len(reports), "scenario": name})
                    if not json and (seeds == 1 or not report.passed):
                        _show(report)
        if json:
            as_json([{**_fields(report), "passed": report.passed} for report in reports])
        else:
            _sum_up(reports)
        return 0 if all(report.passed for report in reports) else FAILURE

    return reported(run, json=json)


def _fields(report: Report) -> dict[str, object]:
    return {field: getattr(report, field) for field in report.__struct_fields__}


def _list(loaded: Sequence[tuple[str, object]], json: bool) -> None:
    rows = [(name, str(getattr(scenario, "about", ""))) for name, scenario in loaded]
    if json:
        as_json([{"scenario": name, "about": about} for name, about in rows])
    else:
        table(["scenario", "about"], rows)


def _show(report: Report) -> None:
    say(
        f"{report.scenario} seed {report.seed}: {'[green]ok[/]' if report.passed else '[red]failed[/]'},"
        f" digest {report.digest}, {report.events:,} events in {report.virtual_s:.3f} s of virtual time"
    )
    for problem in report.problems:
        print(f"  {problem}")
    if report.problems:
        print(f"  replay with: warp simulate {report.scenario} --seed {report.seed} --trace")


def _sum_up(reports: Sequence[Report]) -> None:
    failed = [report for report in reports if not report.passed]
    took_s = sum(report.took_s for report in reports)
    say(
        f"{len(reports)} runs, {len(failed)} failed, {took_s / len(reports):.2f} s of processor time each"
    )
