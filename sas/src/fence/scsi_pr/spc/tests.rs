//! Every byte that goes out, and what comes back.

use super::*;

fn key(bits: u64) -> ReservationKey {
    ReservationKey::new(bits).expect("not zero")
}

fn out(command: Command) -> (Vec<u8>, [u8; PARAMETER_LIST_BYTES as usize]) {
    match command.encode() {
        Some(Encoded { cdb, data: DataPhase::Out(list) }) => (cdb, list),
        other => panic!("{command:?}: {other:?}"),
    }
}

/// 6.16.3: RESERVATION KEY, SERVICE ACTION RESERVATION KEY, four obsolete bytes, the flags, reserved, obsolete.
fn list(reservation: u64, service: u64, flags: u8) -> [u8; PARAMETER_LIST_BYTES as usize] {
    let mut list = [0; PARAMETER_LIST_BYTES as usize];
    list[..8].copy_from_slice(&reservation.to_be_bytes());
    list[8..16].copy_from_slice(&service.to_be_bytes());
    list[20] = flags;
    list
}

#[test]
fn the_bytes_of_reserve_out() {
    let (own, victim) = (key(0x0102_0304_0506_0708), key(0x1112_1314_1516_1718));
    let cdb = |action, kind| vec![0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0];
    let both = (own.get(), victim.get());
    let register = Command::Register { old: Some(own), new: Some(victim) };
    assert_eq!(out(register), (cdb(0, 0), list(both.0, both.1, 1)));
    let first = Command::Register { old: None, new: Some(own) };
    assert_eq!(out(first), (cdb(0, 0), list(0, both.0, 1)));
    let unregister = Command::Register { old: Some(own), new: None };
    assert_eq!(out(unregister), (cdb(0, 0), list(both.0, 0, 1)));
    assert_eq!(out(Command::RegisterAnyway { new: own }), (cdb(6, 0), list(0, both.0, 1)));
    assert_eq!(out(Command::Reserve { key: own }), (cdb(1, 5), list(both.0, 0, 0)));
    let preempt = Command::PreemptAndAbort { key: own, victim };
    assert_eq!(out(preempt), (cdb(5, 5), list(both.0, both.1, 0)));
    assert_eq!(out(Command::PreemptOwn { key: own }), (cdb(4, 5), list(both.0, both.0, 0)));
    // Byte for byte, once.
    assert_eq!(
        out(preempt).1,
        [1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(out(first).1[16..], [0, 0, 0, 0, 1, 0, 0, 0], "APTPL is bit 0 of byte 20");
}

#[test]
fn the_bytes_of_what_asks() {
    for (command, action) in [(Command::ReadKeys, 0), (Command::ReadReservation, 1), (Command::ReportCapabilities, 2)] {
        let cdb = vec![0x5e, action, 0, 0, 0, 0, 0, 0x80, 0, 0];
        assert_eq!(command.encode(), Some(Encoded { cdb, data: DataPhase::In(0x8000) }));
        assert!(!command.is_change());
    }
    let ready = Encoded { cdb: vec![0; 6], data: DataPhase::None };
    assert_eq!(Command::TestUnitReady.encode(), Some(ready));
    assert_eq!(Command::Reset.encode(), None);
}

#[test]
fn read_keys() {
    // sg_persist --in --read-keys -H of a LUN with two registered paths.
    let data = [
        0, 0, 1, 4, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0, 0, 0, 0, 0, 0, 2, // and what was there before
        0xee, 0xee,
    ];
    let keys = Keys::parse(&data).expect("whole");
    assert_eq!(keys, Keys { generation: 260, keys: vec![key(1), key(0x8000_0000_0000_0002)] });
    assert!(keys.contains(key(1)) && !keys.contains(key(2)));
    let none = Keys { generation: u32::MAX, keys: Vec::new() };
    assert_eq!(Keys::parse(&[255, 255, 255, 255, 0, 0, 0, 0]), Ok(none));
    for cut in 0..24 {
        assert_eq!(Keys::parse(&data[..cut]), Err(Malformed { what: "READ KEYS", bytes: cut }));
    }
    let mut odd = data;
    odd[7] = 12;
    assert!(Keys::parse(&odd).is_err(), "a list of a key and a half");
}

#[test]
fn read_reservation() {
    let none = [0, 0, 0, 7, 0, 0, 0, 0];
    assert_eq!(Reservation::parse(&none), Ok(None));
    let held = [0, 0, 0, 7, 0, 0, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0x05, 0, 0];
    let expected = Reservation { key: Some(key(0x0102_0304_0506_0708)), kind: ReservationType::REGISTRANTS_ONLY };
    assert_eq!(Reservation::parse(&held), Ok(Some(expected)));
    let all = [0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07, 0, 0];
    assert_eq!(Reservation::parse(&all), Ok(Some(Reservation { key: None, kind: ReservationType(7) })));
    assert!(Reservation::parse(&held[..23]).is_err());
}

#[test]
fn report_capabilities() {
    // LIO's answer: ATP_C, PTPL_C; TMV; all types.
    let lio = [0, 8, 0x05, 0x80, 0xea, 0x01, 0, 0];
    assert_eq!(Capabilities::parse(&lio), Ok(Capabilities { persists: true, registrants_only: true }));
    let poor = [0, 8, 0, 0x80, 0x02, 0, 0, 0];
    assert_eq!(Capabilities::parse(&poor), Ok(Capabilities { persists: false, registrants_only: false }));
    let silent = [0, 8, 1, 0, 0, 0, 0, 0];
    assert_eq!(Capabilities::parse(&silent), Ok(Capabilities { persists: true, registrants_only: true }));
    assert!(Capabilities::parse(&lio[..4]).is_err());
}

#[test]
fn sense_of_both_formats() {
    let attention = Sense { key: 6, code: 0x2a, qualifier: 0x05 };
    let fixed = [0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x2a, 0x05, 0, 0, 0, 0];
    assert_eq!(Sense::parse(&fixed), Some(attention));
    assert_eq!(Sense::parse(&[0x72, 0x06, 0x2a, 0x05, 0, 0, 0, 0]), Some(attention));
    assert!(attention.is_unit_attention());
    assert_eq!(Sense::parse(&fixed[..12]), None);
    assert_eq!(Sense::parse(&[]), None);
    assert_eq!(attention.to_string(), "sense key 6h, code 2ah/05h");
}

#[test]
fn statuses() {
    let sense = [0x72, 0x05, 0x20, 0x00];
    assert_eq!(Status::decode(0, &sense, vec![1]), Status::Good(vec![1]));
    assert_eq!(Status::decode(0x18, &[], Vec::new()), Status::Conflict);
    let check = Status::Check(Sense { key: 5, code: 0x20, qualifier: 0 });
    assert_eq!(Status::decode(2, &sense, Vec::new()), check);
    assert_eq!(Status::decode(2, &[], Vec::new()), Status::Again(2));
    assert_eq!(Status::decode(2, &[0x72, 0x01, 0x17, 0x00], vec![7]), Status::Good(vec![7]), "recovered");
    for again in [0x08, 0x28, 0x30, 0x40] {
        assert_eq!(Status::decode(again, &[], Vec::new()), Status::Again(again));
    }
}

proptest::proptest! {
    /// Nothing that a LUN answers makes a panic, and what is parsed fits into what was sent.
    #[test]
    fn any_answer_is_parsed_or_refused(data: Vec<u8>) {
        if let Ok(keys) = Keys::parse(&data) {
            proptest::prop_assert!(keys.keys.len() * 8 + HEADER_BYTES <= data.len());
        }
        let _ = Reservation::parse(&data);
        let _ = Capabilities::parse(&data);
        let _ = Sense::parse(&data);
    }
}
