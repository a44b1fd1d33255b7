//! Opens librdmacm and, with it, libibverbs.

use std::sync::OnceLock;

use super::bindings::Rdma;

/// The runtime libraries' sonames; Debian has them in librdmacm1 and libibverbs1. Opened by the major number that the
/// ABI of the bindings has, never by the bare name, which only a development package installs.
const VERBS: &str = "libibverbs.so.1";
const CM: &str = "librdmacm.so.1";

/// The functions of both libraries, opened at the first call and never closed.
///
/// # Errors
/// A text that says which library or function is missing.
pub(super) fn library() -> Result<&'static Rdma, &'static str> {
    static LIBRARY: OnceLock<Result<Rdma, String>> = OnceLock::new();
    LIBRARY.get_or_init(open).as_ref().map_err(String::as_str)
}

fn open() -> Result<Rdma, String> {
    // By itself first, so that the message names the one that is missing. It stays loaded: librdmacm needs it.
    // SAFETY: loading runs the library's constructors, which only fill its own tables; they are made to be run in any
    // program that links it.
    let verbs = unsafe { libloading::Library::new(VERBS) };
    let _verbs = verbs.map_err(|e| missing(VERBS, "libibverbs1 and ibverbs-providers", &e))?;
    // A handle finds the symbols of what it depends on too (dlsym(3)), so one is enough for both.
    // SAFETY: as above; and the names' types are those of the headers that the bindings were made of, whose ABI the
    // soname stands for.
    unsafe { Rdma::new(CM) }.map_err(|e| missing(CM, "librdmacm1", &e))
}

fn missing(library: &str, package: &str, error: &libloading::Error) -> String {
    format!("{library} can't be used, which Debian has in {package} ({error})")
}
