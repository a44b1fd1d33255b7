//! Writes what a fuzzer begins with into `DIR/TARGET/`, taken from the pinned encodings and by hand: `seeds DIR`.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use twinsan_control::admin::Request;
use twinsan_fuzz::seal::sealed_message;

#[path = "../../../../transport/wire/tests/wire/pinned.rs"]
#[allow(dead_code, unused_imports, reason = "its tests are of another crate")]
mod pinned;

const CONFIG: &str = include_str!("../../seeds/twinsan.toml");

fn main() -> std::io::Result<()> {
    let root = PathBuf::from(std::env::args_os().nth(1).expect("seeds DIR"));
    let mut number = 0;
    let mut put = |target: &str, bytes: &[&[u8]]| {
        number += 1;
        let folder = root.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{number:03}")), bytes.concat())
    };
    for (_, value, _) in pinned::DESCRIPTORS {
        put("memory", &[&[0], &value.encode()])?;
    }
    for (_, value, _) in pinned::MAILBOXES {
        put("memory", &[&[1], &value.encode()])?;
    }
    for imm in [0x1000_0001_u32, 0x2000_0001] {
        put("memory", &[&[2], &imm.to_le_bytes(), &8_u64.to_le_bytes(), &1_u32.to_le_bytes()])?;
    }
    for (_, _, bytes) in pinned::messages() {
        // The target makes the header anew: its kind, then the body.
        let seed = [&bytes[5..6], &bytes[16..]].concat();
        assert_eq!(sealed_message(&seed).as_ref(), Some(&bytes));
        put("messages", &[&seed])?;
        put("setup", &[&[0, 255], &seed])?;
        put("replica", &[&[1, 13, u8::try_from(seed.len()).expect("short")], &seed])?;
    }
    put("setup", &[&[0, 0, 1, 1, 0, 2, 1, 3]])?;
    framing(&mut put)?;
    host(&mut put)?;
    nbd(&mut put)?;
    disk(&mut put)?;
    put("config", &[&[0], CONFIG.as_bytes()])?;
    for size in ["64 MiB", "1TiB", "4096"] {
        put("config", &[&[1], size.as_bytes()])?;
    }
    for address in ["tcp://127.0.0.1:7401", "rdma://[fe80::1]:7401", "unix:///run/x.sock"] {
        put("config", &[&[2], address.as_bytes()])?;
    }
    let volume = || "db".to_owned();
    let recover = Request::Recover { volume: volume(), accept_data_loss: true };
    for request in [Request::Status, recover, Request::Switchover { volume: volume() }] {
        let mut line = vec![3];
        twinsan_control::admin::write_line(&mut line, &request)?;
        put("config", &[&line])?;
    }
    put("config", &[b"\x04{\"response\":\"done\",\"message\":\"begun\"}\n"])?;
    for beginning in 0..5 {
        for hostile in [0, 0x80] {
            // Clients come, attach, write, read and wait; the other node joins, and says this and that.
            let script = [beginning | hostile, 5, 11, 0, 0, 3, 7, 1, 0, 7, 2, 0, 3, 14, 0, 0, 11, 0, 2, 1, 1, 0];
            put("replica", &[&script, &[17, 15, 3, 16, 14, 0, 0, 1, 100, 3, 19, 3, 20, 1, 1, 1, 1, 1, 1, 1, 1, 22]])?;
        }
    }
    put("session", &[&[1, 0, 5, 0, 0, 3, 0, 5, 0, 2, 9, 0, 10, 1, 1, 0, 7, 0, 3, 0, 0, 11, 0, 0, 60, 0, 4, 0, 1, 1]])?;
    put("session", &[&[0, 0, 1, 1, 1, 2, 0, 8, 1, 1, 8, 2, 0, 9, 0, 9, 0, 5, 0, 1, 2, 1, 12, 0, 0, 0, 13, 1, 14, 2, 0]])
}

type Put<'a> = dyn FnMut(&str, &[&[u8]]) -> std::io::Result<()> + 'a;

