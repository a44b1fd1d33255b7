//! What the host's other parts answer: the SCSI target, multipathd, the kernel by netlink.

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.byte() % 4 {
        0 => twinsan_sas::fuzz::reservations(input.0),
        1 => {
            let status = input.byte();
            let sense = input.counted();
            twinsan_sas::fuzz::status(status, sense, input.0);
        }
        2 => twinsan_sas::fuzz::multipathd(input.0, "mpatha"),
        _ => {
            let sequence = u32::from(input.byte());
            twinsan::fuzz::genl(input.0, sequence);
        }
    }
}
