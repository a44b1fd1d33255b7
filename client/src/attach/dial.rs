//! Connecting to one node: each of its addresses in turn, then the proof of who is who.
//!
//! ```text
//! Idle ─begin─▶ Connecting ─Connected─▶ Proving ─Welcome─▶ (Welcomed; Idle)
//!   ▲               │  ▲                    │
//!   │               ▼  └─ next address ─────┤ closed, too late
//!   └── Failed ◀── no more addresses        └─ refused by name: Failed at once
//! ```

use twinsan_auth::{AuthError, Connector, ConnectorStep, Key, Welcome, fresh_nonce};
use twinsan_fabric::{CloseReason, ConnId, Fabric, Verdict};
use twinsan_session::ConnectError;
use twinsan_wire::{NodeId, Purpose, SetupMsg, VolumeName};

/// One address may take so long, its proof included.
const ADDRESS_TIMEOUT_MS: u64 = 1000;

/// Whom to connect to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    /// In the configuration.
    pub(crate) name: String,
    /// Best first.
    pub(crate) addresses: Vec<String>,
    pub(crate) volume: VolumeName,
    pub(crate) key: Option<Key>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Dialled {
    /// The node lets us in: the connection is the caller's now.
    Welcomed { conn: ConnId, welcome: Welcome },
    /// It did not work; with what people should know.
    Failed { error: ConnectError, why: String },
}

/// One attempt, or none.
#[derive(Debug)]
pub(crate) struct Dial {
    target: Target,
    attempt: Option<Attempt>,
    /// What was last said about better addresses that don't work.
    said: Vec<String>,
}

#[derive(Debug)]
struct Attempt {
    /// Index of the address being tried.
    address: usize,
    conn: ConnId,
    proof: Option<Connector>,
    deadline_ms: u64,
    /// What the addresses so far have come to.
    heard: Verdict,
    /// What was wrong with the addresses so far.
    why: Vec<String>,
}

impl Dial {
    pub(crate) const fn new(target: Target) -> Self {
        Self { target, attempt: None, said: Vec::new() }
    }

    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.attempt.is_none()
    }

    /// Whether events of this connection belong here.
    pub(crate) fn owns(&self, conn: ConnId) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.conn == conn)
    }

    /// Begins, with the first address.
    pub(crate) fn begin<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64) -> Option<Dialled> {
        assert!(self.attempt.is_none(), "one attempt at a time");
        self.try_from(fabric, now_ms, 0, Verdict::new(), Vec::new())
    }

    /// Tries the addresses from `address` on, until one can at least be tried.
    fn try_from<F: Fabric>(
        &mut self,
        fabric: &mut F,
        now_ms: u64,
        address: usize,
        mut heard: Verdict,
        mut why: Vec<String>,
    ) -> Option<Dialled> {
        for (at, text) in self.target.addresses.iter().enumerate().skip(address) {
            match fabric.connect(text) {
                Ok(conn) => {
                    let deadline_ms = now_ms + ADDRESS_TIMEOUT_MS;
                    self.attempt = Some(Attempt { address: at, conn, proof: None, deadline_ms, heard, why });
                    return None;
                }
                Err(error) => {
                    why.push(error.to_string());
                    heard.add(CloseReason::Unreachable(error.to_string()));
                }
            }
        }
        let error = if heard.is_refused() { ConnectError::Refused } else { ConnectError::Unreachable };
        Some(Dialled::Failed { error, why: why.join("; ") })
    }

    /// The connection is there: says Hello.
    pub(crate) fn connected<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64) -> Option<Dialled> {
        let nonce = match fresh_nonce() {
            Ok(nonce) => nonce,
            Err(error) => {
                let why = format!("no random bytes: {error}");
                return self.next_address(fabric, now_ms, CloseReason::Unreachable(why));
            }
        };
        let Target { volume, key, .. } = &self.target;
        let (connector, hello) = Connector::new(Purpose::Client, *volume, key.clone(), nonce);
        let attempt = self.attempt.as_mut().expect("a connection of an attempt");
        attempt.proof = Some(connector);
        self.say(fabric, now_ms, &hello)
    }

    /// A message of the proof.
    pub(crate) fn message<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64, bytes: &[u8]) -> Option<Dialled> {
        let attempt = self.attempt.as_mut().expect("a connection of an attempt");
        let step = attempt
            .proof
            .as_mut()
            .map_or(Err(AuthError::OutOfTurn { got: "a message", expected: "our Hello" }), |proof| {
                proof.handle_bytes(bytes)
            });
        match step {
            Ok(ConnectorStep::Send(msg)) => self.say(fabric, now_ms, &msg),
            Ok(ConnectorStep::Welcomed(welcome)) => {
                if welcome.node != self.target.node {
                    let why = format!(
                        "it is node {}, and this configuration says node {}: the two [[node]] tables must be in the \
                         same order everywhere",
                        welcome.node, self.target.node
                    );
                    return Some(self.rejected(fabric, &why));
                }
                let Attempt { conn, address, why, .. } = self.attempt.take().expect("it has just spoken");
                self.fallen_back(address, why);
                Some(Dialled::Welcomed { conn, welcome })
            }
            Err(error) => Some(self.rejected(fabric, &error.to_string())),
        }
    }

    /// It works, but not by the best address: said once, until it changes.
    fn fallen_back(&mut self, address: usize, why: Vec<String>) {
        if !why.is_empty() && why != self.said {
            let by = &self.target.addresses[address];
            tracing::warn!(node = self.target.name, "reached by {by}, and not by a better address: {}", why.join("; "));
        }
        self.said = why;
    }

    /// The connection has ended.
    pub(crate) fn closed<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64, why: &CloseReason) -> Option<Dialled> {
        self.next_address(fabric, now_ms, why.clone())
    }

    /// Gives an address up that takes too long.
    pub(crate) fn tick<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64) -> Option<Dialled> {
        let attempt = self.attempt.as_ref()?;
        if now_ms < attempt.deadline_ms {
            return None;
        }
        fabric.disconnect(attempt.conn);
        let why = format!("no answer within {ADDRESS_TIMEOUT_MS} ms");
        self.next_address(fabric, now_ms, CloseReason::Unreachable(why))
    }

    fn say<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64, msg: &SetupMsg) -> Option<Dialled> {
        let conn = self.attempt.as_ref().expect("a connection of an attempt").conn;
        if let Err(error) = fabric.send(conn, msg.encode().as_bytes()) {
            fabric.disconnect(conn);
            return self.next_address(fabric, now_ms, CloseReason::Unreachable(error.to_string()));
        }
        fabric.submit(conn);
        None
    }

    fn next_address<F: Fabric>(&mut self, fabric: &mut F, now_ms: u64, reason: CloseReason) -> Option<Dialled> {
        let Attempt { address, mut heard, mut why, .. } = self.attempt.take().expect("an attempt has failed");
        why.push(format!("{}: {reason}", self.target.addresses[address]));
        heard.add(reason);
        self.try_from(fabric, now_ms, address + 1, heard, why)
    }

    /// The node is there and does not want us: its other addresses would say the same.
    fn rejected<F: Fabric>(&mut self, fabric: &mut F, reason: &str) -> Dialled {
        let Attempt { address, conn, .. } = self.attempt.take().expect("an attempt has failed");
        fabric.disconnect(conn);
        let why = format!("{}: {reason}", self.target.addresses[address]);
        Dialled::Failed { error: ConnectError::Rejected, why }
    }
}