fn framing(put: &mut Put<'_>) -> std::io::Result<()> {
    let frame = |op: u8, imm: u32, key: u64, offset: u64, payload: &[u8]| {
        let mut bytes = vec![op, 0, 0, 0];
        bytes.extend(imm.to_le_bytes());
        bytes.extend(key.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend(u32::try_from(payload.len()).expect("short").to_le_bytes());
        bytes.extend(b"TWF1");
        bytes.extend(payload);
        bytes
    };
    let (a, b) = (0x4141_4141_4141_4141, 0x4242_4242_4242_4242);
    put("framing", &[&[0], &frame(1, 0, a, 1, &[])])?;
    let stream = [frame(1, 0, a, 0, &[5; 200]), frame(2, 9, b, 0, &[6]), frame(3, 0, 0, 0, b"hello")].concat();
    put("framing", &[&[1, 2, 3, 40], &stream])?;
    put("framing", &[&[1, 0], &frame(1, 0, a, 1000, &[7; 24]), &frame(4, 0, 0, 0, &[])])?;
    put("framing", &[&[2, 4, 0, 1, 0, 0, 0]])?;
    put("framing", &[&[2, 4, 0, 2, 0, 7, 0]])?;
    put("framing", &[&[2, 24, 0, 4, 0, 0, 0], &[9; 20]])?;
    put("framing", &[&[3], b"TwRv\x01\x0c\x02\x01\0\0\0\0"])
}

fn host(put: &mut Put<'_>) -> std::io::Result<()> {
    let keys = [&[0, 0, 0, 7, 0, 0, 0, 16][..], &[1; 8], &[2; 8]].concat();
    put("host", &[&[0], &keys])?;
    put("host", &[&[0], &[0, 0, 0, 7, 0, 0, 0, 16], &[1; 8], &[0, 0, 0, 0, 0, 5, 0, 0]])?;
    put("host", &[&[0], &[0, 8, 1, 0x80, 0x20, 0, 0, 0]])?;
    put("host", &[&[1, 2, 18, 0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0]])?;
    put("host", &[&[1, 2, 4, 0x72, 1, 0x2a, 3], b"data"])?;
    for reply in ["sda|active|ready\nsdb | failed | faulty\n\0", "mpatha|off|0\nmpathb|-|1 queue_if_no_path\n\0"] {
        put("host", &[&[2], &reply.len().to_ne_bytes(), reply.as_bytes()])?;
    }
    let family = [&[28, 0, 0, 0, 16, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0][..], &[6, 0, 1, 0, 0x1a, 0, 0, 0]];
    let ack = [20, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff];
    put("host", &[&[3, 5], family[0], family[1], &ack])
}

fn nbd(put: &mut Put<'_>) -> std::io::Result<()> {
    let option = |number: u32, data: &[u8]| {
        let length = u32::try_from(data.len()).expect("short").to_be_bytes();
        [&b"IHAVEOPT"[..], &number.to_be_bytes(), &length, data].concat()
    };
    let request = |flags: u16, command: u16, offset: u64, len: u32| {
        let head = [&0x2560_9513_u32.to_be_bytes()[..], &flags.to_be_bytes(), &command.to_be_bytes(), &[7; 8]].concat();
        [&head[..], &offset.to_be_bytes(), &len.to_be_bytes()].concat()
    };
    let go = option(7, b"\0\0\0\x02db\0\x02\0\x03\0\0");
    let begin = [&3_u32.to_be_bytes()[..], &option(8, b""), &option(3, b""), &go].concat();
    put(
        "nbd",
        &[&[1, 2, 5, 30], &begin, &request(0, 1, 4096, 4), b"data", &request(0, 0, 0, 512), &request(0, 2, 0, 0)],
    )?;
    put("nbd", &[&[1, 0], &0_u32.to_be_bytes(), &option(1, b"db"), &request(1, 6, 0, 4096), &request(0, 3, 0, 0)])?;
    put("nbd", &[&[1, 0], &3_u32.to_be_bytes(), &option(6, b"\0\0\0\0\0\0"), &option(99, b"?"), &option(2, b"")])?;
    for command in 0..8 {
        put("nbd", &[&[0, 1, 9], &request(0, command, 1 << 29, 8192), &request(4, command, 1 << 40, 1)])?;
    }
    Ok(())
}

fn disk(put: &mut Put<'_>) -> std::io::Result<()> {
    use twinsan_sas::superblock::{ProcessStamp, codec};
    use twinsan_sas::{Heartbeat, NodeName, Slot, Uuid, VolumeIdentity};
    use twinsan_wire::{Epoch, Generation, Incarnation, Member, Members, NodeId, Superblock, VolumeName};
    let identity = VolumeIdentity {
        uuid: Uuid([7; 16]),
        name: VolumeName::new("db").expect("legal"),
        blocks: 1 << 20,
        block_bytes: 4096,
        data_offset: 1 << 20,
        nodes: ["san1", "san2"].map(|name| NodeName::new(name).expect("legal")),
    };
    let member = Member { node: NodeId::A, incarnation: Incarnation::from_random(9) };
    let superblock = Superblock {
        counter: 5,
        epoch: Epoch(3),
        primary: Some(NodeId::A),
        members: Members::solo(member),
        generation: Generation(2),
        clean: true,
    };
    let page = codec::encode(&Slot { identity, superblock, changed_at: 1 }).0;
    put("disk", &[&[0], &page[..308]])?;
    put("disk", &[&[1], &page[..308], &[176, 0, 1]])?;
    put("disk", &[&[0x40], &page[..308], &page[..308]])?;
    let process = ProcessStamp { pid: 1, start_ticks: 2, boot_id: [3; 16], pid_namespace: 4 };
    let heartbeat = Heartbeat {
        volume: Uuid([7; 16]),
        node: NodeId::B,
        incarnation: member.incarnation,
        beat: 6,
        process,
        holder: true,
    };
    put("disk", &[&[2], &heartbeat.encode().0[..88]])
}
