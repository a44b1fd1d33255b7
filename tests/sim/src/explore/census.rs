//! What the states of a search differ in: for each part of a state (a machine's field, a pair of hosts' connections, the
//! disk) how many values it takes, and how many states there would be without it. Where a search has too many states,
//! this says why.

use std::collections::{BTreeMap, HashSet};

use crate::explore::situation::Situation;
use crate::explore::sum::halves;

/// Collects.
#[derive(Default)]
pub(crate) struct Census {
    /// Each state's parts, as sums, in the order of the names.
    rows: Vec<Vec<u64>>,
    names: BTreeMap<String, usize>,
}

/// One part.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it is called.
    pub name: String,
    /// The values that it takes.
    pub values: usize,
    /// How many states there would be without it.
    pub without: usize,
}

impl Census {
    pub(crate) fn take(&mut self, state: &Situation) {
        let mut row = vec![0; self.names.len()];
        for (name, sum) in state.parts() {
            let next = self.names.len();
            let at = *self.names.entry(name).or_insert(next);
            row.resize(row.len().max(at + 1), 0);
            row[at] = halves(sum)[0];
        }
        self.rows.push(row);
    }

    /// Those that take more than one value, the one first without which there would be fewest.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let of = |(name, &at): (&String, &usize)| {
            let value = |row: &Vec<u64>, at: usize| row.get(at).copied().unwrap_or_default();
            let values: HashSet<u64> = self.rows.iter().map(|row| value(row, at)).collect();
            let rest = |row: &Vec<u64>| -> Vec<u64> {
                (0..self.names.len()).map(|other| if other == at { 0 } else { value(row, other) }).collect()
            };
            let without: HashSet<Vec<u64>> = self.rows.iter().map(rest).collect();
            Part { name: name.clone(), values: values.len(), without: without.len() }
        };
        let mut parts: Vec<Part> = self.names.iter().map(of).filter(|part| part.values > 1).collect();
        parts.sort_by_key(|part| part.without);
        parts
    }
}
