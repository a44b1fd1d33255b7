//! Other people's programs, to be measured against or with.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// For a program's socket to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(10);

/// A child that ends with us.
#[derive(Debug)]
pub struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Starts a program and waits until its socket takes connections.
    ///
    /// # Errors
    /// If it does not; with what it said.
    pub fn start(mut command: Command, socket: &Path, log: &Path) -> Result<Self> {
        let words = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(words.try_clone()?).stderr(words);
        let name = command.get_program().to_string_lossy().into_owned();
        let mut program = Self(command.spawn().with_context(|| name.clone())?);
        let begin = Instant::now();
        while UnixStream::connect(socket).is_err() {
            if let Some(status) = program.0.try_wait()? {
                bail!("{name} ended ({status}): {}", fs::read_to_string(log)?);
            }
            ensure!(begin.elapsed() < PATIENCE, "{name} takes no connections: {}", fs::read_to_string(log)?);
            std::thread::sleep(LOOK);
        }
        Ok(program)
    }
}

/// A program on the PATH.
///
/// # Errors
/// With the Debian package that brings it.
pub fn find(program: &str, package: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.is_file());
    found.with_context(|| format!("{program} is missing: apt-get install {package}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = find("no-such-program", "some-package").unwrap_err().to_string();
        assert_eq!(error, "no-such-program is missing: apt-get install some-package");
    }
}
