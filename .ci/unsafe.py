#!/usr/bin/env python3
"""Unsafe code only where it may be, each site with the reason why it is sound.

Six places may (docs/dependencies.md has the reasons): staging/arena, sas/src/disk, sas/src/fence/scsi_pr, client/ublk,
transport/verbs/src/sys and, of the tests, tests/chaos/src/namespaces/tun.rs. There every `unsafe` block and impl has a `// SAFETY:` comment above it or beside it, and
every `unsafe fn` a `# Safety` section. Everywhere else the crate's root forbids it, and no file says it.
"""

import pathlib
import re
import sys

ALLOWED = (
    "staging/arena/",
    "sas/src/disk/",
    "sas/src/fence/scsi_pr/",
    "client/ublk/",
    "transport/verbs/src/sys",
    "tests/chaos/src/namespaces/tun.rs",
)
# Made by a tool from C headers; its only unsafe code is the shape of foreign functions.
GENERATED = ("transport/verbs/src/sys/bindings.rs",)
# Crates whose root can't forbid it, because a module of theirs may.
ROOMS = (
    "staging/arena/",
    "sas/",
    "transport/verbs/src/lib.rs",
    "client/ublk/src/lib.rs",
    "tests/fuzz/",
    "tests/chaos/src/lib.rs",
)
# The lint's own name, the attributes that forbid it, and the type of a foreign function are not unsafe code.
NAMES = re.compile(r"unsafe extern\s+fn\(|forbid\(unsafe_code\)|deny\(unsafe_code\)|allow\(unsafe_code[^)]*\)|unsafe_op_in_unsafe_fn")
ROOTS = re.compile(r"(?:^|/)(?:src/(?:lib|main)\.rs|src/bin/[^/]+\.rs|src/bin/[^/]+/main\.rs)$")


def code_of(text):
    """The text with comments, strings and characters blanked, line for line."""
    token = re.compile(
        r"""//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\.[^']*|[^'\\])'""", re.DOTALL
    )
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def reasons(lines, at):
    """The comment that belongs to line `at`: on it, or above the statement that it is part of."""
    said = [lines[at]]
    above = at - 1
    # A statement may begin some lines above its unsafe block.
    while above >= 0 and at - above <= 6 and not lines[above].lstrip().startswith("//"):
        if lines[above].rstrip().endswith((";", "}", "{")) or not lines[above].strip():
            break
        above -= 1
    while above >= 0 and lines[above].lstrip().startswith(("//", "#[")):
        said.append(lines[above])
        above -= 1
    return "\n".join(said)


def check(path, name, wrong):
    text = path.read_text()
    lines, code = text.split("\n"), code_of(text).split("\n")
    sites = 0
    for at, line in enumerate(code):
        for found in re.finditer(r"\bunsafe\b\s*(\w*)", NAMES.sub("", line)):
            sites += 1
            said = reasons(lines, at)
            wanted = "# Safety" if found.group(1) in ("fn", "extern") else "SAFETY:"
            if not name.startswith(ALLOWED):
                wrong.append(f"{name}:{at + 1}: unsafe may not be here, only in {' and '.join(ALLOWED)}")
            elif wanted not in said and "SAFETY:" not in said:
                wrong.append(f"{name}:{at + 1}: no \"{wanted}\" above it")
    return sites


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    wrong, sites, files = [], 0, 0
    for path in sorted(root.rglob("*.rs")):
        name = path.relative_to(root).as_posix()
        if "target" in path.relative_to(root).parts or name in GENERATED:
            continue
        files += 1
        sites += check(path, name, wrong)
        if ROOTS.search(name) and not name.startswith(ROOMS):
            if "#![forbid(unsafe_code)]" not in path.read_text():
                wrong.append(f"{name}: a crate's root without #![forbid(unsafe_code)]")
    if files == 0 or sites == 0:
        wrong.append(f"looked at {files} files and found {sites} unsafe sites: this check is blind")
    print("\n".join(wrong) if wrong else f"{sites} unsafe sites in {files} files, all where they may be and with reasons")
    return 1 if wrong else 0


sys.exit(main())
