//! Wrong keys, wrong configurations, wrong devices: a clear error, and nothing lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use twinsan_perf::cluster::{Cluster, NODES};
use twinsan_system::{PATIENCE, cluster, dual_cluster, programs};

/// Runs a node that is expected to end by itself, and says why it did.
fn refused_node(config: &Path) -> Result<String> {
    let mut command = Command::new(programs()?.twinsand);
    command.arg("--config").arg(config).args(["--node", NODES[0]]);
    refusal(&command.output()?)
}

fn refusal(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "it must refuse; it said: {said}");
    Ok(said)
}

fn contains(said: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(said.contains(word), "\"{word}\" is missing in: {said}");
    }
    Ok(())
}

/// The configuration with `from` replaced, under another name.
fn changed(cluster: &Cluster, from: &str, to: &str) -> Result<std::path::PathBuf> {
    let text = fs::read_to_string(cluster.config())?;
    ensure!(text.contains(from), "nothing to change");
    let path = cluster.run("changed.toml");
    fs::write(&path, text.replace(from, to))?;
    Ok(path)
}

#[test]
fn misspelt_key_in_the_configuration() -> Result<()> {
    let cluster = cluster()?;
    let config = changed(&cluster, "staging =", "stagin =")?;
    contains(&refused_node(&config)?, &["changed.toml", "stagin"])
}

#[test]
fn listening_beyond_this_host_without_a_key() -> Result<()> {
    let cluster = cluster()?;
    let fabric = format!("shm://{}", cluster.run("san1.fabric").display());
    // TEST-NET-1 (RFC 5737): nobody's, and never reached, as the check comes first.
    let config = changed(&cluster, &fabric, "tcp://192.0.2.1:7401")?;
    let text = fs::read_to_string(&config)?;
    let without: String = text.lines().filter(|l| !l.starts_with("key_file")).map(|l| format!("{l}\n")).collect();
    fs::write(&config, without)?;
    contains(&refused_node(&config)?, &["192.0.2.1:7401", "key_file", "vol1"])
}

#[test]
fn key_file_that_others_may_read() -> Result<()> {
    let cluster = cluster()?;
    fs::set_permissions(cluster.run("key"), fs::Permissions::from_mode(0o644))?;
    contains(&refused_node(&cluster.config())?, &["key", "644", "chmod"])
}

#[test]
fn client_with_another_key_is_not_let_in() -> Result<()> {
    let cluster = dual_cluster()?;
    let other = cluster.run("other-key");
    fs::write(&other, [7; 32])?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600))?;
    let config = changed(&cluster, &cluster.run("key").display().to_string(), &other.display().to_string())?;
    let mut command = Command::new(programs()?.twinsan);
    let export = format!("unix:{}", cluster.run("intruder.sock").display());
    command.arg("--config").arg(config).args(["attach", "vol1", "--nbd", &export]);
    let said = refusal(&command.output()?)?;
    contains(&said.to_lowercase(), &["key", "vol1"])?;
    ensure!(cluster.is_dual(), "the pair is not disturbed");
    Ok(())
}

#[test]
fn device_without_a_volume() -> Result<()> {
    let cluster = cluster()?;
    let disk = cluster.disk_file();
    let size = fs::metadata(&disk)?.len();
    let blank = cluster.run("blank.img");
    fs::File::create(&blank)?.set_len(size)?;
    let config = changed(&cluster, &disk.display().to_string(), &blank.display().to_string())?;
    contains(&refused_node(&config)?, &["blank.img", "format"])
}

#[test]
fn device_of_another_volume() -> Result<()> {
    let cluster = cluster()?;
    let config = changed(&cluster, "\"vol1\"", "\"vol2\"")?;
    contains(&refused_node(&config)?, &["vol1", "vol2"])
}

#[test]
fn format_over_a_filesystem_and_over_a_volume() -> Result<()> {
    let cluster = cluster()?;
    let again = cluster.twinsan(&["format", "vol1", "--size", "32MiB"]).output()?;
    contains(&refusal(&again)?, &["disk.img", "TwinSAN superblock", "--force"])?;
    // The superblock of ext4: its magic number at 1024 + 56.
    let image = cluster.run("ext4.img");
    let mut bytes = vec![0; 4 << 20];
    bytes[1080..1082].copy_from_slice(&[0x53, 0xef]);
    fs::write(&image, &bytes)?;
    let config = changed(&cluster, &cluster.disk_file().display().to_string(), &image.display().to_string())?;
    let mut command = Command::new(programs()?.twinsan);
    command.arg("--config").arg(config).args(["format", "vol1"]);
    contains(&refusal(&command.output()?)?, &["ext", "ext4.img", "--force"])?;
    ensure!(fs::read(&image)? == bytes, "it was left alone");
    Ok(())
}

#[test]
fn format_of_a_volume_in_use() -> Result<()> {
    let cluster = dual_cluster()?;
    let forced = cluster.twinsan(&["format", "vol1", "--size", "32MiB", "--force"]).output()?;
    refusal(&forced)?;
    ensure!(cluster.is_dual(), "the pair is not disturbed");
    Ok(())
}

#[test]
fn unknown_names() -> Result<()> {
    let cluster = cluster()?;
    contains(&refusal(&cluster.twinsan(&["format", "vol9", "--size", "32MiB"]).output()?)?, &["vol9", "vol1"])?;
    let mut command = Command::new(programs()?.twinsand);
    command.arg("--config").arg(cluster.config()).args(["--node", "san9"]);
    contains(&refusal(&command.output()?)?, &["san9", "san1", "san2"])
}

#[test]
fn status_for_people_and_for_programs() -> Result<()> {
    let cluster = dual_cluster()?;
    let json = cluster.twinsan(&["status", "--json"]).output()?;
    ensure!(json.status.success(), "{}", String::from_utf8_lossy(&json.stderr));
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).context("one JSON value")?;
    ensure!(value.to_string().contains("\"primary\""), "{value}");
    let people = cluster.twinsan(&["status"]).output()?;
    contains(&String::from_utf8_lossy(&people.stdout), &["vol1", "san1", "san2", "primary", "secondary"])?;
    cluster.wait_until("the pair stays dual", PATIENCE, Cluster::is_dual)
}
