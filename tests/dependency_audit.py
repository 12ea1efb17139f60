"""The installed packages held against known vulnerabilities, by pip-audit (``make audit`` runs it).

It fails on a vulnerability that ALLOWED does not name, and on an entry of ALLOWED whose date has passed.
Where no service of vulnerabilities answers, it says that nothing was audited: pip-audit itself may call that
a success.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

# A line: the vulnerability's id, the last day on which it is allowed, and why it does not reach us.
ALLOWED = Path(__file__).parent.parent / "requirements" / "allowed-vulnerabilities.txt"
SERVICES = ("pypi", "osv")
LIMIT = 60  # seconds that a service is waited for


@dataclass(frozen=True)
class Finding:
    """What an audit found: ``failures`` as sentences, and how many packages the service knew, and did not."""

    failures: list[str]
    known: int
    unknown: int


def allowed(text: str, today: date) -> tuple[set[str], list[str]]:
    """The ids that may be there today, and the entries whose day has passed, as sentences."""
    ids, ended = set(), []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, until, reason = line.split(maxsplit=2)
        if date.fromisoformat(until) < today:
            ended.append(f"{name} was allowed until {until} ({reason}): update the package, or decide anew")
        else:
            ids.add(name)
    return ids, ended


def judge(report: dict[str, Any], ids: Iterable[str]) -> Finding:
    """What a report of pip-audit says, without the vulnerabilities that ``ids`` allow."""
    failures, known = [], 0
    for package in report["dependencies"]:
        known += "vulns" in package
        for hole in package.get("vulns", []):
            if not {hole["id"], *hole.get("aliases", [])} & set(ids):
                fixed = ", ".join(hole.get("fix_versions", [])) or "no version yet"
                failures.append(f"{package['name']} {package['version']}: {hole['id']}, fixed in {fixed}")
    return Finding(failures, known, len(report["dependencies"]) - known)


def installed() -> list[str]:
    """Every installed package as ``name==version``; of a build such as 2.13.0+cpu the version alone."""
    # setuptools, once imported, adds packages of its own to the path, in versions besides those installed.
    path = [folder for folder in sys.path if not folder.endswith("_vendor")]
    found = {(one.name, one.version.partition("+")[0]) for one in distributions(path=path)}
    return sorted(f"{name}=={version}" for name, version in found if name != "edgepress")


def ask(service: str, packages: list[str]) -> dict[str, Any] | None:
    """The report of pip-audit about ``packages``; None where the service does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "packages.txt"
        listed.write_text("\n".join(packages), encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--timeout=10", "--format=json"]
        command = [sys.executable, "-m", "pip_audit", *options, "-s", service, "-r", str(listed)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
            report = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, json.JSONDecodeError):
            return None
    return report if judge(report, ()).known else None


def main(listed: Path = ALLOWED, services: Sequence[str] = SERVICES) -> int:
    """Print what was found; 1 when something must be done. That no service answers is none of that: no change
    could land while it is down.
    """
    ids, failures = allowed(listed.read_text(encoding="utf-8"), date.today())
    packages = installed()
    report = next((found for service in services if (found := ask(service, packages))), None)
    if report is None:
        print(f"not audited: no service of vulnerabilities answers here ({', '.join(services)})")
    else:
        finding = judge(report, ids)
        failures += finding.failures
        print(f"audited: {finding.known} packages, {finding.unknown} others are unknown to the service")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
