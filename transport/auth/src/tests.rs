//! Both machines against each other, and an attacker against each.

use proptest::prelude::*;
use twinsan_wire::{
    DecodeError, Incarnation, NodeId, Purpose, Rejection, RemoteKey, SetupMsg, VolumeName, VolumeShape,
};

use crate::{Admitted, AuthError, Connector, ConnectorStep, Key, Keyring, Listener, ListenerStep, Nonce, Welcome};

const CONNECTOR_NONCE: Nonce = [0x11; 32];
const LISTENER_NONCE: Nonce = [0x22; 32];
const PEER: Purpose = Purpose::Peer { node: NodeId::B, incarnation: incarnation() };
const RELAY: Purpose = Purpose::Relay { node: NodeId::B, incarnation: incarnation() };
const PURPOSES: [Purpose; 4] = [Purpose::Client, PEER, RELAY, Purpose::Probe { node: NodeId::B }];

const fn incarnation() -> Incarnation {
    Incarnation::from_random(0xb0b)
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

fn right_key() -> Key {
    key("correct horse battery staple")
}

fn volume() -> VolumeName {
    VolumeName::new("vol0").unwrap()
}

fn serving(key: Option<Key>) -> Keyring {
    Keyring::from_iter([(volume(), key)])
}

fn connector(purpose: Purpose, key: Option<Key>) -> (Connector, SetupMsg) {
    Connector::new(purpose, volume(), key, CONNECTOR_NONCE)
}

fn welcome_from(node: NodeId) -> SetupMsg {
    let volume = VolumeShape { uuid: [7; 16], blocks: 1 << 20, block_bytes: 4096, ring_bytes: 1 << 24 };
    SetupMsg::Welcome { node, incarnation: incarnation(), volume, mailbox: RemoteKey(42) }
}

/// What a listener sends; it must want to.
fn sent(step: Result<ListenerStep, AuthError>) -> SetupMsg {
    match step {
        Ok(ListenerStep::Send(msg)) => msg,
        other => panic!("{other:?} where a message was due"),
    }
}

/// What a connector sends; it must want to.
fn answered(step: Result<ConnectorStep, AuthError>) -> SetupMsg {
    match step {
        Ok(ConnectorStep::Send(msg)) => msg,
        other => panic!("{other:?} where a message was due"),
    }
}

/// Hello, Challenge and Proof of an honest conversation.
fn honest(purpose: Purpose, key: &Key) -> [SetupMsg; 3] {
    let (mut connector, hello) = connector(purpose, Some(key.clone()));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    let challenge = sent(listener.handle(hello, &serving(Some(key.clone()))));
    let proof = answered(connector.handle(challenge));
    [hello, challenge, proof]
}

#[test]
fn both_get_through_with_the_same_key_and_with_none() {
    for key in [Some(right_key()), None] {
        for purpose in PURPOSES {
            let volumes = serving(key.clone());
            let (mut connector, hello) = connector(purpose, key.clone());
            let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
            let challenge = sent(listener.handle_bytes(hello.encode().as_bytes(), &volumes));
            let proof = answered(connector.handle_bytes(challenge.encode().as_bytes()));
            let admitted = listener.handle_bytes(proof.encode().as_bytes(), &volumes);
            assert_eq!(admitted, Ok(ListenerStep::Admitted(Admitted { purpose, volume: volume() })));
            let SetupMsg::Welcome { node, incarnation, volume, mailbox } = welcome_from(NodeId::A) else {
                unreachable!()
            };
            assert_eq!(
                connector.handle_bytes(welcome_from(NodeId::A).encode().as_bytes()),
                Ok(ConnectorStep::Welcomed(Welcome { node, incarnation, volume, mailbox }))
            );
        }
    }
}

/// The transcript, byte by byte, as Python's hmac and hashlib compute it over the layout in [`crate::proof`].
#[test]
fn the_proofs_are_pinned() {
    let [_, challenge, proof] = honest(PEER, &right_key());
    let SetupMsg::Challenge { proof: Some(listener), .. } = challenge else { panic!("{challenge:?}") };
    let SetupMsg::Proof { proof: Some(connector) } = proof else { panic!("{proof:?}") };
    assert_eq!(hex(&listener), "bb6849747b68e3f49bce70368abb9013facdb563fc279b63da38898f22b0b395");
    assert_eq!(hex(&connector), "5f2374be5789e19279c9ddb1f2e31c38c222c0bbeac53015ebb596fca8e92e1d");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn nothing_that_opens_memory_and_no_key_is_said_before_the_proofs() {
    let key = right_key();
    for msg in honest(PEER, &key) {
        assert!(
            matches!(msg, SetupMsg::Hello { .. } | SetupMsg::Challenge { .. } | SetupMsg::Proof { .. }),
            "{msg:?} may carry a remote key"
        );
        let bytes = msg.encode();
        assert!(!bytes.as_bytes().windows(key.bytes().len()).any(|window| window == key.bytes()));
    }
}

#[test]
fn a_connector_with_a_wrong_key_finds_out_first() {
    let (mut connector, hello) = connector(Purpose::Client, Some(key("wrong horse battery staple")));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    let challenge = sent(listener.handle(hello, &serving(Some(right_key()))));
    assert_eq!(connector.handle(challenge), Err(AuthError::WrongKey { volume: volume() }));
}

#[test]
fn a_listener_does_not_let_a_wrong_key_in() {
    let volumes = serving(Some(right_key()));
    let (_, hello) = connector(Purpose::Client, Some(key("wrong horse battery staple")));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(hello, &volumes));
    // It ignores that the listener's proof is not its key's, and sends what its own key gives.
    let [.., forged] = honest(Purpose::Client, &key("wrong horse battery staple"));
    let refused = listener.handle(forged, &volumes).unwrap_err();
    assert_eq!(refused, AuthError::WrongKey { volume: volume() });
    assert_eq!(refused.reply(), Some(SetupMsg::Rejected { why: Rejection::WrongKey }));
}

#[test]
fn a_listener_takes_one_try() {
    let volumes = serving(Some(right_key()));
    let [hello, _, right] = honest(Purpose::Client, &right_key());
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(hello, &volumes));
    listener.handle(SetupMsg::Proof { proof: Some([0; 32]) }, &volumes).unwrap_err();
    for msg in [right, hello] {
        assert!(matches!(listener.handle(msg, &volumes), Err(AuthError::OutOfTurn { expected: "nothing", .. })));
    }
}

