//! The way to a state, for people: each step, and what every host made of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Ev, Inbound};
use crate::explore::choice::Choice;
use crate::explore::scenario::Scenario;
use crate::explore::situation::Situation;

/// How a state goes on where no fault strikes: always the first choice, until a state comes again.
pub(crate) fn without_faults(scenario: &Scenario, way: &[u16]) -> Vec<u16> {
    let mut state = Situation::begin(scenario, false);
    for &choice in way {
        state.apply(state.choices()[usize::from(choice)]);
    }
    let (mut seen, mut out) = (BTreeSet::new(), Vec::new());
    while seen.insert(state.fingerprint()) {
        let choices = state.choices();
        let Some(first) = choices.iter().position(|choice| !choice.is_fault()) else { break };
        out.push(u16::try_from(first).expect("few choices"));
        state.apply(choices[first]);
    }
    out
}

/// Plays the choices again, with the record on.
pub(crate) fn replay(scenario: &Scenario, way: &[u16], goes_on: &[u16]) -> Vec<String> {
    let mut state = Situation::begin(scenario, true);
    let mut names = Names::default();
    let mut out = Vec::new();
    for (step, &choice) in way.iter().chain(goes_on).enumerate() {
        if step == way.len() {
            out.push("     and if no fault strikes any more, it goes on, again and again:".to_owned());
        }
        let choice = state.choices()[usize::from(choice)];
        out.push(format!("{:>3}. {}", step + 1, names.shorten(&state.describe(choice))));
        let before = state.world.trace_lines().len();
        let applied = super::search::guarded(|| state.apply(choice));
        let lines = &state.world.trace_lines()[before.min(state.world.trace_lines().len())..];
        out.extend(lines.iter().filter_map(|line| tells(line)).map(|line| format!("       {}", names.shorten(line))));
        if applied.is_err() {
            break;
        }
    }
    out
}

/// Without the time, which means nothing here; `None`: it is what the step says already, or a word said again and again.
fn tells(line: &str) -> Option<&str> {
    let (_, line) = line.split_once(" ms  ")?;
    let again = ["<- ", "Status {", "View {", "Heartbeat", "-> Probe", "=== its", "-> Incarnation"];
    (!again.iter().any(|word| line.contains(word))).then_some(line)
}

impl Situation {
    /// A step in words.
    fn describe(&self, choice: Choice) -> String {
        let ends = |conn: usize, dir: usize| {
            let ends = self.world.net.conns[conn].ends;
            format!("{} to {}", ends[dir], ends[1 - dir])
        };
        match choice {
            Choice::Deliver(conn, dir) => {
                format!("{}: {:?}", ends(conn, dir), self.world.net.conns[conn].dirs[dir].items[0].1)
            }
            Choice::Bag(at) => match &self.bag[at] {
                Ev::Hand(host, _, Inbound::Replica(event)) => format!("{host} hears {event:?}"),
                Ev::Hand(host, _, Inbound::Session(event)) => format!("{host} hears {event:?}"),
                Ev::Disk { op, unit } => {
                    let op = &self.world.disk.ops[op];
                    format!("{}'s at the disk: {:?}", op.node, op.units[*unit].part)
                }
                other => format!("{other:?}"),
            },
            Choice::Vanish(op, unit) => {
                let op = &self.world.disk.ops[&op];
                format!("{}'s never left the host: {:?}", op.node, op.units[unit].part)
            }
            Choice::Request => "the client's next request".into(),
            Choice::Time => "time passes".into(),
            Choice::Reset(conn, dir) => format!("{}: the end, before what was sent", ends(conn, dir)),
            Choice::GiveUp(conn, end) => format!("{}: it is given up, as nothing arrives", ends(conn, end)),
            Choice::HoldConn(conn, dir) => format!("=== {}: held from here on", ends(conn, dir)),
            Choice::LetGo(conn, dir) => format!("{}: held no more", ends(conn, dir)),
            Choice::HoldDisk(op, unit) => {
                let op = &self.world.disk.ops[&op];
                format!("=== {}'s on its way to the disk is held: {:?}", op.node, op.units[unit].part)
            }
            fault => format!("=== {fault:?}"),
        }
    }
}

/// Short names, for incarnations in the order of their appearance.
#[derive(Default)]
struct Names(BTreeMap<String, usize>);

/// What a number's type is written as.
const PREFIXES: [(&str, &str); 8] = [
    ("Incarnation(", "i"),
    ("Epoch(", "e"),
    ("Seq(", "#"),
    ("Generation(", "g"),
    ("Lba(", "block "),
    ("ConnId(", "conn "),
    ("LinkId(", "link "),
    ("ReadToken(", "read "),
];

impl Names {
    fn shorten(&mut self, line: &str) -> String {
        let (mut out, mut rest) = (String::new(), line);
        loop {
            let first = PREFIXES.iter().filter_map(|(long, short)| Some((rest.find(long)?, long, short))).min();
            let Some((at, long, short)) = first else { break };
            let (before, after) = rest.split_at(at);
            let Some((number, after)) = after[long.len()..].split_once(')') else { break };
            out += before;
            out += short;
            if *short == "i" {
                let next = self.0.len() + 1;
                out += &self.0.entry(number.to_owned()).or_insert(next).to_string();
            } else {
                out += number;
            }
            rest = after;
        }
        out += rest;
        for (long, short) in
            [("Peer(PeerMsg {", "{"), ("Mailbox(", "("), ("Node(", "("), ("Client(", "("), ("Some(", "(")]
        {
            out = out.replace(long, short);
        }
        out
    }
}
