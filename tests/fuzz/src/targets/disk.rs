//! What stands on the disk: superblock slots, both together, and heartbeat blocks.
//!
//! Pages are short here: what an input does not give is zero, and reserved, and the CRC is made right.

use twinsan_sas::fuzz::page;
use twinsan_sas::superblock::slots::Expected;
use twinsan_sas::superblock::{codec, slots::SlotPair};
use twinsan_sas::{Heartbeat, Page, SuperblockError, Uuid};
use twinsan_wire::{NodeId, Superblock};

use crate::input::Input;

/// All fields of a slot, and some of what is reserved.
const SLOT_BYTES: usize = 308;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte();
    match how % 3 {
        0 => slot(&page(input.0, how & 0x80 == 0)),
        1 => {
            let first = page(input.take(SLOT_BYTES), how & 0x80 == 0);
            // The other one, changed in one place, or another one altogether.
            let second = match how & 0x40 {
                0 => {
                    let mut page = first.clone();
                    let at = usize::from(u16::from_le_bytes(input.array())) % page.0.len();
                    page.0[at] ^= input.byte();
                    twinsan_sas::fuzz::page(&page.0, true)
                }
                _ => page(input.take(SLOT_BYTES), how & 0x20 == 0),
            };
            pair(&[first, second]);
        }
        _ => heartbeat(&page(input.0, how & 0x80 == 0)),
    }
}

fn slot(page: &Page) {
    let Ok(slot) = codec::decode(page) else { return };
    assert!(codec::encode(&slot) == *page, "two encodings of one slot");
    let identity = slot.identity;
    assert!(identity.end() > identity.data_offset && i64::try_from(identity.end()).is_ok());
    assert!(slot.superblock.primary.is_none_or(|node| slot.superblock.members.of(node).is_some()));
}

fn pair(pages: &[Page; 2]) {
    let found = match SlotPair::judge(pages, &Expected::default()) {
        Ok(found) => found,
        Err(error) => {
            let foreign = matches!(error, SuperblockError::NoVolume { .. });
            let magic = pages.iter().any(|page| page.0.starts_with(&codec::MAGIC));
            assert!(foreign != magic, "{error}, and the magic is {magic}");
            return;
        }
    };
    let valid: Vec<_> = pages.iter().filter_map(|page| codec::decode(page).ok()).collect();
    assert!(valid.contains(&found.best), "what serves stands in neither slot");
    assert!(valid.iter().all(|slot| slot.superblock.counter <= found.best.superblock.counter));
    assert_eq!(found.settled, pages[0] == pages[1]);
    change(pages, &found);
}

/// Section 7 of the protocol: at each moment of a change, and after it, a slot serves that says the old or the new.
fn change(pages: &[Page; 2], found: &SlotPair) {
    let old = found.best.superblock;
    if old.counter == u64::MAX || old.epoch.0 == u64::MAX {
        return; // The numbers have run out; no volume gets there.
    }
    let new = Superblock { epoch: old.epoch.next(), clean: !old.clean, ..old };
    let plan = found.plan(&new, 1).expect("the epoch does not go back");
    let mut now = pages.clone();
    for (offset, page) in plan.steps() {
        now[usize::from(offset != 0)] = page;
        let between = SlotPair::judge(&now, &Expected::default()).expect("a slot is valid at each moment");
        assert_eq!(between.best.superblock.epoch, new.epoch);
    }
    let after = SlotPair::judge(&now, &Expected::default()).expect("both are valid");
    assert!(after.settled && after.best.superblock.counter > old.counter);
}

fn heartbeat(page: &Page) {
    for node in NodeId::BOTH {
        let uuid = Uuid(*page.0[16..].first_chunk().expect("it is longer"));
        match Heartbeat::decode(page, node, uuid) {
            Ok(None) => assert!(page.is_zero()),
            Ok(Some(heartbeat)) => {
                assert_eq!((heartbeat.node, heartbeat.volume), (node, uuid));
                assert!(heartbeat.encode() == *page, "two encodings of one heartbeat");
            }
            Err(_) => {}
        }
        assert!(!matches!(Heartbeat::decode(page, node, Uuid([0xa5; 16])), Ok(Some(_))) || uuid == Uuid([0xa5; 16]));
    }
}
