//! QEMU's programs (qemu-utils): its NBD client is a fourth implementation of the protocol.

use anyhow::{Context, Result, ensure};

use crate::live::{BYTES, Live};
use crate::tools::{run, tool};

/// qemu-io on a volume with blocks of 4096.
pub(crate) fn io() -> Result<()> {
    patterns(4096)
}

/// qemu-io on a volume with blocks of 512.
pub(crate) fn io_512() -> Result<()> {
    patterns(512)
}

fn patterns(block: u32) -> Result<()> {
    let live = Live::start(block)?;
    for commands in [aligned(), unaligned(), zeroes(), discard(), ends(), overlapping()] {
        io_commands(&live, &commands)?;
    }
    // qemu-io must be able to notice: a wrong pattern is an error.
    let wrong = io_commands(&live, &["write -P 0x10 0 4k".to_owned(), "read -P 0x11 0 4k".to_owned()]);
    ensure!(wrong.is_err(), "qemu-io took a wrong pattern for right");
    Ok(())
}

fn io_commands(live: &Live, commands: &[String]) -> Result<()> {
    let mut qemu = tool("qemu-io")?;
    // No cache of qemu's own: every read is ours.
    qemu.args(["-f", "raw", "-t", "none"]);
    for command in commands {
        qemu.args(["-c", command]);
    }
    let text = run(qemu.arg(live.uri()))?.success()?;
    let bad = text.lines().find(|l| l.contains("failed") || l.contains("Pattern"));
    ensure!(bad.is_none(), "{}:\n{text}", bad.unwrap_or_default());
    let operations = text.lines().filter(|l| ["wrote", "read ", "discard "].iter().any(|w| l.starts_with(w))).count();
    let wanted = commands.iter().filter(|c| *c != "flush").count();
    ensure!(operations == wanted, "{wanted} operations, {operations} results:\n{text}");
    Ok(())
}

fn strings(commands: &[&str]) -> Vec<String> {
    commands.iter().map(|&c| c.to_owned()).collect()
}

fn aligned() -> Vec<String> {
    strings(&[
        "write -P 0x11 0 4k",
        "write -P 0x12 -f 4k 64k",
        "write -P 0x13 -f 1M 1M",
        "write -P 0x14 8M 16M",
        "flush",
        "read -P 0x11 0 4k",
        "read -P 0x12 4k 64k",
        "read -P 0x13 1M 1M",
        "read -P 0x14 8M 16M",
        "read -P 0x14 9000k 512",
    ])
}

/// Every odd place around block limits. None touches another, so that the bytes beside each stay the background's.
const ODD: [(u64, u64); 6] = [(1, 1), (511, 2), (1537, 511), (4095, 2), (4101, 8191), (70_001, 33_333)];

fn unaligned() -> Vec<String> {
    let mut commands = strings(&["write -P 0xee 0 128k"]);
    for (byte, (offset, length)) in (0x20..).zip(ODD) {
        let fua = if byte % 2 == 0 { "-f " } else { "" };
        commands.push(format!("write -P {byte:#x} {fua}{offset} {length}"));
        commands.push(format!("read -P {byte:#x} {offset} {length}"));
        commands.push(format!("read -P 0xee {} 1", offset - 1));
        commands.push(format!("read -P 0xee {} 1", offset + length));
    }
    commands
}

/// WRITE_ZEROES, with and without leave to punch a hole, whole blocks and parts.
fn zeroes() -> Vec<String> {
    strings(&[
        "write -P 0x31 0 1M",
        "write -z 64k 64k",
        "write -z -u 256k 64k",
        "write -z -f 512k 4k",
        "write -z 700001 777",
        "read -P 0 64k 64k",
        "read -P 0 256k 64k",
        "read -P 0 512k 4k",
        "read -P 0 700001 777",
        "read -P 0x31 0 64k",
        "read -P 0x31 128k 128k",
        "read -P 0x31 320k 192k",
        "read -P 0x31 516k 1",
        "read -P 0x31 700000 1",
        "read -P 0x31 700778 1",
        "write -P 0x32 64k 4k",
        "read -P 0x32 64k 4k",
        "read -P 0 68k 60k",
    ])
}

/// What a discard leaves behind is undefined, its neighbours are not.
fn discard() -> Vec<String> {
    strings(&[
        "write -P 0x41 2M 1M",
        "discard 2176k 64k",
        "read -P 0x41 2M 128k",
        "read -P 0x41 2240k 832k",
        "write -P 0x42 -f 2176k 64k",
        "read -P 0x42 2176k 64k",
        "discard 32M 64M",
        "read 32M 4k",
    ])
}

/// The volume's first and last blocks.
fn ends() -> Vec<String> {
    let last = BYTES - 4096;
    vec![
        format!("write -P 0x51 -f {last} 4k"),
        format!("read -P 0x51 {last} 4k"),
        format!("write -P 0x52 {} 1", BYTES - 1),
        format!("read -P 0x52 {} 1", BYTES - 1),
        format!("read -P 0x51 {last} 4095"),
    ]
}

/// Newest wins while the older ones are still staged.
fn overlapping() -> Vec<String> {
    let mut commands = Vec::new();
    for i in 0..32 {
        commands.push(format!("write -P {:#x} {} 64k", 0x60 + i, i * 4096));
    }
    for i in 0..32 {
        commands.push(format!("read -P {:#x} {} 4k", 0x60 + i, i * 4096));
    }
    commands
}

/// qemu-img: a whole image in, compared, and one flipped byte found.
pub(crate) fn image() -> Result<()> {
    let live = Live::start(4096)?;
    let source = live.random_file("source", BYTES)?;
    let raw = ["-f", "raw"];
    let mut convert = tool("qemu-img")?;
    convert.arg("convert").args(["-n", "-W"]).args(raw).args(["-O", "raw"]).arg(&source).arg(live.uri());
    run(&mut convert)?.success()?;
    let compare = || -> Result<_> {
        let mut compare = tool("qemu-img")?;
        run(compare.arg("compare").args(raw).args(["-F", "raw"]).arg(&source).arg(live.uri()))
    };
    compare()?.success()?;
    io_commands(&live, &strings(&["write -P 0 77777777 1", "write -P 1 77777778 1"]))?;
    let said = compare()?.code(1)?;
    ensure!(said.contains("mismatch"), "a flipped byte was not found: {said}");
    let size = tool("qemu-img")?.args(["info", "--output=json", &live.uri()]).output().context("qemu-img info")?;
    let info: serde_json::Value = serde_json::from_slice(&size.stdout)?;
    ensure!(info["virtual-size"] == BYTES, "qemu-img info: {info}");
    Ok(())
}
