# ruff: noqa: N999  the command is called so
"""`warp import`: copy objects from another S3 endpoint, with versions, metadata and locks."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from warp_core.errors import InvalidArgument, PluginError, WarpError

from warp_cli.asking import ask_running
from warp_cli.credentials import credentials
from warp_cli.failing import reported
from warp_cli.importing.progress import Counts
from warp_cli.output import as_json, say
from warp_cli.progress import human, shown
from warp_cli.settings import data_of
from warp_cli.typing import ConfigOption, DataOption, JsonOption, single

SCHEME = "s3://"
CONNECT_S = 10
TRIES = 5  # of a request to the source, with growing pauses: it may be slow, or far away

app = single()


@app.command(name="import")
def import_(
    source: Annotated[str, typer.Argument(help="s3://BUCKET or s3://BUCKET/PREFIX.")],
    target: Annotated[str, typer.Argument(metavar="VOLUME[/PREFIX]", help="Where it goes.")],
    endpoint: Annotated[
        str, typer.Option("--endpoint", help="URL of the source. Default: AWS.")
    ] = "",
    profile: Annotated[
        str, typer.Option("--profile", help="Of AWS's configuration files, for the source.")
    ] = "",
    region: Annotated[str, typer.Option("--region", help="Of the source.")] = "",
    no_sign: Annotated[
        bool, typer.Option("--no-sign", help="The source is open to everybody.")
    ] = False,
    current: Annotated[
        bool, typer.Option("--current", help="Current objects alone, without their versions.")
    ] = False,
    acl: Annotated[bool, typer.Option("--acl", help="ACLs as well.")] = False,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings", help="What the bucket says: tags, CORS, lifecycle, website, lock, policy."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write also where something else is.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Objects at once.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Compare from the first key on, not from where it was.")
    ] = False,
    to: Annotated[
        str,
        typer.Option("--to", help="URL of the target. Default: the node on the data directory."),
    ] = "",
    config: ConfigOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> int:
    """Copy what a bucket of another S3 endpoint has and a volume lacks.

    Versions come in their order with their times, delete markers, metadata, tags and locks; multipart objects in the parts that they
    had, so that ETags stay. Content is checked against the source's checksums. Interrupted or killed, it goes on when it is started
    again; run later, it brings what is new.

    The source's credentials are those of AWS's tools (AWS_ACCESS_KEY_ID, profiles); the target's are WARP_ACCESS_KEY and
    WARP_SECRET_KEY, or the data directory's root.key.
    """

    def work() -> int:
        from warp_cli.importing.run import Ends, Plan, Result, run

        bucket, prefix = _bucket(source)
        volume, _, into = target.partition("/")
        if not volume:
            raise InvalidArgument(f'"{target}" names no volume')
        boto = _boto3()
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
        from warp_core.s3 import Endpoint

        url = to or ask_running(config, data, "status")["endpoints"].get("s3", "")
        if not url:
            raise InvalidArgument("the running node serves no S3: name a target with --to")
        access, secret = credentials(config, data)
        place = Endpoint.parse(url, access, secret)
        style: dict[str, Any] = {"addressing_style": "path"}
        usual = {
            "connect_timeout": CONNECT_S,
            "retries": {"max_attempts": TRIES, "mode": "standard"},
            "max_pool_connections": 2 * jobs + 2,
            "response_checksum_validation": "when_required",
        }

        def there() -> Any:
            session = boto.Session(profile_name=profile or None, region_name=region or None)
            signing = {"signature_version": UNSIGNED} if no_sign else {}
            options = Config(**usual, **signing, **({"s3": style} if endpoint else {}))
            where = session.region_name or "us-east-1"
            return session.client(
                "s3", endpoint_url=endpoint or None, region_name=where, config=options
            )

        def here() -> Any:
            return boto.Session().client(
                "s3",
                endpoint_url=url,
                aws_access_key_id=access,
                aws_secret_access_key=secret,
                region_name="us-east-1",
                config=Config(**usual, s3=style),
            )

        plan = Plan(
            bucket=bucket,
            prefix=prefix,
            volume=volume,
            into=into,
            history=not current,
            acl=acl,
            settings=settings,
            overwrite=overwrite,
            jobs=jobs,
            dry_run=dry_run,
            again=again,
        )
        folder = data_of(config, data)
        with shown("importing:", quiet=json) as progress:

            def tell(counts: Counts) -> None:
                progress(
                    {
                        "keys": counts.keys,
                        "versions": counts.versions + counts.markers,
                        "bytes": counts.bytes,
                        "there already": counts.present,
                        "problems": counts.problems,
                    }
                )

            try:
                ends = Ends(there, here, place)
                kept = folder if folder.is_dir() else None
                result: Result = asyncio.run(run(plan, ends, kept, tell))
            except* WarpError as group:
                raise _first(group) from None
            except* (BotoCoreError, ClientError) as group:
                raise InvalidArgument(f"the source: {_first(group)}") from None
        if json:
            as_json(result)
        else:
            _show(result)
        return int(bool(result.counts.problems))

    return reported(work, json=json)


def _bucket(source: str) -> tuple[str, str]:
    bucket, _, prefix = source.removeprefix(SCHEME).partition("/")
    if not source.startswith(SCHEME) or not bucket:
        raise InvalidArgument(f'"{source}" is no source; allowed: s3://BUCKET, s3://BUCKET/PREFIX')
    return bucket, prefix


def _boto3() -> Any:
    try:
        import boto3
    except ImportError as error:
        raise PluginError(
            'warp import needs boto3: pip install "warp[import]", or boto3 itself'
        ) from error
    return boto3


def _first(group: BaseExceptionGroup[Any]) -> Exception:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, Exception)
    return error


def _show(result: Any) -> None:
    counts = result.counts
    verb = "would be carried" if result.dry_run else "carried"
    say(
        f"{counts.versions:,} versions ({human('bytes', counts.bytes)}) and {counts.markers:,} delete "
        f"markers {verb}, {counts.present:,} were there, of {counts.keys:,} keys"
    )
    if counts.versions and not result.ids:
        say("versions have new ids here")
    for note, count in sorted(counts.notes.items()):
        say(f"{count:,} without what they had: {note}")
    for name, told in result.settings.items():
        say(f"{name}: {told}")
    for problem in result.problems[:20]:
        say(f"not carried: {problem.key} {problem.version}: {problem.reason}")
    if counts.problems > 20:
        say(f"and {counts.problems - 20:,} more: --json lists them")
