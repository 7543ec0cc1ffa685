"""Every command, by name; `warp --help` shows this table."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command: the group it is shown in, and what it does in a few words."""

    group: str
    summary: str


COMMANDS = {
    "serve": Command("Run", "run the node in the foreground"),
    "init": Command("Run", "write a commented warp.toml and the root access key"),
    "config": Command("Run", "check the configuration, or show the effective settings"),
    "plugin": Command("Run", "list what is installed, explain one, or begin a new one"),
    "volume": Command("Manage", "make, show, change, snapshot and remove volumes"),
    "snapshot": Command("Manage", "list, compare and hold snapshots; policies that make them"),
    "quota": Command("Manage", "limit what volumes and accounts may hold"),
    "disk": Command("Manage", "make, show, resize, copy and remove disks"),
    "mount": Command("Manage", "make a directory of a volume, also of another machine's node"),
    "unmount": Command("Manage", "take such a directory away"),
    "account": Command("Manage", "make, list, change and remove accounts, set passwords and keys"),
    "node": Command("Manage", "begin a cluster, let nodes in, join one, see who is there"),
    "key": Command("Manage", "make, list and revoke access keys"),
    "admin": Command("Manage", "make, list and revoke tokens for the admin API"),
    "import": Command("Manage", "copy objects and versions from another S3 endpoint"),
    "kms": Command("Manage", "make, list, rotate and disable keys for encrypted contents"),
    "events": Command("Look after", "show which bucket's events go where, and what waits"),
    "audit": Command("Look after", "show who changed what, and check that the record is whole"),
    "status": Command("Look after", "show the health of the running node"),
    "top": Command("Look after", "watch requests, latencies and stores live"),
    "doctor": Command("Look after", "check host and data, and say what to fix"),
    "scrub": Command("Look after", "look for what is missing or damaged"),
    "heal": Command("Look after", "write missing and damaged copies anew"),
    "fsck": Command("Look after", "check that every name leads to content that is there"),
    "bench": Command("Measure", "put load on an S3 endpoint, and print a table"),
    "conformance": Command("Measure", "run the kits that fit a plugin, and report"),
    "simulate": Command("Measure", "run nodes in virtual time, with faults drawn from a seed"),
}

