//! The model's nodes: what they answer, and how their members change, each time in one stroke.

use super::*;

impl Cluster {
    pub(super) fn role(&self, node: NodeId) -> Role {
        let own = self.nodes[node.index()].incarnation;
        match () {
            () if self.members[node.index()] != own => {
                if self.joiner == own {
                    Role::Joining
                } else {
                    Role::Waiting
                }
            }
            () if self.primary == node => Role::Primary,
            () => Role::Secondary,
        }
    }

    pub(super) fn send_view(&mut self, conn: ConnId) {
        let node = self.wires[&conn].node;
        let view = Say {
            role: self.role(node),
            from: self.nodes[node.index()].incarnation,
            epoch: self.epoch.0,
            primary: Some(self.primary),
            members: self.members,
            joiner: self.joiner,
            generation: self.generation,
        };
        self.send(conn, Down::Message(view.msg()));
    }

    /// All say who serves, and where they stand.
    pub(super) fn announce(&mut self) {
        let conns: Vec<ConnId> = self.wires.keys().copied().collect();
        for conn in conns {
            self.send_view(conn);
        }
        for node in NodeId::BOTH {
            self.tell(node);
        }
    }

    pub(super) fn tell(&mut self, node: NodeId) {
        let durable = (self.role(node) == Role::Primary).then(|| self.durable());
        let Node { session: Some(conn), lane: Some(lane), incarnation, .. } = &self.nodes[node.index()] else { return };
        let (conn, from, released) = (*conn, inc(*incarnation), lane.released());
        let (epoch, generation) = (self.epoch, self.generation);
        self.send(
            conn,
            Down::Mailbox(Mailbox::Completion { epoch, from, generation, durable, released, relayed: false }),
        );
    }

    pub(super) fn lane(&self, node: NodeId) -> Option<&Lane> {
        self.nodes[node.index()].lane.as_ref()
    }

    pub(super) fn primary_lives(&self) -> bool {
        self.nodes[self.primary.index()].up && self.role(self.primary) == Role::Primary
    }

    pub(super) fn is_dual(&self) -> bool {
        self.members.iter().all(|&member| member != 0)
    }

    /// What the secondary, or a joiner whose lane has begun, allows to be flushed and completed.
    pub(super) fn allowed(&self) -> Seq {
        let received = self.lane(self.primary).map_or(Seq::ZERO, Lane::received);
        let other = self.lane(self.primary.other());
        let counts = self.is_dual() || (self.joiner != 0 && other.is_some_and(|lane| lane.first().is_some()));
        if counts { received.min(other.expect("a holder has a lane").received()) } else { received }
    }

    /// Rule 1.
    pub(super) fn durable(&self) -> Seq {
        if self.is_dual() { self.allowed() } else { self.allowed().min(self.flushed) }
    }

    pub(super) fn deliver_up(&mut self, node: NodeId) -> bool {
        let Some(conn) = self.conn(node) else { return false };
        let Some(what) = self.wires.get_mut(&conn).expect("found").to_node.pop_front() else { return false };
        match what {
            Up::Blob(blob) => self.take(node, conn, blob),
            Up::Message(ClientMsg::Attach { .. }) => self.attach(node, conn),
            Up::Message(ClientMsg::Resume { generation, first }) => self.resume(node, conn, generation, first),
            Up::Message(msg @ ClientMsg::Read { epoch, after, .. }) => {
                let own = &mut self.nodes[node.index()];
                if own.session == Some(conn) && epoch == self.epoch {
                    assert!(after <= own.lane.as_ref().expect("a session has one").received(), "blobs come first");
                    own.reads.push((conn, msg));
                }
            }
            Up::Message(_) => {}
        }
        true
    }

    pub(super) fn take(&mut self, node: NodeId, conn: ConnId, blob: Blob) {
        let own = &mut self.nodes[node.index()];
        if own.session != Some(conn) {
            return;
        }
        for at in place(&blob) {
            assert_eq!(self.ring[at], blob.seq.0, "the client's ring holds another blob by now");
        }
        let lane = own.lane.as_mut().expect("a session has one");
        lane.accept(blob).unwrap_or_else(|wrong| panic!("{node}: {wrong}"));
        for at in place(&blob) {
            own.ring[at] = blob.seq.0;
        }
        self.tell(self.primary);
    }

