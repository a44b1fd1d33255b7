use super::*;
use crate::pattern::fill;

fn bytes(ledger_stamp: u64, unit: u64) -> Vec<u8> {
    let mut bytes = vec![0; UNIT];
    fill(&mut bytes, unit * BLOCKS, ledger_stamp);
    bytes
}

fn write(ledger: &Ledger, units: Range<u64>) -> u64 {
    let open = ledger.write_begins(units);
    let stamp = open.stamp();
    ledger.write_completes(open, ledger.now());
    stamp
}

fn read(ledger: &Ledger, unit: u64, data: &[u8]) {
    let open = ledger.read_begins(unit..unit + 1);
    ledger.read_completes(open, data, ledger.now());
}

#[test]
fn what_was_written_last_is_what_may_be_read() {
    let ledger = Ledger::new(8, 1);
    read(&ledger, 0, &[0; UNIT]);
    let first = write(&ledger, 0..4);
    let second = write(&ledger, 2..6);
    for (unit, stamp) in [(0, first), (1, first), (2, second), (5, second)] {
        read(&ledger, unit, &bytes(stamp, unit));
    }
    assert!(ledger.counts().all_kept());
    read(&ledger, 3, &bytes(first, 3));
    read(&ledger, 3, &bytes(first, 3));
    assert_eq!(ledger.counts().lost, 1, "one unit, however often it is read");
    let said = ledger.evidence()[0].to_string();
    assert!(said.starts_with("byte 12288 (unit 3 of 4096 bytes)"), "{said}");
    assert!(said.contains("a read found write 1") && said.contains("write 2"), "{said}");
}

#[test]
fn bytes_of_nobody_of_an_earlier_run_of_elsewhere_and_torn_ones_are_told() {
    let ledger = Ledger::new(8, 1);
    let stamp = write(&ledger, 0..8);
    let earlier = Ledger::new(8, 2).write_begins(0..1).stamp();
    let mut flipped = bytes(stamp, 0);
    flipped[700] ^= 1;
    read(&ledger, 0, &flipped);
    read(&ledger, 1, &bytes(earlier, 1));
    read(&ledger, 2, &bytes(stamp, 3));
    let mut torn = bytes(stamp, 4);
    torn[..512].copy_from_slice(&bytes(ledger.write_begins(4..5).stamp(), 4)[..512]);
    read(&ledger, 4, &torn);
    read(&ledger, 5, &[0; UNIT]);
    assert_eq!((ledger.counts().corrupt, ledger.counts().lost), (4, 1));
}

#[test]
fn what_a_killed_client_wrote_is_settled_by_the_next_session() {
    let ledger = Ledger::new(2, 1);
    let before = write(&ledger, 0..2);
    let open = ledger.write_begins(0..2);
    let unknown = open.stamp();
    ledger.write_is_unknown(open);
    read(&ledger, 0, &bytes(before, 0));
    ledger.settle();
    read(&ledger, 0, &bytes(before, 0));
    assert!(ledger.counts().all_kept());
    read(&ledger, 0, &bytes(unknown, 0));
    assert!(!ledger.counts().all_kept(), "it was not there when the session began, so it must not come later");
    assert_eq!(ledger.counts().unknown, 1);
}
