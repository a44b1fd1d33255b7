//! A table whose entries keep their number.

/// Entries by number; freed numbers are used again, so a full table allocates nothing.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn insert(&mut self, entry: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.entries[at as usize] = Some(entry);
            return at;
        }
        self.entries.push(Some(entry));
        u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 entries")
    }

    /// # Panics
    /// If there is none of that number: the caller has lost count.
    #[track_caller]
    pub(crate) fn remove(&mut self, at: u32) -> T {
        let entry = self.entries[at as usize].take().expect("an entry of that number");
        self.free.push(at);
        entry
    }

    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The numbers in use, in no order that means anything.
    pub(crate) fn ids(&self) -> Vec<u32> {
        (0..).zip(&self.entries).filter(|(_, entry)| entry.is_some()).map(|(at, _)| at).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }
}

impl<T> std::ops::Index<u32> for Slots<T> {
    type Output = T;

    #[track_caller]
    fn index(&self, at: u32) -> &T {
        self.get(at).expect("an entry of that number")
    }
}

impl<T> std::ops::IndexMut<u32> for Slots<T> {
    #[track_caller]
    fn index_mut(&mut self, at: u32) -> &mut T {
        self.get_mut(at).expect("an entry of that number")
    }
}