    pub(super) fn attach(&mut self, node: NodeId, conn: ConnId) {
        if node != self.primary || !self.primary_lives() {
            return self.send(conn, Down::Message(NodeMsg::Refused { why: Refusal::NotReady }));
        }
        if self.joiner != 0 {
            self.rebirth(node.other());
        }
        self.generation = self.generation.next();
        self.epoch = self.epoch.next();
        self.flushed = Seq::ZERO;
        for index in 0..2 {
            self.nodes[index].session = None;
            self.nodes[index].lane =
                (self.members[index] != 0).then(|| Lane::new(geometry(), self.generation, Some(Seq(1))));
        }
        self.announce();
        self.nodes[node.index()].session = Some(conn);
        self.send(conn, Down::Message(NodeMsg::Attached { generation: self.generation }));
    }

    pub(super) fn resume(&mut self, node: NodeId, conn: ConnId, generation: Generation, first: Seq) {
        let from = inc(self.nodes[node.index()].incarnation);
        let Some(lane) = self.nodes[node.index()].lane.as_mut().filter(|lane| lane.generation() == generation) else {
            return self.send(conn, Down::Message(NodeMsg::Refused { why: Refusal::NotReady }));
        };
        if lane.first().is_none() {
            lane.begin(first);
            if node == self.primary {
                self.flushed = lane.released();
            }
        }
        let received = lane.received();
        self.nodes[node.index()].session = Some(conn);
        self.send(conn, Down::Message(NodeMsg::Resumed { generation, from, received }));
        self.tell(node);
    }

    /// Rule 2: of the blobs that may be flushed, the newest wins, also over an older one whose turn it is.
    pub(super) fn flush(&mut self, node: NodeId, upto: Seq) {
        let may = self.allowed().max(upto);
        let own = &self.nodes[node.index()];
        let Some(lane) = &own.lane else { return };
        for blob in lane.range(self.flushed.next()..=upto) {
            assert!(place(blob).all(|at| own.ring[at] == blob.seq.0), "{node}: a staged blob was written over");
            for lba in blob.lba.0..blob.end().0 {
                let mut over = lane.range(blob.seq..=may).filter(|newer| (newer.lba..newer.end()).contains(&Lba(lba)));
                self.disk[index(lba)] = over.next_back().expect("itself").seq.0;
            }
        }
        self.flushed = self.flushed.max(upto.min(lane.received()));
        self.tell(node);
    }

    pub(super) fn release(&mut self, node: NodeId) {
        let primary = self.lane(self.primary).map_or(Seq::ZERO, Lane::released);
        let upto = if node == self.primary { self.durable().min(self.flushed) } else { primary };
        if let Some(lane) = self.nodes[node.index()].lane.as_mut().filter(|lane| lane.first().is_some()) {
            let upto = upto.min(lane.received());
            drop(lane.release(upto));
        }
        self.tell(node);
    }

    pub(super) fn answer_reads(&mut self) {
        let primary = self.primary.index();
        if !self.primary_lives() {
            return;
        }
        for (conn, msg) in core::mem::take(&mut self.nodes[primary].reads) {
            let ClientMsg::Read { id, epoch, lba, slot, .. } = msg else { unreachable!("only reads are kept") };
            let mut staged = self.lane(self.primary).into_iter().flatten();
            let newest = staged.rfind(|blob| (blob.lba..blob.end()).contains(&lba));
            let (bytes, needs) = newest.map_or((self.disk[index(lba.0)], 0), |blob| (blob.seq.0, blob.seq.0));
            let durable = self.durable();
            if needs > durable.0 {
                self.nodes[primary].reads.push((conn, msg));
            } else {
                let msg = NodeMsg::ReadDone { id, epoch, durable };
                self.send(conn, Down::Bytes { slot, bytes });
                self.send(conn, Down::Message(msg));
            }
        }
    }

