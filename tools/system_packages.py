"""Install the Debian packages that integration tests drive, where that is possible; say what is missing where it is not.

python tools/system_packages.py integration/packages.txt              all
python tools/system_packages.py integration/packages.txt etcd-server  those that are named
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def installed(package: str) -> bool:
    """Say whether dpkg knows the package as installed."""
    query = ["dpkg-query", "-W", "-f=${Status}", package]
    answer = subprocess.run(query, capture_output=True, text=True)
    return answer.stdout.endswith("ok installed")


def main() -> int:
    """Install what is missing as root on Debian, else only report; never fails, since tests then skip by name."""
    lines = Path(sys.argv[1]).read_text().splitlines()
    listed = [word for line in lines if (word := line.partition("#")[0].strip())]
    wanted = [word for word in listed if word in sys.argv[2:] or not sys.argv[2:]]
    if not shutil.which("dpkg-query"):
        print(f"not a Debian system: tests that need {', '.join(wanted)} may be skipped")
        return 0
    missing = [package for package in wanted if not installed(package)]
    if not missing:
        return 0
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"not root: tests that need {', '.join(missing)} are skipped")
        return 0
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "-qq", "update"], env=quiet)
    command = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *missing]
    if subprocess.run(command, env=quiet, stdout=subprocess.DEVNULL).returncode:
        for package in missing:  # one that is gone must not keep the others away
            subprocess.run([*command[:5], package], env=quiet, stdout=subprocess.DEVNULL)
    still = [package for package in missing if not installed(package)]
    if still:
        print(f"could not install {', '.join(still)}: their tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
