#!/usr/bin/env python3
"""Every dependency's licence against deny.toml, where cargo-deny is not installed.

Reads `cargo metadata` (the whole locked tree, as built for the targets that deny.toml names) and deny.toml's allow list.
An SPDX expression passes if it can be met by allowed licences: one side of each OR, both of each AND.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def strings(text, key):
    """The strings of a TOML array. (Debian 12's python has tomllib from 3.11 on, but older ones must do.)"""
    found = re.search(rf"^{key}\s*=\s*\[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    if not found:
        sys.exit(f"deny.toml has no {key} list")
    return re.findall(r'"([^"]+)"', found.group(1))


def allowed_by(expression, allow):
    """Whether the SPDX expression can be met. A slash is cargo's old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        met = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        token = tokens.pop(0)
        if token == "(":
            met = either()
            assert tokens.pop(0) == ")", expression
            return met
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token += " WITH " + tokens.pop(0)
        return token in allow

    met = either()
    assert not tokens, f"cannot read the licence expression {expression!r}"
    return met


def self_test():
    """A check that allows everything would pass as well; this one can say no."""
    allow = {"MIT", "Apache-2.0 WITH LLVM-exception"}
    yes = ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "MIT AND (GPL-3.0 OR Apache-2.0 WITH LLVM-exception)"]
    no = ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "(GPL-3.0 OR Apache-2.0) AND MIT"]
    for expression in yes + no:
        assert allowed_by(expression, allow) == (expression in yes), expression


def main():
    self_test()
    deny = (ROOT / "deny.toml").read_text()
    allow = set(strings(deny, "allow"))
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    for target in strings(deny, "targets"):
        command += ["--filter-platform", target]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)["packages"]
    wrong = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        if not package["license"]:
            wrong.append(f"{name}: no licence expression")
        elif not allowed_by(package["license"], allow):
            wrong.append(f"{name}: {package['license']} is not allowed by deny.toml")
        source = package["source"]
        if source and source != "registry+https://github.com/rust-lang/crates.io-index":
            wrong.append(f"{name}: from {source}, not from crates.io")
    if len(packages) < 2:
        wrong.append("cargo metadata named no packages: this check is blind")
    print("\n".join(wrong) if wrong else f"{len(packages)} packages, every licence allowed, all from crates.io")
    return 1 if wrong else 0


sys.exit(main())
