//! Any 64 bytes in a mailbox slot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinsan_fuzz::sealed_64;
use twinsan_wire::Mailbox;

fuzz_target!(|data: &[u8]| {
    let Ok(bytes) = <[u8; 64]>::try_from(data) else { return };
    for bytes in [bytes, sealed_64(bytes)] {
        match Mailbox::decode(&bytes) {
            Ok(mailbox) => assert_eq!(mailbox.encode(), bytes),
            Err(error) => assert!(!error.is_torn() || bytes != sealed_64(bytes)),
        }
    }
});
