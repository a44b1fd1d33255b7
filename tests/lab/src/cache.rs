//! The guests' kernels and userland: built once, from Debian's packages, by the scripts in `recipe/`, and kept outside the
//! checkout under a hash of everything that they are made from.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::machine::Kind;
use crate::machine::qemu::Boot;

const KERNEL_SCRIPT: &str = include_str!("../recipe/kernel.sh");
const KERNEL_CONFIG: &str = include_str!("../recipe/uml.config");
const KERNEL_PATCH: &str = include_str!("../recipe/uml-events.patch");
const ROOT_SCRIPT: &str = include_str!("../recipe/root.sh");
const ROOT_PACKAGES: &str = include_str!("../recipe/packages");
const ROOT_INIT: &str = include_str!("../recipe/lab-init");
const STOCK_SCRIPT: &str = include_str!("../recipe/stock.sh");
const STOCK_MODULES: &str = include_str!("../recipe/stock.modules");
const STOCK_INIT: &str = include_str!("../recipe/stock.init");
/// What the host needs for the scripts.
const KERNEL_TOOLS: &[&str] =
    &["gcc", "libc6-dev", "make", "flex", "bison", "bc", "xz-utils", "binutils", "tar", "patch"];
const ROOT_TOOLS: &[&str] = &["mmdebstrap"];
const STOCK_TOOLS: &[&str] = &["kmod", "cpio", "e2fsprogs", "xz-utils"];
/// What it needs to run the guests.
const RUN_TOOLS: &[&str] = &["util-linux"];
const QEMU_TOOLS: &[&str] = &["qemu-system-x86"];

/// Where the built parts are.
#[derive(Clone, Debug)]
pub enum Parts {
    /// For [`Kind::Uml`].
    Uml {
        /// The kernel, a program.
        kernel: PathBuf,
        /// The userland, a folder.
        root: PathBuf,
    },
    /// For [`Kind::Qemu`].
    Qemu(Boot),
}

impl Parts {
    /// The machines that are made of them.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Uml { .. } => Kind::Uml,
            Self::Qemu(_) => Kind::Qemu,
        }
    }
}

/// One thing that is built once.
struct Recipe {
    what: &'static str,
    /// What is in the finished folder.
    product: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// What the first of its files, the script, is called with, given the folder with them and the finished thing that it
    /// rests on.
    arguments: fn(&Path, Option<&Path>) -> Vec<PathBuf>,
    tools: &'static [&'static str],
}

const KERNEL: Recipe = Recipe {
    what: "kernel",
    product: "linux",
    files: &[("kernel.sh", KERNEL_SCRIPT), ("uml.config", KERNEL_CONFIG), ("uml-events.patch", KERNEL_PATCH)],
    arguments: |recipe, _| {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        vec![recipe.join("uml.config"), recipe.join("uml-events.patch"), jobs.to_string().into()]
    },
    tools: KERNEL_TOOLS,
};

const ROOT: Recipe = Recipe {
    what: "root",
    product: "root",
    files: &[("root.sh", ROOT_SCRIPT), ("packages", ROOT_PACKAGES), ("lab-init", ROOT_INIT)],
    arguments: |recipe, _| vec![recipe.join("packages")],
    tools: ROOT_TOOLS,
};

const STOCK: Recipe = Recipe {
    what: "stock-image",
    product: "root.ext4",
    files: &[("stock.sh", STOCK_SCRIPT), ("stock.modules", STOCK_MODULES), ("stock.init", STOCK_INIT)],
    arguments: |recipe, root| {
        let files = ["stock.modules", "stock.init"].map(|file| recipe.join(file));
        root.map(Path::to_path_buf).into_iter().chain(files).collect()
    },
    tools: STOCK_TOOLS,
};

/// Builds what is not there yet. Says on standard error what it does when that takes time.
///
/// # Errors
/// If a package is missing and can't be installed, or a script fails; with its last words.
pub fn parts(kind: Kind) -> Result<Parts> {
    install(RUN_TOOLS)?;
    let cache = folder()?;
    if kind == Kind::Uml {
        let kernel = finished(&cache, &KERNEL, None)?;
        return Ok(Parts::Uml { kernel, root: finished(&cache, &ROOT, None)? });
    }
    install(QEMU_TOOLS)?;
    let root = finished(&cache, &ROOT, None)?;
    let image = finished(&cache, &STOCK, Some(&root))?;
    Ok(Parts::Qemu(Boot {
        kernel: image.with_file_name("vmlinuz"),
        initrd: image.with_file_name("initrd"),
        root: image,
    }))
}

/// `$XDG_CACHE_HOME/twinsan-lab`, or `~/.cache/twinsan-lab`.
fn folder() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set: where is the lab's cache to be?")?;
    let folder = cache.join("twinsan-lab");
    // Both go on kernel command lines, where these mean something else.
    let text = folder.to_str().with_context(|| format!("{} is not UTF-8", folder.display()))?;
    ensure!(
        !text.contains([' ', ',', '"']),
        "{text:?} has a blank, comma or quote: set XDG_CACHE_HOME to a folder without"
    );
    fs::create_dir_all(&folder).with_context(|| text.to_owned())?;
    Ok(folder)
}

