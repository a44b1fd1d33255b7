//! What instructions are spent on, by the functions' names.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// Kinds, with what their functions' names begin with, or contain (`*`). The first that fits counts.
const KINDS: [(&str, &[&str]); 15] = [
    // `crc32c` has the copy aside, which it is made of, inlined.
    (COPIES, &["twinsan_arena::racy::", "twinsan_arena::Arena::copy_", "twinsan_arena::Arena::crc32c"]),
    ("payload CRC32C", &["crc_fast::", "crc32c::"]),
    ("CRC of descriptors and mailboxes", &["crc::"]),
    ("clock", &["*time::Timespec", "*time::Instant", "clock_gettime", "*clock::Clock"]),
    (
        "allocation",
        &["malloc", "free", "calloc", "realloc", "_int_", "*__rust_", "*__rdl_", "*raw_vec::", "unlink_chunk"],
    ),
    (
        "flusher and disk",
        &["twinsand::flusher", "twinsan_sas::", "io_uring::", "crossbeam_channel::", "*std::sys::backtrace"],
    ),
    ("NBD", &["twinsan_nbd::", "twinsan::front::"]),
    ("client's session", &["twinsan_session::"]),
    ("client's loop", &["twinsan::"]),
    ("node's loop", &["twinsand::"]),
    ("replica", &["twinsan_replica::"]),
    ("staging and its index", &["twinsan_staging::", "*collections::btree"]),
    ("wire structures", &["twinsan_wire::"]),
    (
        "fabric",
        &[
            "twinsan_shm::",
            "twinsan_tcp::",
            "twinsan_verbs::",
            "twinsan_network::",
            "twinsan_fabric::",
            "twinsan_arena::",
            "*twinsan_fabric::",
            "rustix::",
        ],
    ),
    ("C library", &["__mem", "mem", "__", "pthread", "epoll", "read", "write", "send", "recv"]),
];
/// Callgrind counts a string move as one instruction for each byte.
pub const COPIES: &str = "payload copies (a byte counts as one)";
const OTHER: &str = "everything else";

/// Instructions by kind.
#[derive(Clone, Debug, Default)]
pub struct Kinds(BTreeMap<&'static str, f64>);

/// One kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spent {
    /// On what.
    pub on: &'static str,
    /// How many instructions.
    pub instructions: f64,
}

impl Kinds {
    /// Of callgrind's dumps: the costs of the functions themselves, without what they call.
    #[must_use]
    pub fn of<'a>(dumps: impl Iterator<Item = &'a str>) -> Self {
        let mut kinds = BTreeMap::new();
        for dump in dumps {
            for (function, instructions) in own_costs(dump) {
                *kinds.entry(kind(function)).or_default() += instructions;
            }
        }
        Self(kinds)
    }

    /// For one of so many, the greatest first.
    #[must_use]
    pub fn per(&self, count: f64) -> Vec<Spent> {
        let mut spent: Vec<Spent> =
            self.0.iter().map(|(on, instructions)| Spent { on, instructions: instructions / count }).collect();
        spent.sort_by(|a, b| b.instructions.total_cmp(&a.instructions));
        spent
    }
}

/// Names begin with `<` where a trait is implemented: `<twinsan_shm::fabric::ShmFabric as …>::poll`.
fn kind(function: &str) -> &'static str {
    let bare = function.trim_start_matches('<');
    let fits = |name: &&str| match name.strip_prefix('*') {
        Some(inside) => function.contains(inside),
        None => bare.starts_with(name),
    };
    KINDS.into_iter().find(|(_, names)| names.iter().any(fits)).map_or(OTHER, |(kind, _)| kind)
}

/// The format is in valgrind's manual, "Callgrind Format Specification": `fn=(id) name` at first, `fn=(id)` later; then lines of
/// position and cost; the line after `calls=` has what the callee cost, and is no cost of the function's own.
fn own_costs(dump: &str) -> HashMap<&str, f64> {
    let mut names = HashMap::new();
    let mut costs = HashMap::new();
    let (mut function, mut is_callees) = ("", false);
    for line in dump.lines() {
        if let Some(named) = line.strip_prefix("fn=") {
            function = name(named, &mut names);
        } else if let Some(named) = line.strip_prefix("cfn=") {
            name(named, &mut names);
        } else if line.starts_with("calls=") {
            is_callees = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*')) {
            let cost = line.split(' ').next_back().and_then(|cost| cost.parse::<f64>().ok()).unwrap_or(0.0);
            if !is_callees {
                *costs.entry(function).or_default() += cost;
            }
            is_callees = false;
        }
    }
    costs
}

fn name<'a>(named: &'a str, names: &mut HashMap<&'a str, &'a str>) -> &'a str {
    match named.split_once(' ') {
        Some((id, name)) => {
            names.insert(id, name);
            name
        }
        None => names.get(named).copied().unwrap_or(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "version: 1\npositions: line\nevents: Ir\nsummary: 66\n\n\
        fl=(1) a.rs\nfn=(1) twinsan_arena::racy::copy\n10 4096\n\n\
        fn=(2) <twinsan_shm::fabric::ShmFabric as twinsan_fabric::Fabric>::poll::h12\n20 5\nfi=(2) b.rs\n+3 2\n\
        cfi=(1)\ncfn=(1)\ncalls=1 10\n* 4096\n* 1\ncfn=(3) malloc\ncalls=2 +5\n+1 30\n\n\
        fn=(3)\n5 30\n\nfn=(4) something::new\n1 7\n";

    #[test]
    fn costs_are_the_function_s_own() {
        let costs = own_costs(DUMP);
        assert_eq!(costs.len(), 4);
        assert_eq!(costs["twinsan_arena::racy::copy"], 4096.0);
        assert_eq!(costs["<twinsan_shm::fabric::ShmFabric as twinsan_fabric::Fabric>::poll::h12"], 8.0);
        assert_eq!(costs["malloc"], 30.0);
    }

    #[test]
    fn all_is_spent_on_something() {
        let spent = Kinds::of([DUMP, DUMP].into_iter()).per(2.0);
        let words: Vec<_> = spent.iter().map(|spent| (spent.on, spent.instructions)).collect();
        assert_eq!(words, [(COPIES, 4096.0), ("allocation", 30.0), ("fabric", 8.0), (OTHER, 7.0)]);
    }

    #[test]
    fn functions_have_their_kinds() {
        for (function, on) in [
            ("twinsan_arena::Arena::copy_in", COPIES),
            ("twinsan_arena::Arena::word", "fabric"),
            ("twinsan_arena::Arena::crc32c", COPIES),
            ("crc_fast::crc32::fusion::x86::xnmodp_iscsi_sse", "payload CRC32C"),
            ("crc::crc32::update_table", "CRC of descriptors and mailboxes"),
            ("<std::sys::pal::unix::time::Timespec>::now", "clock"),
            ("__rustc::__rdl_alloc", "allocation"),
            ("twinsan::front::nbd::NbdFront::work", "NBD"),
            ("twinsan::attach::driver::Driver<F>::run", "client's loop"),
            ("twinsand::reactor::Reactor<F>::run", "node's loop"),
            ("twinsand::flusher::work::Worker::run", "flusher and disk"),
            ("twinsan_staging::index::Index::insert", "staging and its index"),
            ("alloc::collections::btree::map::BTreeMap<K,V,A>::remove", "staging and its index"),
            ("__memcpy_avx_unaligned_erms", "C library"),
        ] {
            assert_eq!(kind(function), on, "{function}");
        }
    }
}
