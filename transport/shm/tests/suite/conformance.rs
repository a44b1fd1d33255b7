//! The conformance suite, plain and with the fault injector between.

use twinsan_fabric::conformance_tests;

use crate::setups::{faulty, shm};

conformance_tests!(over_shm, shm);
conformance_tests!(over_faulty_shm, faulty);
