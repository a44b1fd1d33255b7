//! `twinsan recover`.

use anyhow::bail;
use twinsan_control::Config;
use twinsan_control::admin::{Request, Response, ask};

use super::ADMIN_TIMEOUT;
use crate::cli::RecoverArgs;

/// Tells the node; returns its answer in words.
///
/// # Errors
/// If the volume or node is not configured, the node is not there, or it says no.
pub fn recover(config: &Config, args: &RecoverArgs) -> anyhow::Result<String> {
    let volume = config.volume(&args.volume)?.name.as_str().to_owned();
    let (_, node) = config.node(&args.node)?;
    let request = Request::Recover { volume, accept_data_loss: args.accept_data_loss };
    match ask(&node.admin, &request, ADMIN_TIMEOUT)? {
        Response::Done { message } => Ok(message),
        Response::Failed { message } => bail!("node \"{}\": {message}", node.name),
        Response::Status(_) => bail!("node \"{}\" answered something else: is it of another version?", node.name),
    }
}
