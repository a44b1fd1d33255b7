//! What is encoded is decoded again, whatever it is.

use proptest::prelude::*;
use twinsan_wire::limits::MAX_MESSAGE_BYTES;
use twinsan_wire::{ClientMsg, Descriptor, Immediate, Mailbox, NodeFrame, PeerMsg, SetupMsg, Times};

use crate::strategy;

proptest! {
    #[test]
    fn descriptor(value in strategy::descriptor()) {
        prop_assert_eq!(Descriptor::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn mailbox(value in strategy::mailbox()) {
        prop_assert_eq!(Mailbox::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn immediate(value in strategy::immediate()) {
        prop_assert_eq!(Immediate::decode(value.encode()), Ok(value));
    }

    #[test]
    fn peer_msg(value in strategy::peer_msg()) {
        let bytes = value.encode();
        prop_assert!(bytes.as_bytes().len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(PeerMsg::decode(bytes.as_bytes()), Ok(value));
    }

    #[test]
    fn client_msg(value in strategy::client_msg()) {
        let bytes = value.encode();
        prop_assert!(bytes.as_bytes().len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(ClientMsg::decode(bytes.as_bytes()), Ok(value));
    }

    #[test]
    fn node_frame(value in strategy::node_frame()) {
        let bytes = value.encode();
        prop_assert!(bytes.as_bytes().len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(NodeFrame::decode(bytes.as_bytes()), Ok(value));
    }

    #[test]
    fn times(value in strategy::times()) {
        prop_assert_eq!(Times::decode(value.encode().as_bytes()), Ok(value));
    }

    #[test]
    fn setup_msg(value in strategy::setup_msg()) {
        let bytes = value.encode();
        prop_assert!(bytes.as_bytes().len() <= MAX_MESSAGE_BYTES);
        prop_assert_eq!(SetupMsg::decode(bytes.as_bytes()), Ok(value));
    }

    /// A legal shape says so; and every read and blob that it takes ends on the volume.
    #[test]
    fn a_legal_shape_is_one(shape in strategy::volume_shape()) {
        prop_assert_eq!(shape.check(), Ok(()));
    }
}
