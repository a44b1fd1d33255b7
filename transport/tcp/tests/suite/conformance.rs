//! The conformance suite over TCP, over unix sockets, and over both with the fault injector between.

use twinsan_fabric::conformance::sent_needs_no_receiver;
use twinsan_fabric::conformance_tests;

use crate::setups::{faulty, faulty_unix, tcp, tcp6, unix};

conformance_tests!(over_tcp, tcp);
conformance_tests!(over_tcp6, tcp6);
conformance_tests!(over_unix, unix);
conformance_tests!(over_faulty_tcp, faulty);
conformance_tests!(over_faulty_unix, faulty_unix);

#[test]
fn what_is_sent_is_the_kernels() {
    [tcp, tcp6, unix, faulty, faulty_unix].into_iter().for_each(|setup| sent_needs_no_receiver(setup()));
}