#[test]
fn a_proof_is_due_after_hello_and_only_once() {
    let volumes = serving(Some(right_key()));
    let [hello, _, right] = honest(Purpose::Client, &right_key());
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    assert!(matches!(listener.handle(right, &volumes), Err(AuthError::OutOfTurn { expected: "Hello", .. })));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(hello, &volumes));
    assert!(matches!(listener.handle(hello, &volumes), Err(AuthError::OutOfTurn { expected: "Proof", .. })));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(hello, &volumes));
    listener.handle(right, &volumes).unwrap();
    assert!(matches!(listener.handle(right, &volumes), Err(AuthError::OutOfTurn { expected: "nothing", .. })));
}

#[test]
fn nobody_goes_on_with_less_than_its_own_key() {
    let no_key = AuthError::PeerHasNoKey { volume: volume() };
    let has_key = AuthError::PeerHasKey { volume: volume() };

    // The listener, from what Hello says.
    let (_, unkeyed) = connector(Purpose::Client, None);
    let refused = Listener::new(NodeId::A, LISTENER_NONCE).handle(unkeyed, &serving(Some(right_key())));
    assert_eq!(refused, Err(no_key));
    let (_, keyed) = connector(Purpose::Client, Some(right_key()));
    let refused = Listener::new(NodeId::A, LISTENER_NONCE).handle(keyed, &serving(None));
    assert_eq!(refused, Err(has_key));
    for error in [no_key, has_key] {
        assert_eq!(error.reply(), Some(SetupMsg::Rejected { why: Rejection::WrongKey }));
    }

    // The listener, from what Proof lacks or should not have.
    let volumes = serving(Some(right_key()));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(keyed, &volumes));
    assert_eq!(listener.handle(SetupMsg::Proof { proof: None }, &volumes), Err(no_key));
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(unkeyed, &serving(None)));
    assert_eq!(listener.handle(SetupMsg::Proof { proof: Some([0; 32]) }, &serving(None)), Err(has_key));

    // The connector, from what Challenge lacks or should not have.
    let challenge = |proof| SetupMsg::Challenge { nonce: LISTENER_NONCE, proof };
    assert_eq!(connector(Purpose::Client, Some(right_key())).0.handle(challenge(None)), Err(no_key));
    assert_eq!(connector(Purpose::Client, None).0.handle(challenge(Some([0; 32]))), Err(has_key));
}

