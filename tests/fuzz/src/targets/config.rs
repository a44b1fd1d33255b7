//! What people and programs write: the configuration file, sizes, addresses, and the admin socket's lines.

use std::collections::BTreeSet;
use std::path::Path;

use twinsan_control::admin::{MAX_LINE_BYTES, Request, Response, read_line, write_line};
use twinsan_control::{Address, Config, ConfigError, Size};
use twinsan_wire::NodeId;

use crate::input::Input;

const FILE: &str = "/etc/twinsan.toml";

pub(crate) fn run(data: &[u8]) {
    let mut input = Input(data);
    let how = input.byte() % 5;
    let text = String::from_utf8_lossy(input.0);
    match how {
        0 => config(&text),
        1 => {
            if let Ok(size) = text.parse::<Size>() {
                assert_eq!(size.to_string().parse(), Ok(size));
            }
        }
        2 => {
            let base = Path::new("/etc");
            if let Ok(address) = Address::parse(&text, base) {
                assert_eq!(Address::parse(&address.to_string(), base).as_ref(), Ok(&address), "{address}");
            }
        }
        3 => request(input.0),
        _ => response(input.0),
    }
}

fn config(text: &str) {
    match Config::parse(text, Path::new(FILE)) {
        Ok(config) => sound(&config),
        Err(error) => {
            let words = error.to_string();
            assert!(words.starts_with(FILE), "{words}");
            match error {
                ConfigError::Value { place, key, value, why, .. } => {
                    assert!(words.contains(&format!("{place}: {key} = {value}: {why}")), "{words}");
                    assert!(!why.is_empty());
                }
                // Where, and what was expected.
                ConfigError::Syntax { .. } => assert!(words.len() > FILE.len() + 2, "{words}"),
                ConfigError::Tables { .. } => assert!(words.contains("[["), "{words}"),
                ConfigError::Read { .. } | ConfigError::Unknown { .. } => panic!("nothing was read or looked up"),
            }
        }
    }
}

/// What the rest of the product takes for granted.
fn sound(config: &Config) {
    let [a, b] = &config.nodes;
    assert!(a.name != b.name && a.admin != b.admin && a.admin.is_absolute());
    let addresses: BTreeSet<_> = a.listen.iter().chain(&b.listen).map(ToString::to_string).collect();
    assert_eq!(addresses.len(), a.listen.len() + b.listen.len(), "an address twice");
    assert!(!a.listen.is_empty() && !b.listen.is_empty() && !config.volumes.is_empty());
    let all: BTreeSet<_> = [NodeId::A, NodeId::B]
        .into_iter()
        .flat_map(|node| (0..config.reactors).flat_map(move |reactor| config.addresses(node, reactor)))
        .map(|address| address.to_string())
        .collect();
    assert_eq!(all.len(), config.reactors * addresses.len(), "two reactors at one address");
    assert!((1..=config.volumes.len()).contains(&config.reactors), "a reactor without a volume");
    let local = a.listen.iter().chain(&b.listen).all(Address::is_local);
    for volume in &config.volumes {
        assert!(volume.disk.is_absolute());
        assert!(local || volume.key_file.is_some(), "an open door");
        assert!(volume.staging.bytes() >= 4 << 20 && volume.staging.bytes().is_multiple_of(4096));
        assert_eq!(config.volume(volume.name.as_str()).ok(), Some(volume), "two of one name");
    }
    let timing = config.timing;
    assert!(
        timing.heartbeat_ms > 0 && timing.takeover_ms > timing.heartbeat_ms && timing.drop_ms > timing.heartbeat_ms
    );
}

fn request(line: &[u8]) {
    if let Ok(request) = read_line::<Request>(line) {
        let mut said = Vec::new();
        write_line(&mut said, &request).expect("memory takes it");
        assert_eq!(read_line::<Request>(&said[..]).expect("its own words"), request);
        // Data is given up by those who say so, never by default.
        if let Request::Recover { .. } = request {
            assert!(String::from_utf8_lossy(line).contains("accept_data_loss"));
        }
        assert!(said.len() <= MAX_LINE_BYTES);
    }
}

fn response(line: &[u8]) {
    if let Ok(response) = read_line::<Response>(line) {
        let mut said = Vec::new();
        write_line(&mut said, &response).expect("memory takes it");
        assert_eq!(read_line::<Response>(&said[..]).expect("its own words"), response);
    }
}
