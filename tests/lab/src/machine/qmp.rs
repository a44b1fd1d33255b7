//! QEMU's control line: one JSON object a line, events in between (QEMU's `docs/interop/qmp-spec`).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// QEMU answers from its main loop, which waits for disk requests in flight at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// The launcher's end of it.
#[derive(Debug)]
pub(super) struct Control {
    line: BufReader<UnixStream>,
    greeted: bool,
}

impl Control {
    /// A line whose other end is a QEMU that starts.
    pub(super) fn new(line: UnixStream) -> Result<Self> {
        line.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { line: BufReader::new(line), greeted: false })
    }

    /// Runs a command without arguments, and waits until it is done.
    pub(super) fn execute(&mut self, command: &str) -> Result<()> {
        if !self.greeted {
            let greeting = self.receive()?;
            ensure!(greeting.get("QMP").is_some(), "QEMU greets with {greeting}");
            self.answered("qmp_capabilities")?;
            self.greeted = true;
        }
        self.answered(command)
    }

    fn answered(&mut self, command: &str) -> Result<()> {
        writeln!(self.line.get_mut(), "{}", json!({ "execute": command })).context("QEMU's control line")?;
        loop {
            let message = self.receive()?;
            if message.get("return").is_some() {
                return Ok(());
            }
            // Everything else is an event of its own, or of the command.
            if let Some(error) = message.get("error") {
                bail!("QEMU's {command}: {error}");
            }
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        let len = self.line.read_line(&mut line).context("QEMU's control line")?;
        ensure!(len > 0, "QEMU is gone");
        serde_json::from_str(&line).with_context(|| line.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A QEMU that has said all this already; gives what it was told.
    fn told(says: &str, command: &str) -> (Result<()>, Vec<Value>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(says.as_bytes()).unwrap();
        let mut control = Control::new(ours).unwrap();
        let result = control.execute(command);
        drop(control);
        let lines = BufReader::new(theirs).lines();
        (result, lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect())
    }

    #[test]
    fn a_command_is_done_when_it_is_answered_whatever_happens_in_between() {
        let says = "{\"QMP\": {}}\r\n{\"return\": {}}\r\n{\"event\": \"STOP\"}\r\n{\"return\": {}}\r\n";
        let (result, told) = told(says, "stop");
        result.unwrap();
        assert_eq!(told, [json!({ "execute": "qmp_capabilities" }), json!({ "execute": "stop" })]);
    }

    #[test]
    fn a_refusal_and_an_end_are_errors() {
        let refused = "{\"QMP\": {}}\n{\"return\": {}}\n{\"error\": {\"desc\": \"not now\"}}\n";
        assert!(told(refused, "stop").0.unwrap_err().to_string().contains("not now"));
        assert!(told("{\"return\": {}}\n", "stop").0.is_err());
    }
}