/// Somebody between the two says that neither has a key.
#[test]
fn a_downgrade_on_the_way_is_refused_at_both_ends() {
    let (mut connector, hello) = connector(Purpose::Client, Some(right_key()));
    let SetupMsg::Hello { purpose, volume, nonce, .. } = hello else { unreachable!() };
    let stripped = SetupMsg::Hello { purpose, volume, nonce, keyed: false };
    let refused = Listener::new(NodeId::A, LISTENER_NONCE).handle(stripped, &serving(Some(right_key())));
    assert_eq!(refused, Err(AuthError::PeerHasNoKey { volume }));
    let stripped = SetupMsg::Challenge { nonce: LISTENER_NONCE, proof: None };
    assert_eq!(connector.handle(stripped), Err(AuthError::PeerHasNoKey { volume }));
}

/// The attacker has no key: it sends back what it is sent, or has another listener answer.
#[test]
fn a_mirror_proves_nothing() {
    let volumes = serving(Some(right_key()));

    // To the connector: its own nonce.
    let (mut victim, hello) = connector(PEER, Some(right_key()));
    let challenge = SetupMsg::Challenge { nonce: CONNECTOR_NONCE, proof: Some([0; 32]) };
    assert_eq!(victim.handle(challenge), Err(AuthError::Reflected));

    // To the listener: its own nonce, as learned from an earlier try (nonces are fresh, so this takes a broken one).
    let SetupMsg::Hello { purpose, volume, keyed, .. } = hello else { unreachable!() };
    let mirrored = SetupMsg::Hello { purpose, volume, nonce: LISTENER_NONCE, keyed };
    let refused = Listener::new(NodeId::A, LISTENER_NONCE).handle(mirrored, &volumes);
    assert_eq!(refused, Err(AuthError::Reflected));

    // To the listener: its own proof.
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    let SetupMsg::Challenge { proof, .. } = sent(listener.handle(hello, &volumes)) else { unreachable!() };
    assert_eq!(listener.handle(SetupMsg::Proof { proof }, &volumes), Err(AuthError::WrongKey { volume }));

    // To the listener: the proof that a second listener of the same volume gives to the same Hello.
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(hello, &volumes));
    let mut second = Listener::new(NodeId::A, LISTENER_NONCE);
    let SetupMsg::Challenge { proof, .. } = sent(second.handle(hello, &volumes)) else { unreachable!() };
    assert_eq!(listener.handle(SetupMsg::Proof { proof }, &volumes), Err(AuthError::WrongKey { volume }));
}

#[test]
fn a_recorded_conversation_opens_nothing() {
    let volumes = serving(Some(right_key()));
    let [hello, challenge, proof] = honest(Purpose::Client, &right_key());

    let mut listener = Listener::new(NodeId::A, [0x33; 32]);
    sent(listener.handle(hello, &volumes));
    assert_eq!(listener.handle(proof, &volumes), Err(AuthError::WrongKey { volume: volume() }));

    let (mut victim, _) = Connector::new(Purpose::Client, volume(), Some(right_key()), [0x44; 32]);
    assert_eq!(victim.handle(challenge), Err(AuthError::WrongKey { volume: volume() }));
}