EXAMPLES: dict[str, tuple[str, ...]] = {
    "serve": (
        "warp serve",
        "warp serve --data /srv/warp --set protocols.s3.listen=127.0.0.1:9001",
    ),
    "init": ("warp init --data /srv/warp",),
    "config check": ("warp config check", "warp config check --config /etc/warp.toml"),
    "config show": ("warp config show", "warp config show --set log.level=debug"),
    "plugin list": ("warp plugin list",),
    "plugin info": ("warp plugin info zstd", "warp plugin info stores/memory"),
    "plugin new": ("warp plugin new codecs/lz4", "warp plugin new codecs/parity --shape striper"),
    "volume create": (
        "warp volume create photos",
        "warp volume create logs filters=zstd:3 versioning=on --owner ada",
    ),
    "volume list": ("warp volume list",),
    "volume show": ("warp volume show photos",),
    "volume set": ("warp volume set photos versioning=on", "warp volume set photos filters="),
    "volume snapshot": ("warp volume snapshot photos monday",),
    "volume rollback": ("warp volume rollback photos@monday",),
    "volume prune": (
        "warp volume prune photos --older-than 30d --keep 3",
        "warp volume prune photos --keep 7 --matching 'daily-*' --dry-run",
    ),
    "volume clone": ("warp volume clone photos@monday try", "warp volume clone photos copy"),
    "volume delete": ("warp volume delete logs",),
    "snapshot list": ("warp snapshot list photos",),
    "snapshot diff": ("warp snapshot diff photos monday",),
    "snapshot hold": (
        "warp snapshot hold photos@monday",
        "warp snapshot hold photos@monday --word backup",
    ),
    "snapshot release": ("warp snapshot release photos@monday",),
    "snapshot policy set": (
        "warp snapshot policy set photos --hourly 24 --daily 7 --weekly 4 --monthly 12",
    ),
    "snapshot policy show": ("warp snapshot policy show", "warp snapshot policy show photos"),
    "snapshot policy remove": ("warp snapshot policy remove photos",),
    "quota set": (
        "warp quota set photos --bytes 100GiB --soft-bytes 80GiB --grace 7d",
        "warp quota set --account ada --objects 1000000",
        "warp quota set photos --user 1000 --bytes 10GiB",
    ),
    "quota show": ("warp quota show", "warp quota show photos", "warp quota show --account ada"),
    "quota clear": ("warp quota clear photos", "warp quota clear --account ada"),
    "disk create": ("warp disk create photos/vms/one --size 10G",),
    "disk list": ("warp disk list", "warp disk list photos"),
    "disk show": ("warp disk show photos/vms/one",),
    "disk resize": ("warp disk resize photos/vms/one --size 12G",),
    "disk snapshot": ("warp disk snapshot photos/vms/one fresh",),
    "disk diff": ("warp disk diff photos/vms/one@fresh",),
    "disk clone": ("warp disk clone photos/vms/one@fresh photos/vms/two",),
    "disk delete": ("warp disk delete photos/vms/one@fresh", "warp disk delete photos/vms/two"),
    "mount at": ("warp mount photos /mnt/photos", "warp mount warp://10.0.0.1:7410/photos /mnt/p"),
    "mount list": ("warp mount list",),
    "mount token": ("warp mount token photos", "warp mount token photos --read-only --hours 24"),
    "mount clients": ("warp mount clients",),
    "mount revoke": ("warp mount revoke mount-0123456789abcdef",),
    "unmount": ("warp unmount /mnt/photos",),
    "account create": (
        "warp account create ada",
        "warp account create grace --display 'Grace Hopper' --email grace@example.com",
    ),
    "account list": ("warp account list",),
    "account show": ("warp account show ada",),
    "account set": ("warp account set ada --email ada@example.org",),
    "account delete": ("warp account delete grace",),
    "account password": (
        "warp account password ada",
        "warp account password ada --password-env ADAS_PASSWORD",
    ),
    "account ssh-key add": ("warp account ssh-key add ada ~/.ssh/id_ed25519.pub",),
    "account ssh-key list": ("warp account ssh-key list ada",),
    "account ssh-key remove": ("warp account ssh-key remove ada ada@laptop",),
    "node found": ("warp node found --name a --listen 10.0.0.1 --config a.toml --data /srv/a",),
    "node token": ("warp node token", "warp node token --hours 24"),
    "node join": (
        "warp node join TOKEN --name b --listen 10.0.0.2 --config b.toml --data /srv/b",
        "warp node join TOKEN --name w --listen 10.0.0.3 --config w.toml --data /srv/w --witness",
    ),
    "node list": ("warp node list",),
    "node remove": ("warp node remove b",),
    "node take": ("warp node take a", "warp node take 0 --to b"),
    "import": (
        "warp import s3://photos photos --endpoint http://minio:9000",
        "warp import s3://logs/2026/ archive/logs/ --profile old --dry-run",
    ),
    "key create": ("warp key create ada", "warp key create --account ada"),
    "key list": ("warp key list",),
    "key revoke": ("warp key revoke WARPXXXXXXXXXXXXXXXX",),
    "kms master": ("warp kms master /etc/warp/master.key",),
    "kms list": ("warp kms list",),
    "kms create": ("warp kms create payroll",),
    "kms rotate": ("warp kms rotate payroll", "warp kms rotate"),
    "kms disable": ("warp kms disable payroll",),
    "kms enable": ("warp kms enable payroll",),
    "admin token create": (
        "warp admin token create grafana",
        "warp admin token create deploy --role operator --expires 7d",
    ),
    "admin token list": ("warp admin token list",),
    "admin token revoke": ("warp admin token revoke abcdefgh",),
    "audit list": (
        "warp audit list",
        "warp audit list --what volume. --since 7d --result refused",
    ),
    "audit verify": ("warp audit verify",),
    "events status": ("warp events status", "warp events status --json"),
    "status": ("warp status", "warp status --data /srv/warp --json"),
    "top": ("warp top", "warp top -n 3 --json"),
    "doctor": ("warp doctor",),
    "scrub": ("warp scrub", "warp scrub --deep --rate 50MiB"),
    "heal": ("warp heal",),
    "fsck": ("warp fsck", "warp fsck --deep", "warp fsck --salvage --repair"),
    "bench": (
        "warp bench",
        "warp bench --size 4KiB --size 8MiB --seconds 10 --operations put,get",
    ),
    "simulate": ("warp simulate --seed 7", "warp simulate one-node --seeds 3"),
    "conformance": ("warp conformance zstd", "warp conformance stores/memory --junit kits.xml"),
}
"""Examples of each command, which its help shows and a test runs."""


def overview() -> str:
    """Return the text of `warp --help`."""
    width = max(map(len, COMMANDS))
    lines = [
        "Usage: warp COMMAND [OPTIONS]",
        "",
        "One namespace served as S3 objects, files and disks.",
    ]
    groups = dict.fromkeys(command.group for command in COMMANDS.values())
    for group in groups:
        lines += ["", f"{group}:"]
        lines += [
            f"  {name:<{width}}  {command.summary}"
            for name, command in COMMANDS.items()
            if command.group == group
        ]
    lines += [
        "",
        'Begin with "warp serve"; "warp COMMAND --help" explains one, with examples.',
        "Every command takes --config and --data (or WARP_CONFIG, WARP_DATA) and --json.",
    ]
    return "\n".join(lines)