    // ---- Members.

    /// Reads are void, everybody hears of it.
    pub(super) fn enter_epoch(&mut self, primary: NodeId, members: [u64; 2]) {
        if self.joiner != 0 && !members.contains(&self.joiner) {
            self.rebirth(self.primary.other());
        }
        (self.epoch, self.primary, self.members, self.joiner) = (self.epoch.next(), primary, members, 0);
        for node in &mut self.nodes {
            node.reads.clear();
        }
        self.announce();
    }

    /// Lanes dropped, connections first: all of them, as a Resume that is on its way to the old incarnation would
    /// make the new one's lane begin where the session no longer is.
    pub(super) fn rebirth(&mut self, node: NodeId) {
        self.cut_all(node);
        self.incarnations += 1;
        let own = &mut self.nodes[node.index()];
        if self.joiner == own.incarnation {
            self.joiner = 0;
        }
        own.incarnation = self.incarnations;
        own.lane = None;
    }

    pub(super) fn alone(&self, node: NodeId) -> [u64; 2] {
        let mut members = [0; 2];
        members[node.index()] = self.nodes[node.index()].incarnation;
        members
    }

    /// Rule 7.
    pub(super) fn drop_secondary(&mut self) {
        if self.is_dual() && self.primary_lives() {
            self.flush(self.primary, Seq(u64::MAX));
            self.rebirth(self.primary.other());
            self.enter_epoch(self.primary, self.alone(self.primary));
        }
    }

    pub(super) fn crash(&mut self, node: NodeId) {
        if !core::mem::take(&mut self.nodes[node.index()].up) {
            return;
        }
        let (role, dual) = (self.role(node), self.is_dual());
        self.cut_all(node);
        if role == Role::Primary && dual {
            // Rule 5: what was flushed before is void.
            let other = node.other();
            self.flushed = self.lane(other).map_or(Seq::ZERO, Lane::released);
            self.flush(other, Seq(u64::MAX));
            self.rebirth(node);
            self.enter_epoch(other, self.alone(other));
            self.takeovers += 1;
        } else if role == Role::Secondary {
            self.drop_secondary();
        } else {
            self.rebirth(node);
            self.announce();
        }
    }

    /// The client says where it begins, once there is one.
    pub(super) fn empty_lane(&self) -> Lane {
        Lane::new(geometry(), self.generation, (self.generation == Generation::ZERO).then_some(Seq(1)))
    }

    /// Rule 6.
    pub(super) fn take_over(&mut self, node: NodeId) {
        if self.primary_lives() || !self.nodes[node.index()].up {
            return;
        }
        assert!(!self.is_dual(), "a dual primary's death is a takeover by rule 5");
        self.rebirth(node);
        self.nodes[node.index()].lane = Some(self.empty_lane());
        self.flushed = Seq::ZERO;
        self.enter_epoch(node, self.alone(node));
        self.takeovers += 1;
    }

    /// Rule 8.
    pub(super) fn join(&mut self) {
        let other = self.primary.other();
        if self.primary_lives() && !self.is_dual() && self.joiner == 0 && self.nodes[other.index()].up {
            self.joiner = self.nodes[other.index()].incarnation;
            self.nodes[other.index()].lane = Some(self.empty_lane());
            self.announce();
        }
    }

    pub(super) fn joined(&mut self) {
        let other = self.primary.other();
        let ready = self.lane(other).is_some_and(|lane| lane.first().is_some() && lane.received() >= self.flushed);
        let begun = self.lane(self.primary).is_some_and(|lane| lane.first().is_some());
        if self.primary_lives() && self.joiner != 0 && ready && begun {
            let mut members = self.members;
            members[other.index()] = self.joiner;
            self.enter_epoch(self.primary, members);
        }
    }

    /// Rule 13.
    pub(super) fn handover(&mut self) {
        if self.is_dual() && self.primary_lives() {
            let other = self.primary.other();
            self.flushed = self.lane(other).map_or(Seq::ZERO, Lane::released);
            self.enter_epoch(other, self.members);
        }
    }
}