/// A client that is allowed in does not become a node, nor an owner of another volume: what Hello said is in the proof.
#[test]
fn a_proof_is_worth_nothing_for_another_purpose_or_volume() {
    let [hello, _, proof] = honest(Purpose::Client, &right_key());
    let SetupMsg::Hello { nonce, keyed, .. } = hello else { unreachable!() };
    let other = VolumeName::new("vol1").unwrap();
    let volumes = Keyring::from_iter([(volume(), Some(right_key())), (other, Some(right_key()))]);
    for (purpose, volume) in
        [(PEER, volume()), (RELAY, volume()), (Purpose::Probe { node: NodeId::B }, volume()), (Purpose::Client, other)]
    {
        let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
        sent(listener.handle(SetupMsg::Hello { purpose, volume, nonce, keyed }, &volumes));
        assert_eq!(listener.handle(proof, &volumes), Err(AuthError::WrongKey { volume }), "{purpose:?} {volume:?}");
    }
    // Nor does one incarnation, or node, pass for another.
    let [_, _, proof] = honest(PEER, &right_key());
    let purpose = Purpose::Peer { node: NodeId::B, incarnation: Incarnation::from_random(0xbad) };
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    sent(listener.handle(SetupMsg::Hello { purpose, volume: volume(), nonce, keyed }, &volumes));
    assert_eq!(listener.handle(proof, &volumes), Err(AuthError::WrongKey { volume: volume() }));
}

#[test]
fn an_unknown_volume_is_refused_by_name() {
    let (_, hello) = connector(Purpose::Client, Some(right_key()));
    let refused = Listener::new(NodeId::A, LISTENER_NONCE).handle(hello, &Keyring::default()).unwrap_err();
    assert_eq!(refused, AuthError::UnknownVolume { volume: volume() });
    assert_eq!(refused.reply(), Some(SetupMsg::Rejected { why: Rejection::UnknownVolume }));
    assert_eq!(refused.to_string(), "volume \"vol0\": not served here");
}

#[test]
fn a_node_does_not_take_itself_for_the_other_one() {
    for purpose in [PEER, RELAY, Purpose::Probe { node: NodeId::B }] {
        let (mut connector, hello) = connector(purpose, None);
        let refused = Listener::new(NodeId::B, LISTENER_NONCE).handle(hello, &serving(None)).unwrap_err();
        assert_eq!(refused, AuthError::OwnName { node: NodeId::B });
        assert_eq!(refused.reply(), Some(SetupMsg::Rejected { why: Rejection::NotAPeer }));

        let challenge = SetupMsg::Challenge { nonce: LISTENER_NONCE, proof: None };
        assert_eq!(connector.handle(challenge), Ok(ConnectorStep::Send(SetupMsg::Proof { proof: None })));
        assert_eq!(connector.handle(welcome_from(NodeId::B)), Err(AuthError::OwnName { node: NodeId::B }));
    }
}

#[test]
fn another_version_is_told_from_rubbish() {
    let (_, hello) = connector(Purpose::Client, None);
    let mut bytes = hello.encode().as_bytes().to_vec();
    bytes[4] = 9;
    let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
    let refused = listener.handle_bytes(&bytes, &serving(None)).unwrap_err();
    assert!(matches!(refused, AuthError::Decode(DecodeError::Version { found: 9, .. })));
    assert_eq!(refused.reply(), Some(SetupMsg::Rejected { why: Rejection::Version }));
    // And it stays refused.
    assert!(matches!(listener.handle(hello, &serving(None)), Err(AuthError::OutOfTurn { .. })));

    let refused = Listener::new(NodeId::A, LISTENER_NONCE).handle_bytes(b"GET / HTTP/1.1\r\n\r\n", &serving(None));
    assert_eq!(refused.unwrap_err().reply(), None);
}

