"""A Dockerfile built without Docker: its steps, as they are written, in a folder that chroot makes the root of.

Known are the instructions, and the forms of them, that deploy/docker/Dockerfile uses; others are an error.
"""

import fnmatch
import os
import re
import shlex
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Where a system's tools lie (chroot, debootstrap, ip), which a user's PATH may leave out.
SYSTEM = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
# What lets a step reach package registries from a machine with certificates of its own: no part of the image.
_CERTIFICATES = Path("/etc/ssl/certs")


@dataclass
class Stage:
    """A root under construction, and what its instructions have set."""

    root: Path
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Return (instruction, its words) in order; comments are left out, and continued lines are one."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


def build(dockerfile: Path, context: Path, base: Path, work: Path) -> Stage:
    """Carry out all instructions on copies of the root `base` under `work`; return the last stage."""
    ignored = (context / ".dockerignore").read_text(encoding="utf-8").split("\n")
    stages: dict[str, Stage] = {}
    given: dict[str, str] = {}
    stage: Stage | None = None
    for name, words in instructions(dockerfile.read_text(encoding="utf-8")):
        if name == "FROM":
            image, _, alias = words.partition(" AS ")
            assert image == "${BASE}", image
            root = work / (alias or "final")
            subprocess.run(["cp", "--archive", str(base), str(root)], check=True)
            stage = stages[alias or "final"] = Stage(root)
        elif name == "ARG" and stage is None:
            key, _, value = words.partition("=")
            given[key] = value
        elif stage is None:
            raise ValueError(f"{name} before FROM")
        else:
            _carry_out(stage, name, words, context, ignored, stages)
    assert stage is not None and given["BASE"].startswith("python:3.11.")
    return stage


def _carry_out(
    stage: Stage, name: str, words: str, context: Path, ignored: list[str], stages: dict[str, Stage]
) -> None:
    if name == "WORKDIR":
        stage.folder = words
        _inside(stage.root, words).mkdir(parents=True, exist_ok=True)
    elif name == "ARG":
        key, _, value = words.partition("=")
        stage.arguments[key] = value
    elif name == "ENV":
        stage.environment |= dict(pair.split("=", 1) for pair in shlex.split(words))
    elif name == "USER":
        stage.user = words
    elif name in ("ENTRYPOINT", "CMD"):
        found = [part.strip().strip('"') for part in words.strip("[]").split(",")]
        setattr(stage, "entrypoint" if name == "ENTRYPOINT" else "command", found)
    elif name == "RUN":
        done = run(stage, ["/bin/sh", "-c", words], network=True, user="0")
        assert done.returncode == 0, f"RUN {words}\n{(done.stdout + done.stderr)[-4000:]}"
    elif name == "COPY":
        *sources, target = words.split()
        origin = context
        if sources[0].startswith("--from="):
            origin = stages[sources.pop(0).removeprefix("--from=")].root
        place = _inside(stage.root, str(Path(stage.folder) / target))
        for source in sources:
            if origin == context:
                _copy(context, source, place, target.endswith("/"), ignored)
            else:
                subprocess.run(["cp", "--archive", f"{_inside(origin, source)}/.", str(place)], check=True)
    else:
        raise ValueError(f"{name}: no such instruction is known here")


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _copy(context: Path, source: str, place: Path, into_folder: bool, ignored: list[str]) -> None:
    """Copy a file, or what is in a folder, of the context; what .dockerignore leaves out is not there."""
    whole = context / source
    files = [whole] if whole.is_file() else [file for file in sorted(whole.rglob("*")) if file.is_file()]
    files = [file for file in files if not is_ignored(str(file.relative_to(context)), ignored)]
    assert files, f"COPY {source}: nothing of it is in the context"
    for file in files:
        target = place / file.relative_to(whole) if whole.is_dir() else place / file.name if into_folder else place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Return whether .dockerignore leaves a file out: the last pattern that fits it, or a folder of it, decides.

    >>> is_ignored("data/x.csv", ["*", "!jobs"]), is_ignored("jobs/a.py", ["*", "!jobs"])
    (True, False)
    >>> is_ignored("jobs/__pycache__/a.pyc", ["*", "!jobs", "**/__pycache__"])
    True
    """
    parts = path.split("/")
    folders = ["/".join(parts[: number + 1]) for number in range(len(parts))]
    left_out = False
    for pattern in patterns:
        bare = pattern.lstrip("!")
        if not bare or bare.startswith("#"):
            continue
        bare, names = (bare.removeprefix("**/"), parts) if bare.startswith("**/") else (bare, folders)
        if any(fnmatch.fnmatchcase(name, bare) and (bare != "*" or "/" not in name) for name in names):
            left_out = not pattern.startswith("!")
    return left_out


def run(
    stage: Stage, command: list[str], network: bool, user: str | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a stage's root, as its user; without network it has not even a loopback to others."""
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin",
        **stage.arguments,
        **stage.environment,
        **more,
    }
    # As container runtimes do: a JVM looks up its host's name.
    (stage.root / "etc/hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n", encoding="utf-8")
    certificates = stage.root / "run/certificates"
    if network:
        shutil.copytree(_CERTIFICATES, certificates, symlinks=False, dirs_exist_ok=True)
        shutil.copy2("/etc/resolv.conf", stage.root / "etc/resolv.conf")
        environment |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), "/run/certificates/ca-certificates.crt")
        environment["JAVA_TOOL_OPTIONS"] = "-Djavax.net.ssl.trustStore=/run/certificates/java/cacerts"
    # A mount namespace of its own, so that /proc and /dev go when the command ends.
    inner = (
        f"mount --bind /proc {stage.root}/proc && mount --rbind /dev {stage.root}/dev && "
        + ("" if network else "ip link set lo up && ")
        + f'exec chroot --userspec="{stage.user if user is None else user}:0" "{stage.root}" '
        + '/usr/bin/env --ignore-environment "$@"'
    )
    inner_command = [f"{name}={value}" for name, value in environment.items()]
    inside = ["/bin/sh", "-c", f'cd "{stage.folder}" && exec "$@"', "sh", *command]
    spaces = ["unshare", "--mount", *([] if network else ["--net"])]
    try:
        return subprocess.run(
            [*spaces, "sh", "-ec", inner, "sh", *inner_command, *inside],
            env=SYSTEM, capture_output=True, text=True, check=False, timeout=1800,
        )  # fmt: skip
    finally:
        shutil.rmtree(certificates, ignore_errors=True)
