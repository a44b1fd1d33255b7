//! The counter-examples of section 8 of the protocol, one test each: the exact interleaving, which the rules as they
//! stand survive, and the old wording does not.

use crate::common::*;
use twinsan_replica::Weakness as Replica;
use twinsan_session::Weakness as Session;
use twinsan_sim::Pathless;
use twinsan_wire::ClientMsg;

/// P solo has flushed 1, 2; J joins from 1 and has ACKed 1; P completes 2 and goes dual, dies; J flushes 1 over 2.
#[test]
fn join_too_early() {
    scenario(FenceKind::Pr, replica(Replica::JoinTooEarly), |w| {
        let client = solo(w)?;
        let flush = hold_block(w, A, 0);
        write(w, client, 0)?;
        let second = write(w, client, 0)?;
        reach(w, "A has both", |w| w.received(A) == second)?;
        hold_blobs(w, B, second);
        let joining = w.hold_disk(|n, access| n == A && matches!(access, DiskAccess::Slot { .. }));
        w.start_node(B);
        reach(w, "B has the first only", |w| w.received(B) == Seq(1))?;
        w.run_for(20);
        w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(_)));
        w.release(flush);
        w.run_for(20);
        w.release(joining);
        w.run_for(20);
        w.crash_node(A);
        w.run_for(1_500);
        Ok(())
    });
}

/// P solo flushes 1, 2, sends completion 2, dies; the other takes over by rule 6; the client has resumed from 1, now
/// hears "2 completed" from the old connection.
#[test]
fn late_completion() {
    scenario(FenceKind::Pr, Weakness::Session(Session::CompleteFromOlderEpoch), |w| {
        let client = solo(w)?;
        let late = w.hold_messages(|from, _, item| from == NODE_A && matches!(item, Item::Mailbox(_)));
        write(w, client, 0)?;
        let second = write(w, client, 0)?;
        reach(w, "A has flushed both", |w| w.on_disk(0).seq == second.0)?;
        w.run_for(20);
        w.freeze(NODE_A);
        w.start_node(B);
        let answer = w.hold_messages(|from, to, item| {
            from == NODE_B && matches!(to, Host::Client(_)) && matches!(item, Item::Node(m) if is_resumed(m))
        });
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        reach(w, "the client asks B", |w| w.received(B) == Seq(0) && w.client_primary(client) == Some(B))?;
        w.run_for(5);
        w.release(late);
        w.run_for(5);
        if w.completed(client) > Seq::ZERO {
            w.broken("a completion of an older epoch is believed");
        }
        w.release(answer);
        reach(w, "both complete", |w| w.completed(client) == second)?;
        w.thaw(NODE_A);
        Ok(())
    });
}

fn is_resumed(msg: &twinsan_wire::NodeMsg) -> bool {
    matches!(msg, twinsan_wire::NodeMsg::Resumed { .. })
}

/// P solo offers J to the client as a joiner, and J never hears that it was accepted. P flushes 1, 2, and freezes before
/// its completions arrive; J takes over by rule 6. The client's Resume from 1, of P's epoch, makes J's lane begin at 1;
/// then the client hears "2 completed" from P, and J flushes 1 over 2.
#[test]
fn resumed_too_low() {
    scenario(FenceKind::Pr, replica(Replica::KeepOffered), |w| {
        let client = solo(w)?;
        w.hold_messages(|from, to, item| {
            let accepts = |m: &PeerBody| matches!(m, PeerBody::JoinAccept { .. });
            (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Peer(m) if accepts(&m.body))
        });
        let resume = w.hold_messages(move |from, to, item| {
            let resumes = matches!(item, Item::Client(ClientMsg::Resume { .. }));
            (from, to) == (Host::Client(client), NODE_B) && resumes
        });
        w.start_node(B);
        w.run_for(60);
        let late = w.hold_messages(|from, _, item| from == NODE_A && matches!(item, Item::Mailbox(_)));
        write(w, client, 0)?;
        let second = write(w, client, 0)?;
        reach(w, "A has flushed both", |w| w.on_disk(0).seq == second.0)?;
        w.run_for(20);
        w.freeze(NODE_A);
        let words = w.hold_messages(move |from, to, _| (from, to) == (NODE_B, Host::Client(client)));
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        hold_blobs(w, B, second);
        w.release(resume);
        w.run_for(20);
        w.release(late);
        reach(w, "the client hears of both", |w| w.completed(client) == second)?;
        w.release(words);
        w.run_for(50);
        w.thaw(NODE_A);
        Ok(())
    });
}

