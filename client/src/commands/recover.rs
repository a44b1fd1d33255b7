//! `twinsan recover`.

use anyhow::bail;
use twinsan_control::Config;
use twinsan_control::admin::{Request, Response, VolumeStatus, ask};
use twinsan_control::config::Node;
use twinsan_wire::Role;

use super::ADMIN_TIMEOUT;
use crate::cli::RecoverArgs;

/// Tells a node; returns its answer in words.
///
/// # Errors
/// If the volume or node is not configured, no node refuses to serve it, the node is not there, or it says no.
pub fn recover(config: &Config, args: &RecoverArgs) -> anyhow::Result<String> {
    let volume = config.volume(&args.volume)?.name.as_str().to_owned();
    let node = match &args.node {
        Some(name) => config.node(name)?.1,
        None => refusing(config, &volume)?,
    };
    let request = Request::Recover { volume, accept_data_loss: args.accept_data_loss };
    match ask(&node.admin, &request, ADMIN_TIMEOUT)? {
        Response::Done { message } => Ok(message),
        Response::Failed { message } => bail!("node \"{}\": {message}", node.name),
        Response::Status(_) => bail!("node \"{}\" answered something else: is it of another version?", node.name),
    }
}

/// A node that refuses to serve the volume; if one serves it, there is nothing to recover and all to lose.
fn refusing<'a>(config: &'a Config, volume: &str) -> anyhow::Result<&'a Node> {
    let (mut found, mut served) = (None, false);
    let mut said = Vec::new();
    for node in &config.nodes {
        match role(node, volume) {
            Ok(role) if role == Role::Refusing.name() => found = found.or(Some(node)),
            Ok(role) => {
                served |= role == Role::Primary.name();
                said.push(format!("node \"{}\" is {role}", node.name));
            }
            Err(error) => said.push(format!("node \"{}\": {error:#}", node.name)),
        }
    }
    match found {
        Some(node) if !served => Ok(node),
        _ => bail!("there is nothing to recover of \"{volume}\": {}", said.join("; ")),
    }
}

fn role(node: &Node, volume: &str) -> anyhow::Result<String> {
    let Response::Status(status) = ask(&node.admin, &Request::Status, ADMIN_TIMEOUT)? else {
        bail!("it answered something else: is it of another version?");
    };
    let mine = status.volumes.into_iter().find(|v: &VolumeStatus| v.name == volume);
    Ok(mine.map_or_else(|| "without this volume".to_owned(), |v| v.role))
}