/// The product of a recipe, made if it is not there; `base`: that of the one that it rests on.
fn finished(cache: &Path, recipe: &Recipe, base: Option<&Path>) -> Result<PathBuf> {
    // Its path has the hash of what it was made from.
    let base_key = base.map(|base| base.display().to_string()).unwrap_or_default();
    let mut files = recipe.files.to_vec();
    files.extend(base.map(|_| ("base", base_key.as_str())));
    let done = cache.join(format!("{}-{}", recipe.what, key(&files)));
    let product = done.join(recipe.product);
    if done.is_dir() {
        return Ok(product);
    }
    let lock_path = cache.join(format!("{}.lock", recipe.what));
    let lock = File::options().create(true).append(true).open(&lock_path);
    let lock = lock.with_context(|| lock_path.display().to_string())?;
    if lock.try_lock().is_err() {
        eprintln!("lab: another run is building the {}; waiting for it", recipe.what);
        lock.lock().with_context(|| lock_path.display().to_string())?;
    }
    if done.is_dir() {
        return Ok(product);
    }
    remove_aborted(cache, recipe.what)?;
    build(recipe, base, &cache.join(format!("{}.building", recipe.what)), &done)?;
    Ok(product)
}

/// In a folder of its own, renamed when all is well, so that an aborted build is never taken for a finished one.
fn build(recipe: &Recipe, base: Option<&Path>, folder: &Path, done: &Path) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the {} has to be built once, as root: sudo env HOME=$HOME {}{} build",
        recipe.what,
        std::env::current_exe()?.display(),
        if recipe.what == STOCK.what { " --qemu" } else { "" }
    );
    install(recipe.tools)?;
    update_lists()?;
    let begin = Instant::now();
    eprintln!("lab: building the {} (once; it stays in {})", recipe.what, done.display());
    let scripts = tempfile::tempdir()?;
    for (name, text) in recipe.files {
        let path = scripts.path().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    fs::create_dir(folder).with_context(|| folder.display().to_string())?;
    let mut script = Command::new("nice");
    script.arg(scripts.path().join(recipe.files[0].0)).args((recipe.arguments)(scripts.path(), base));
    // Root's tools, for whoever has become root by `su`; and recipes read what others print.
    script.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin").env("LC_ALL", "C");
    script.current_dir(folder).stdin(Stdio::null()).stdout(std::io::stderr());
    let status = script.status().context("nice (Debian: coreutils)")?;
    ensure!(status.success(), "building the {} failed ({status}); its words are above", recipe.what);
    let product = folder.join(recipe.product);
    ensure!(product.exists(), "the recipe of the {} made no {}", recipe.what, product.display());
    fs::rename(folder, done).with_context(|| done.display().to_string())?;
    eprintln!("lab: the {} took {} s", recipe.what, begin.elapsed().as_secs());
    Ok(())
}

/// Under the lock nobody else builds, so what lies there was left by a build that was killed. It can have mounts in it.
fn remove_aborted(cache: &Path, what: &str) -> Result<()> {
    let folder = cache.join(format!("{what}.building"));
    if !folder.exists() {
        return Ok(());
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let inside = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|m| Path::new(m).starts_with(&folder));
    // The innermost were mounted last.
    for mount in inside.collect::<Vec<_>>().into_iter().rev() {
        let status = Command::new("umount").arg(mount).status().context("umount")?;
        ensure!(status.success(), "{mount} was left by an aborted build and can't be unmounted");
    }
    let status = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&folder).status().context("rm")?;
    ensure!(status.success(), "{} was left by an aborted build and can't be removed", folder.display());
    Ok(())
}

fn key(files: &[(&str, &str)]) -> String {
    let mut hash = Sha256::new();
    for (name, text) in files {
        hash.update(format!("{name} {}\n", text.len()));
        hash.update(text);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Installs the Debian packages that are missing.
fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    ensure!(
        rustix::process::geteuid().is_root(),
        "missing packages: sudo apt-get install {list}\n(as root the lab installs them by itself)"
    );
    eprintln!("lab: installing {list}");
    update_lists()?;
    apt_get(&[&["install", "-qy", "--no-install-recommends"], &missing[..]].concat())
}

/// They may be missing altogether, as in a fresh container, or too old for what they name to be there still.
fn update_lists() -> Result<()> {
    apt_get(&["update", "-q"])
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let output = apt.output().context("apt-get: the lab needs Debian 12")?;
    if !output.status.success() {
        std::io::stderr().write_all(&output.stdout)?;
        std::io::stderr().write_all(&output.stderr)?;
    }
    ensure!(output.status.success(), "apt-get {} failed", arguments.join(" "));
    Ok(())
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f=${Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"install ok installed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_every_file_and_with_where_one_ends() {
        let keys = [
            key(&[("a", "1"), ("b", "2")]),
            key(&[("a", "1"), ("b", "3")]),
            key(&[("a", "12"), ("b", "")]),
            key(&[("a", "1")]),
        ];
        let mut different = keys.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), keys.len(), "{keys:?}");
        assert_eq!(keys[0].len(), 12);
    }
}