/// P's process dies with a data write still in its kernel; S fences and takes over; the restarted P is invited, its
/// host registers again, and the old write lands.
#[test]
fn revived_write() {
    scenario(FenceKind::Pr, Weakness::Driver(DriverWeakness::AdmitTooEarly), revived);
}

/// A write queued in dm-multipath shows nowhere, outlives its process, and lands when the path comes back.
#[test]
fn queued_write() {
    scenario(FenceKind::Pr, Weakness::Driver(DriverWeakness::FenceWithoutAbort), revived);
}

fn revived(w: &mut World) -> Result<(), NotReached> {
    let client = dual(w)?;
    let kernel = hold_block(w, A, 0);
    complete(w, client, 0)?;
    w.run_for(5);
    w.crash_node(A);
    reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
    complete(w, client, 0)?;
    w.start_node(A);
    w.run_for(300);
    w.release(kernel);
    w.run_for(300);
    Ok(())
}

/// C2 replaces C1 at a solo node and completes a write; that node dies; the rule 6 node lets C1 back in, whose old
/// write lands over C2's.
#[test]
fn generation_forgotten() {
    scenario(FenceKind::Pr, replica(Replica::GenerationInRam), |w| {
        let old = solo(w)?;
        complete(w, old, 0)?;
        // The clean mark would tell the disk what the attach had kept to itself.
        w.hold_disk(|n, a| {
            n == A && matches!(a, DiskAccess::Slot { superblock: s, .. } if s.clean && s.generation.0 == 2)
        });
        let on_its_way =
            w.hold_messages(move |from, _, item| from == Host::Client(old) && matches!(item, Item::Blob(_)));
        write(w, old, 0)?;
        w.freeze(Host::Client(old));
        let new = w.start_client();
        reach(w, "the new client is in", |w| w.client_is_open(new))?;
        complete(w, new, 0)?;
        w.crash_client(new);
        w.crash_and_lose_writes(A);
        w.start_node(B);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        w.thaw(Host::Client(old));
        w.release(on_its_way);
        w.run_for(1_000);
        Ok(())
    });
}

/// S ACKs 1, is dropped, joins again empty; P completes 1 by the old ACK and dies.
#[test]
fn same_incarnation_empty_lanes() {
    passes(FenceKind::Pr, |w| {
        let client = dual(w)?;
        hold_blobs(w, A, Seq(1));
        let first = write(w, client, 0)?;
        reach(w, "B has ACKed it", |w| w.received(B) == first)?;
        w.cut(NODE_A, NODE_B);
        reach(w, "B is dropped", |w| settled_members(w) == 1)?;
        let resent = hold_blobs(w, B, Seq(1));
        w.mend(NODE_A, NODE_B);
        w.run_for(200);
        w.release_all();
        let _ = resent;
        reach(w, "it completes", |w| w.completed(client) == first)?;
        w.run_for(50);
        if w.is_dual() {
            w.crash_node(A);
        }
        Ok(())
    });
}

/// J keeps old-session lanes, is promoted, and flushes them over the new session's.
#[test]
fn attach_during_a_join() {
    passes(FenceKind::Pr, |w| {
        let old = solo(w)?;
        write(w, old, 0)?;
        let superblock = w.hold_disk(|n, access| n == A && matches!(access, DiskAccess::Slot { .. }));
        w.start_node(B);
        reach(w, "B joins", |w| w.role(B) == Some(Role::Joining) && w.received(B) >= Seq(1))?;
        w.crash_client(old);
        let new = w.start_client();
        w.run_for(50);
        w.release(superblock);
        reach(w, "the new client is in", |w| w.client_is_open(new))?;
        complete(w, new, 0)?;
        reach(w, "both are members", World::is_dual)?;
        w.crash_node(A);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        Ok(())
    });
}

/// Slots written in turn; the newest rots; the older one names a dropped member, which takes over.
#[test]
fn rotten_newest_slot() {
    scenario(FenceKind::Pr, Weakness::Driver(DriverWeakness::SlotsInTurn), |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        w.cut(NODE_A, NODE_B);
        w.cut(Host::Client(client), NODE_B);
        reach(w, "B is dropped", |w| settled_members(w) == 1)?;
        complete(w, client, 0)?;
        w.run_for(20);
        w.rot_newest_slot();
        w.crash_node(A);
        w.mend_all();
        w.run_for(1_500);
        Ok(())
    });
}

