//! libnbd's programs (libnbd-bin, python3-libnbd).

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use twinsan_perf::cluster::VOLUME;

use crate::live::{BYTES, Live};
use crate::tools::{run, tool};

/// nbdinfo: what the export says of itself.
pub(crate) fn info() -> Result<()> {
    for block in [512_u32, 4096] {
        let live = Live::start(block)?;
        let said = run(tool("nbdinfo")?.args(["--json", &live.uri()]))?.success()?;
        check_info(&said, block).with_context(|| said.clone())?;
        let size = run(tool("nbdinfo")?.args(["--size", &live.uri()]))?.success()?;
        ensure!(size.trim() == BYTES.to_string(), "--size says {size}");
        tool("file")?; // nbdinfo runs it to see what the export begins with.
        let list = run(tool("nbdinfo")?.args(["--list", "--json", &live.uri_of("")]))?.success()?;
        let list: Value = serde_json::from_str(&list)?;
        ensure!(list["exports"][0]["export-name"] == VOLUME, "--list names the volume: {list}");
        run(tool("nbdinfo")?.arg(live.uri_of("no-such-volume")))?.code(1)?;
    }
    Ok(())
}

fn check_info(said: &str, block: u32) -> Result<()> {
    let info: Value = serde_json::from_str(said)?;
    ensure!(info["protocol"] == "newstyle-fixed", "fixed newstyle");
    ensure!(info["structured"] == true, "structured replies");
    let export = &info["exports"][0];
    ensure!(export["export-size"] == BYTES, "the size");
    ensure!(export["is_read_only"] == false, "it can be written to");
    for flag in ["can_multi_conn", "can_fua", "can_flush", "can_trim", "can_zero", "can_cache", "can_df"] {
        ensure!(export[flag] == true, "{flag}");
    }
    ensure!(export["block_size_minimum"] == block, "the least block is the disk's");
    ensure!(export["block_size_maximum"].as_u64().is_some_and(|most| most >= 1 << 20), "the largest request");
    Ok(())
}

/// nbdcopy: a file into the volume and out again.
pub(crate) fn copy() -> Result<()> {
    let live = Live::start(4096)?;
    let source = live.random_file("source", BYTES)?;
    let back = live.pair.run("back");
    for connections in ["1", "4"] {
        let many = format!("--connections={connections}");
        run(tool("nbdcopy")?.args([&many, "--flush"]).arg(&source).arg(live.uri()))?.success()?;
        run(tool("nbdcopy")?.arg(&many).arg(live.uri()).arg(&back))?.success()?;
        run(tool("cmp")?.args([&source, &back]))?.success()?;
        // Other bytes for the next round, so that it cannot pass by what the first one left.
        let mut bytes = fs::read(&source)?;
        bytes.iter_mut().for_each(|b| *b = !*b);
        fs::write(&source, bytes)?;
        fs::remove_file(&back)?;
    }
    Ok(())
}

/// nbdsh's library: the protocol's corners.
pub(crate) fn shell() -> Result<()> {
    for block in [512_u32, 4096] {
        let live = Live::start(block)?;
        let script = live.pair.run("corners.py");
        fs::write(&script, include_str!("corners.py"))?;
        let mut python = tool("python3")?;
        python.arg(&script).arg(live.pair.nbd_socket()).args([VOLUME, &BYTES.to_string(), &block.to_string()]);
        let said = run(&mut python)?;
        let text = said.success().context("python3 with the module nbd: apt-get install python3-libnbd")?;
        ensure!(text.trim_end().ends_with("corners: all held"), "it did not come to its end:\n{text}");
    }
    Ok(())
}