#[test]
fn a_refusal_reaches_the_connector_at_either_step_and_ends_it() {
    for why in [Rejection::UnknownVolume, Rejection::WrongKey, Rejection::Version, Rejection::NotAPeer] {
        let (mut early, _) = connector(Purpose::Client, None);
        assert_eq!(early.handle(SetupMsg::Rejected { why }), Err(AuthError::Rejected { why }));
        let (mut late, _) = connector(Purpose::Client, None);
        let challenge = SetupMsg::Challenge { nonce: LISTENER_NONCE, proof: None };
        answered(late.handle(challenge));
        assert_eq!(late.handle(SetupMsg::Rejected { why }), Err(AuthError::Rejected { why }));
        for ended in [&mut early, &mut late] {
            assert!(matches!(ended.handle(challenge), Err(AuthError::OutOfTurn { expected: "nothing", .. })));
            assert!(matches!(ended.handle(welcome_from(NodeId::A)), Err(AuthError::OutOfTurn { .. })));
        }
    }
}

#[test]
fn a_connector_is_not_welcomed_without_a_challenge() {
    let (mut connector, _) = connector(Purpose::Client, Some(right_key()));
    assert!(matches!(
        connector.handle(welcome_from(NodeId::A)),
        Err(AuthError::OutOfTurn { got: "Welcome", expected: "Challenge" })
    ));
}

proptest! {
    /// Whatever single message is changed on the way, in whatever field, nobody is let in.
    #[test]
    fn one_changed_message_and_nobody_is_admitted(
        which in 0..3usize, offset in 0..96usize, flip in 1..=255u8, purpose in 0..3usize,
    ) {
        let purpose = PURPOSES[purpose];
        let volumes = serving(Some(right_key()));
        let tampered = |index: usize, msg: SetupMsg| if index == which { tamper(msg, offset, flip) } else { Some(msg) };
        let (mut connector, hello) = connector(purpose, Some(right_key()));
        let mut listener = Listener::new(NodeId::A, LISTENER_NONCE);
        let mut converse = || -> Option<ListenerStep> {
            let Ok(ListenerStep::Send(challenge)) = listener.handle(tampered(0, hello)?, &volumes) else { return None };
            let Ok(ConnectorStep::Send(proof)) = connector.handle(tampered(1, challenge)?) else { return None };
            listener.handle(tampered(2, proof)?, &volumes).ok()
        };
        prop_assert_eq!(converse(), None);
    }
}

/// The message with one byte of its nonce, proof or volume changed; `None` if that makes it illegal.
fn tamper(msg: SetupMsg, offset: usize, flip: u8) -> Option<SetupMsg> {
    let change = |mut bytes: [u8; 32]| {
        bytes[offset % 32] ^= flip;
        bytes
    };
    Some(match msg {
        SetupMsg::Hello { purpose, volume, nonce, keyed } if offset < 64 => {
            SetupMsg::Hello { purpose, volume, nonce: change(nonce), keyed }
        }
        SetupMsg::Hello { purpose, volume, nonce, keyed } => {
            let mut bytes = *volume.as_bytes();
            bytes[offset - 64] ^= flip;
            SetupMsg::Hello { purpose, volume: VolumeName::from_wire("", &bytes).ok()?, nonce, keyed }
        }
        SetupMsg::Challenge { nonce, proof } if offset < 48 => SetupMsg::Challenge { nonce: change(nonce), proof },
        SetupMsg::Challenge { nonce, proof } => SetupMsg::Challenge { nonce, proof: proof.map(change) },
        SetupMsg::Proof { proof } => SetupMsg::Proof { proof: proof.map(change) },
        other => panic!("{other:?} is not part of the proofs"),
    })
}