/// Clean is being written while a blob arrives and completes; the write lands; both nodes die; the restart serves
/// without the blob.
#[test]
fn clean_race() {
    scenario(FenceKind::Pr, replica(Replica::CleanRace), |w| {
        let client = dual(w)?;
        complete(w, client, 0)?;
        let marking =
            w.hold_disk(|_, access| matches!(access, DiskAccess::Slot { superblock, .. } if superblock.clean));
        hold_block(w, A, 1);
        w.run_for(600);
        write(w, client, 1)?;
        w.run_for(50);
        w.release(marking);
        reach(w, "clean is on the disk", |w| w.superblock().is_some_and(|s| s.clean))?;
        w.crash_node(A);
        w.crash_node(B);
        Ok(())
    });
}

/// The disk lands them in the wrong order after the newer was released.
#[test]
fn two_writes_of_one_block_in_flight() {
    scenario(FenceKind::Pr, replica(Replica::OverlappingBatches), |w| {
        let client = solo(w)?;
        let disk = hold_block(w, A, 0);
        for _ in 0..3 {
            write(w, client, 0)?;
            w.run_for(2);
        }
        w.release(disk);
        reach(w, "all complete", |w| w.completed(client) == Seq(3))
    });
}

/// P flushed 2, which S lacks, and shows it to a reader; S takes over and flushes 1.
#[test]
fn read_going_back() {
    scenario(FenceKind::Pr, replica(Replica::FlushBeforeDurable), |w| {
        let client = dual(w)?;
        w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(_)));
        complete(w, client, 0)?;
        hold_blobs(w, B, Seq(2));
        write(w, client, 0)?;
        w.run_for(20);
        w.read(client, 0, 1).ok_or(NotReached("the read is taken"))?;
        w.run_for(20);
        w.crash_node(A);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))
    });
}

/// P, without paths, asks S, which flushes what nobody has completed; P has a path again, and reads that from the disk; S
/// dies, is restarted, and writes 1 over 2.
#[test]
fn seen_too_early() {
    scenario(FenceKind::Pr, Weakness::Session(Session::CountAnswersAtOnce), |w| {
        let client = dual(w)?;
        w.hold_disk(|n, access| n == A && matches!(access, DiskAccess::Beat));
        let late = w.hold_disk(|n, access| n == A && matches!(access, DiskAccess::Read));
        w.read(client, 1, 1).ok_or(NotReached("the read is taken"))?;
        w.run_for(1);
        let link = w.hold_messages(|from, to, _| (from, to) == (NODE_B, NODE_A));
        write(w, client, 1)?;
        let second = write(w, client, 1)?;
        w.run_for(1);
        w.cut(NODE_B, Host::Client(client));
        w.lose_paths(A, Pathless::Queues);
        reach(w, "B takes over and flushes the second", |w| w.on_disk(1).seq == second.0)?;
        w.paths_return(A);
        w.release(late);
        w.run_for(1);
        w.crash_node(B);
        hold_blobs(w, B, second);
        w.cut(NODE_A, Host::Client(client));
        w.mend(NODE_B, Host::Client(client));
        w.release(link);
        w.start_node(B);
        reach(w, "B, with an empty lane, flushes the first", |w| w.on_disk(1).seq == 1)?;
        w.run_for(20);
        Ok(())
    });
}

/// P, dropping S, flushes 2, which S lacks; S fences, flushes 1 over it, dies; P registers again, believes 2 flushed,
/// goes solo and completes 2.
#[test]
fn stale_flush_marks() {
    scenario(FenceKind::Pr, replica(Replica::TrustFlushMarks), dropped_and_fenced);
}

/// The same, where P had released 2 while it dropped S.
#[test]
fn released_while_dropping() {
    scenario(FenceKind::Pr, replica(Replica::ReleaseWhileDropping), dropped_and_fenced);
}

fn dropped_and_fenced(w: &mut World) -> Result<(), NotReached> {
    let client = dual(w)?;
    let disk = hold_block(w, A, 0);
    complete(w, client, 0)?;
    hold_blobs(w, B, Seq(2));
    let second = write(w, client, 0)?;
    reach(w, "A has the second", |w| w.received(A) == second)?;
    w.hold_disk(|_, access| matches!(access, DiskAccess::Slot { .. }));
    w.cut(NODE_A, NODE_B);
    w.run_for(250);
    w.release(disk);
    reach(w, "A, dropping B, flushes the second", |w| w.on_disk(0).seq == second.0)?;
    w.run_for(20);
    w.freeze(NODE_A);
    reach(w, "B takes over and flushes the first over it", |w| w.on_disk(0).seq == 1)?;
    w.run_for(5);
    w.crash_and_lose_writes(B);
    w.release_all();
    w.mend_all();
    w.thaw(NODE_A);
    reach(w, "A serves again", |w| w.role(A) == Some(Role::Primary) && w.completed(client) == second)?;
    w.run_for(20);
    w.crash_node(A);
    Ok(())
}

