//! The programs that run in the guests, built here: host and guests are one release of Debian.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Binaries of the workspace.
const PROGRAMS: [&str; 6] = ["twinsand", "twinsan", "twinsan-perf", "lab-guest", "pr-lab", "rdma-conformance"];
/// The guests' scripts.
const SCRIPTS: [(&str, &str); 8] = [
    ("init", include_str!("../guest/init")),
    ("links", include_str!("../guest/links")),
    ("shelf", include_str!("../guest/shelf")),
    ("san", include_str!("../guest/san")),
    ("login", include_str!("../guest/login")),
    ("paths", include_str!("../guest/paths")),
    ("state", include_str!("../guest/state")),
    ("peers", include_str!("../guest/peers")),
];

/// Builds the programs with the cargo that runs us; without one they have to be beside our own program.
///
/// # Errors
/// If they don't build.
pub fn build() -> Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")]);
    build.args(PROGRAMS.iter().flat_map(|name| ["--bin", name]));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.status().context("cargo build")?;
    ensure!(status.success(), "cargo could not build {}", PROGRAMS.join(", "));
    Ok(())
}

/// Puts the programs and the scripts where the guests see them.
///
/// # Errors
/// If a program was not built.
pub fn share(folder: &Path) -> Result<()> {
    let own = std::env::current_exe()?;
    let built = own.parent().context("a program has a folder")?;
    fs::create_dir_all(folder.join("bin"))?;
    for name in PROGRAMS {
        let program = built.join(name);
        fs::copy(&program, folder.join("bin").join(name))
            .with_context(|| format!("{} (build it, or run the lab by `cargo lab`, which does)", program.display()))?;
    }
    fs::create_dir_all(folder.join("guest"))?;
    for (name, text) in SCRIPTS {
        fs::write(folder.join("guest").join(name), text)?;
    }
    Ok(())
}
