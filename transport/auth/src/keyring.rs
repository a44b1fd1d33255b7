//! Which volumes a listener serves, and with what key.

use std::collections::HashMap;

use twinsan_wire::VolumeName;

use crate::key::Key;

/// A listener's volumes.
#[derive(Debug, Default)]
pub struct Keyring(HashMap<VolumeName, Option<Key>>);

impl Keyring {
    /// Serves `volume`, with its key; without one it is open to whoever reaches the listener, so
    /// [`may_listen_without_key`](crate::may_listen_without_key) must hold for every address listened on.
    pub fn insert(&mut self, volume: VolumeName, key: Option<Key>) {
        self.0.insert(volume, key);
    }

    /// `None`: no such volume here. `Some(None)`: it has no key.
    #[must_use]
    pub fn find(&self, volume: &VolumeName) -> Option<Option<&Key>> {
        self.0.get(volume).map(Option::as_ref)
    }
}

impl FromIterator<(VolumeName, Option<Key>)> for Keyring {
    fn from_iter<I: IntoIterator<Item = (VolumeName, Option<Key>)>>(volumes: I) -> Self {
        Self(volumes.into_iter().collect())
    }
}