/// P flushed and released 2; S takes over and writes 1 before 2; if S dies there, 2 is gone.
#[test]
fn older_first() {
    scenario(FenceKind::Pr, replica(Replica::OldestFirst), |w| {
        let client = dual(w)?;
        w.hold_messages(|from, to, item| (from, to) == (NODE_A, NODE_B) && matches!(item, Item::Mailbox(_)));
        write_blocks(w, client, 0, 4)?;
        write_blocks(w, client, 4, 4)?;
        let last = write_blocks(w, client, 0, 4)?;
        reach(w, "all complete", |w| w.completed(client) == last)?;
        reach(w, "A has released all", |w| w.released(A) == last)?;
        w.freeze(NODE_A);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))
    });
}

/// P reads its keys, all well; S fences; P registers a returning path, and its key is there again.
#[test]
fn path_against_fence() {
    scenario(FenceKind::Pr, Weakness::Driver(DriverWeakness::PathAddedBlindly), |w| {
        let client = dual(w)?;
        let queued = hold_block(w, A, 0);
        complete(w, client, 0)?;
        w.run_for(5);
        let seen = w.path_reads_keys(A).ok_or(NotReached("A's key is there"))?;
        w.freeze(NODE_A);
        reach(w, "B serves", |w| w.role(B) == Some(Role::Primary))?;
        complete(w, client, 0)?;
        w.path_registers(A, seen);
        w.release(queued);
        w.run_for(20);
        w.thaw(NODE_A);
        Ok(())
    });
}

/// An idle volume after a join waits for ever, as the ACK of the old epoch no longer fits and nobody repeats it.
#[test]
fn silent_epoch() {
    scenario(FenceKind::Pr, replica(Replica::SilentEpoch), |w| {
        let client = solo(w)?;
        let word = w.hold_messages(|from, to, item| {
            (from, to) == (NODE_A, NODE_B)
                && matches!(item, Item::Peer(m) if matches!(m.body, PeerBody::Announce { superblock } if superblock.members.is_dual()))
        });
        w.start_node(B);
        reach(w, "A is dual, B does not know", |w| settled_members(w) == 2)?;
        w.run_for(30);
        let seq = write(w, client, 0)?;
        reach(w, "B has ACKed it", |w| w.received(B) == seq)?;
        w.run_for(5);
        w.release(word);
        w.run_for(60);
        if w.completed(client) != seq {
            w.broken("a blob that both members hold does not complete");
        }
        Ok(())
    });
}

/// A read that waits for every overlapping blob, under steady overwriting, never ends.
#[test]
fn starved_read() {
    scenario(FenceKind::Pr, replica(Replica::StarvedRead), |w| {
        let client = dual(w)?;
        hold_block(w, A, 0);
        let mut newest = complete(w, client, 0)?;
        hold_blobs(w, B, newest.next());
        newest = write(w, client, 0)?;
        reach(w, "A has it", |w| w.received(A) == newest)?;
        w.read(client, 0, 1).ok_or(NotReached("the read is taken"))?;
        w.run_for(1);
        // From here on B gets each blob only after A has the next one: there is always one that is not durable.
        for _ in 0..8 {
            let next = write(w, client, 0)?;
            reach(w, "A has the next one", |w| w.received(A) == next)?;
            w.release_all();
            hold_block(w, A, 0);
            hold_blobs(w, B, next);
            reach(w, "B has the one before", |w| w.received(B) >= newest)?;
            w.run_for(1);
            newest = next;
        }
        if w.counts().reads_completed == 0 {
            w.broken("a read does not end while its block is overwritten");
        }
        Ok(())
    });
}

/// PREEMPT of a key that is no longer registered answers CONFLICT; that is not "I am fenced".
#[test]
fn conflict_misread() {
    scenario(FenceKind::Pr, replica(Replica::ConflictMeansFenced), |w| {
        let client = dual(w)?;
        w.conflict_once(A);
        complete(w, client, 0)?;
        w.run_for(300);
        if w.role(A) != Some(Role::Primary) {
            w.broken("a conflict with the key there is taken for a fence");
        }
        Ok(())
    });
}
