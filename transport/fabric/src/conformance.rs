//! What every fabric must do, as tests that any of them can run.
//!
//! One function for each line of the contract and each limit; [`TESTS`] names them all and
//! [`conformance_tests!`](crate::conformance_tests) makes a `#[test]` of each. A test is given two fresh fabrics of the
//! kind in question and drives both on its own thread; it waits for events, never for time, and gives up after
//! [`PATIENCE`].

mod harness;
mod keys;
mod life;
mod limits;
mod mailbox;
mod memory;
mod order;
mod watch;

use std::any::Any;
use std::time::Duration;

pub use mailbox::mailbox_under_overwrite;
pub use memory::sent_needs_no_receiver;

use crate::Fabric;

/// A test that has waited so long for one event has failed. Far beyond what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two fabrics that can reach each other.
pub struct Setup {
    /// The one that connects.
    pub left: Box<dyn Fabric>,
    /// The one that listens.
    pub right: Box<dyn Fabric>,
    /// Where `right` may listen.
    pub address: String,
    /// Where nobody listens.
    pub nobody: String,
    /// Kept until the test is over (a directory, say).
    pub keep: Box<dyn Any>,
}

/// A conformance test.
pub type Test = fn(Setup);

/// All tests, by name.
pub const TESTS: &[(&str, Test)] = &[
    ("events_come_in_post_order", order::events_come_in_post_order),
    ("payload_is_there_at_its_immediate", order::payload_is_there_at_its_immediate),
    ("payload_is_there_at_a_later_message", order::payload_is_there_at_a_later_message),
    ("plain_write_is_not_reported", order::plain_write_is_not_reported),
    ("empty_writes_are_fine", order::empty_writes_are_fine),
    ("both_directions_at_once", order::both_directions_at_once),
    ("unsolicited_posts_keep_order_and_arrive", order::unsolicited_posts_keep_order_and_arrive),
    (
        "an_unsolicited_message_is_there_when_a_poll_has_ended",
        order::an_unsolicited_message_is_there_when_a_poll_has_ended,
    ),
    ("inline_payload_is_copied_at_the_post", memory::inline_payload_is_copied_at_the_post),
    ("nothing_leaves_before_submit", memory::nothing_leaves_before_submit),
    ("memory_is_free_after_sent", memory::memory_is_free_after_sent),
    ("sent_covers_earlier_posts", memory::sent_covers_earlier_posts),
    ("completions_come_once_and_in_order", memory::completions_come_once_and_in_order),
    ("sent_says_nothing_about_the_receiver", memory::sent_says_nothing_about_the_receiver),
    ("writes_land_at_their_place", keys::writes_land_at_their_place),
    ("wrong_key_is_refused", keys::wrong_key_is_refused),
    ("key_of_another_connection_is_refused", keys::key_of_another_connection_is_refused),
    ("key_dies_with_its_connection", keys::key_dies_with_its_connection),
    ("out_of_range_is_refused", keys::out_of_range_is_refused),
    ("what_came_before_a_violation_stands", keys::what_came_before_a_violation_stands),
    ("expose_checks_its_arguments", keys::expose_checks_its_arguments),
    ("limits_are_wide_enough", limits::limits_are_wide_enough),
    ("inline_limit", limits::inline_limit),
    ("message_limit", limits::message_limit),
    ("send_depth", limits::send_depth),
    ("local_slices_are_checked", limits::local_slices_are_checked),
    ("posts_need_a_connection", limits::posts_need_a_connection),
    ("receiver_that_does_not_poll_holds_its_sender_back", limits::receiver_that_does_not_poll_holds_its_sender_back),
    ("refused_connect_is_told", life::refused_connect_is_told),
    ("bad_addresses_are_errors", life::bad_addresses_are_errors),
    ("listening_twice_is_refused", life::listening_twice_is_refused),
    ("close_is_told_once", life::close_is_told_once),
    ("a_dead_peer_is_told", life::a_dead_peer_is_told),
    ("nothing_lands_after_disconnect", life::nothing_lands_after_disconnect),
    ("no_event_after_disconnect", life::no_event_after_disconnect),
    ("disconnect_frees_local_slices", life::disconnect_frees_local_slices),
    ("disconnect_while_connecting", life::disconnect_while_connecting),
    ("many_connections", life::many_connections),
    ("ids_are_never_reused", life::ids_are_never_reused),
    ("mailbox_reader_with_a_crc_survives_tearing", mailbox::mailbox_reader_with_a_crc_survives_tearing),
    ("watched_descriptor_is_reported_while_ready", watch::watched_descriptor_is_reported_while_ready),
    ("watched_for_room_to_write", watch::watched_for_room_to_write),
    ("unwatched_descriptor_is_not_reported", watch::unwatched_descriptor_is_not_reported),
    ("a_sleeping_poll_wakes", watch::a_sleeping_poll_wakes),
    ("poll_counts_what_it_adds", watch::poll_counts_what_it_adds),
];

/// Runs the test called `name`.
///
/// # Panics
/// If the fabric fails it, or there is no such test.
pub fn run(name: &str, setup: Setup) {
    let (_, test) = TESTS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no test called {name}"));
    test(setup);
}

/// Makes a `#[test]` of each of [`TESTS`], in a module: `conformance_tests!(tcp, make_tcp);` where `make_tcp` is a `fn() -> Setup`. One more sees to it that none is missing here.
#[macro_export]
macro_rules! conformance_tests {
    ($kind:ident, $make:ident) => {
        $crate::conformance_tests! { @each $kind, $make,
            events_come_in_post_order
            payload_is_there_at_its_immediate
            payload_is_there_at_a_later_message
            plain_write_is_not_reported
            empty_writes_are_fine
            both_directions_at_once
            unsolicited_posts_keep_order_and_arrive
            an_unsolicited_message_is_there_when_a_poll_has_ended
            inline_payload_is_copied_at_the_post
            nothing_leaves_before_submit
            memory_is_free_after_sent
            sent_covers_earlier_posts
            completions_come_once_and_in_order
            sent_says_nothing_about_the_receiver
            writes_land_at_their_place
            wrong_key_is_refused
            key_of_another_connection_is_refused
            key_dies_with_its_connection
            out_of_range_is_refused
            what_came_before_a_violation_stands
            expose_checks_its_arguments
            limits_are_wide_enough
            inline_limit
            message_limit
            send_depth
            local_slices_are_checked
            posts_need_a_connection
            receiver_that_does_not_poll_holds_its_sender_back
            refused_connect_is_told
            bad_addresses_are_errors
            listening_twice_is_refused
            close_is_told_once
            a_dead_peer_is_told
            nothing_lands_after_disconnect
            no_event_after_disconnect
            disconnect_frees_local_slices
            disconnect_while_connecting
            many_connections
            ids_are_never_reused
            mailbox_reader_with_a_crc_survives_tearing
            watched_descriptor_is_reported_while_ready
            watched_for_room_to_write
            unwatched_descriptor_is_not_reported
            a_sleeping_poll_wakes
            poll_counts_what_it_adds
        }
    };
    (@each $kind:ident, $make:ident, $($name:ident)+) => {
        mod $kind {
            $(
                #[test]
                fn $name() {
                    $crate::conformance::run(stringify!($name), super::$make());
                }
            )+

            #[test]
            fn all_tests_are_here() {
                let here = [$(stringify!($name)),+];
                let all: Vec<_> = $crate::conformance::TESTS.iter().map(|(name, _)| *name).collect();
                assert_eq!(all, here);
            }
        }
    };
}
