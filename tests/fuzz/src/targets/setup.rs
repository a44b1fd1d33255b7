//! An attacker without the key, who talks to a listener and a connector at once: makes messages up, passes on what one
//! has said to the other, and plays it back.
//!
//! Each side's conversation may only come about if the attacker passed on what the other one said, unchanged. Whoever
//! is admitted or welcomed is therefore the very other side.

use crate::seal::sealed_message;
use twinsan_auth::{Connector, ConnectorStep, Key, Keyring, Listener, ListenerStep};
use twinsan_wire::{Incarnation, NodeId, Purpose, SetupMsg, VolumeName};

const PURPOSE: Purpose = Purpose::Peer { node: NodeId::B, incarnation: Incarnation::from_random(1) };
/// The longest message that the script makes up, its kind included: Hello's.
const LONGEST: usize = 113;

pub(crate) fn run(script: &[u8]) {
    let volume = VolumeName::new("vol0").expect("a legal name");
    let key = Key::new(b"sixteen bytes ok").expect("long enough");
    let volumes = Keyring::from_iter([(volume, Some(key.clone()))]);
    let (mut connector, hello) = Connector::new(PURPOSE, volume, Some(key), [1; 32]);
    let mut listener = Listener::new(NodeId::A, [2; 32]);

    let mut said = vec![hello.encode().as_bytes().to_vec()];
    let (mut heard_by_listener, mut heard_by_connector) = (Vec::new(), Vec::new());
    let mut rest = script;
    while let [to, which, tail @ ..] = rest {
        // Below 16: something said before. Else: made up.
        let message = if *which < 16 {
            rest = tail;
            said.get(usize::from(*which)).cloned()
        } else {
            let (made_up, tail) = tail.split_at(tail.len().min(LONGEST));
            rest = tail;
            sealed_message(made_up)
        };
        let Some(message) = message else { continue };
        if to % 2 == 0 {
            heard_by_listener.push(message.clone());
            match listener.handle_bytes(&message, &volumes) {
                Ok(ListenerStep::Send(msg)) => said.push(msg.encode().as_bytes().to_vec()),
                Ok(ListenerStep::Admitted(admitted)) => {
                    assert_eq!((admitted.purpose, admitted.volume), (PURPOSE, volume));
                    assert!(heard_by_listener.iter().all(|message| said.contains(message)));
                }
                Err(error) => drop(error.reply()),
            }
        } else {
            heard_by_connector.push(message.clone());
            match connector.handle_bytes(&message) {
                Ok(ConnectorStep::Send(msg)) => said.push(msg.encode().as_bytes().to_vec()),
                Ok(ConnectorStep::Welcomed(_)) => {
                    // The Welcome itself is not proven; what came before it is the listener's own Challenge.
                    assert!(said.contains(&heard_by_connector[0]));
                    assert!(matches!(SetupMsg::decode(&heard_by_connector[0]), Ok(SetupMsg::Challenge { .. })));
                }
                Err(_) => {}
            }
        }
    }
}
