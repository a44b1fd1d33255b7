//! A node's fence by hand, for the lab: what the scenarios of SCSI-3 reservations are played with, on real LUNs.
//!
//! ```text
//! pr-lab keys DISK                      the LUN's registrations and reservation, one line
//! pr-lab paths DISK                     the disk's paths
//! pr-lab node NAME DISK                 holds a fence until it is killed; serves its commands at /run/pr-lab.NAME
//! pr-lab tell NAME COMMAND [ARG]        gives it one: prints the answer, ends with 0 if it begins with "ok", else with 1
//! pr-lab race DISK FLAG                 a path returns against a fence: see below
//! ```
//!
//! Commands of a node: `admit`, `fence`, `accept`, `yield`, `check`, `paths`, `release`: those of `Fence`. `write BYTE`:
//! one page full of it at 1 MiB. `flood BYTE`: four threads write pages of it over 1-5 MiB until one is refused.
//! `flooded`: how many pages those have written, and what ended them. `verify BYTE`: whether 1-5 MiB are full of it.
//! `fill BYTE`: makes them so.
//!
//! `race` registers all paths, takes the registration off the last one, and lets it return: between READ KEYS and
//! REGISTER it says "paused" and waits for the file FLAG, and meanwhile another node fences. It ends with 0 if it
//! noticed, and left no key of its own on the LUN.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use twinsan_sas::fence::scsi_pr::{
    Command, DeviceLun, Keys, Lun, PathError, Registrar, Reservation, ReservationKey, Status,
};
use twinsan_sas::fence::{Fence, FenceError, ScsiPr};
use twinsan_sas::layout::{PAGE, PAGE_BYTES};
use twinsan_sas::multipath::{PathId, Registrations, Sysfs};
use twinsan_sas::{ClaimedDisk, Page, SharedReader};
use twinsan_wire::Incarnation;

const FIRST: u64 = 1 << 20;
const PAGES: u64 = 1024;

type Outcome<T = String> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["keys", disk] => keys(Path::new(disk)),
        ["paths", disk] => paths(Path::new(disk)),
        ["node", name, disk] => node(name, Path::new(disk)),
        ["tell", name, ref words @ ..] if !words.is_empty() => tell(name, &words.join(" ")),
        ["race", disk, flag] => race(Path::new(disk), Path::new(flag)),
        _ => Err("keys DISK | paths DISK | node NAME DISK | tell NAME COMMAND [ARG] | race DISK FLAG".into()),
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn lun(disk: &Path) -> Outcome<DeviceLun> {
    Ok(DeviceLun::new(Sysfs::default().find(disk)?))
}

/// Past what the LUN has to say first.
fn ask(lun: &mut impl Lun, path: &PathId, command: Command) -> Outcome<Vec<u8>> {
    for _ in 0..10 {
        match lun.run(path, command)? {
            Status::Good(data) => return Ok(data),
            Status::Check(sense) if sense.is_passing() => {}
            other => return Err(format!("{}: {other:?}", command.name()).into()),
        }
    }
    Err("unit attentions without end".into())
}

fn keys(disk: &Path) -> Outcome {
    let mut lun = lun(disk)?;
    let path = lun.live().first().cloned().ok_or("no path answers")?;
    let keys = Keys::parse(&ask(&mut lun, &path, Command::ReadKeys)?)?;
    let reservation = Reservation::parse(&ask(&mut lun, &path, Command::ReadReservation)?)?;
    let list: Vec<String> = keys.keys.iter().map(ToString::to_string).collect();
    let held = match reservation {
        None => "not reserved".to_owned(),
        Some(Reservation { key: Some(key), kind }) => format!("reserved by {key}, {kind}"),
        Some(Reservation { key: None, kind }) => format!("reserved, {kind}"),
    };
    Ok(format!("generation {}, {} keys: {}; {held}", keys.generation, list.len(), list.join(" ")))
}

fn paths(disk: &Path) -> Outcome {
    let disk = Sysfs::default().find(disk)?;
    let lines = disk.paths()?.into_iter().map(|path| format!("{} {} {}", path.id.name, path.hctl, path.state));
    Ok(format!("{}: {}", disk.map().unwrap_or("no map"), lines.collect::<Vec<_>>().join(", ")))
}

fn socket(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/pr-lab.{name}"))
}

fn tell(name: &str, command: &str) -> Outcome {
    let mut stream = UnixStream::connect(socket(name))?;
    writeln!(stream, "{command}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    let answer = answer.trim_end().to_owned();
    if answer.starts_with("ok") { Ok(answer) } else { Err(answer.into()) }
}

struct Node {
    fence: ScsiPr,
    claim: Option<Arc<ClaimedDisk>>,
    flood: Arc<Flood>,
}

#[derive(Default)]
struct Flood {
    pages: AtomicU64,
    running: AtomicU64,
    stop: AtomicBool,
    error: Mutex<Option<String>>,
}

fn node(name: &str, disk: &Path) -> Outcome {
    let path = socket(name);
    drop(std::fs::remove_file(&path));
    let listener = UnixListener::bind(&path)?;
    let reader = SharedReader::open(disk)?;
    let fence = ScsiPr::new(&reader, Sysfs::default().find(disk)?, Registrations::default())?;
    let mut node = Node { fence, claim: None, flood: Arc::default() };
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match node.obey(&words) {
            Ok(answer) => format!("ok {answer}"),
            Err(error) => format!("{}: {error}", kind(error.as_ref())),
        };
        println!("{} -> {answer}", line.trim_end());
        writeln!(stream, "{answer}")?;
    }
    Ok(String::new())
}

fn kind(error: &(dyn std::error::Error + 'static)) -> &'static str {
    match error.downcast_ref::<FenceError>() {
        Some(error) if error.is_lost() => "lost",
        Some(_) => "failed",
        None => "error",
    }
}

impl Node {
    fn obey(&mut self, words: &[&str]) -> Outcome {
        let byte = |text: &str| text.parse::<u8>();
        match *words {
            ["admit"] => {
                self.release();
                self.fence.admit()?;
            }
            ["fence"] => {
                self.release();
                self.claim = Some(Arc::new(self.fence.fence(Incarnation::from_random(1))?));
            }
            ["accept"] => self.claim = Some(Arc::new(self.fence.accept(Incarnation::from_random(1))?)),
            ["yield"] => {
                let claim = self.take_claim().ok_or("nothing to yield")?;
                self.fence.yield_claim(claim);
            }
            ["check"] => return self.standing(|node| node.fence.check(None)),
            ["paths"] => return self.standing(|node| node.fence.paths_changed()),
            ["release"] => self.release(),
            ["write", value] => self.claim()?.write_page(FIRST, &Page([byte(value)?; PAGE_BYTES]))?,
            ["flood", value] => self.start_flood(byte(value)?)?,
            ["flooded"] => return self.flooded(),
            ["fill", value] => {
                let page = Page([byte(value)?; PAGE_BYTES]);
                (0..PAGES)
                    .try_for_each(|at| self.claim()?.write_page(FIRST + at * PAGE, &page).map_err(Into::into))
                    .map_err(|error: Box<dyn std::error::Error>| error)?;
            }
            ["verify", value] => return self.verify(byte(value)?),
            _ => return Err("no such command".into()),
        }
        Ok(words.join(" "))
    }

    fn claim(&self) -> Outcome<&Arc<ClaimedDisk>> {
        self.claim.as_ref().ok_or_else(|| "this node has no claim".into())
    }

    fn take_claim(&mut self) -> Option<ClaimedDisk> {
        self.flood.stop.store(true, Ordering::Relaxed);
        while self.flood.running.load(Ordering::Acquire) > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.claim.take().map(|claim| Arc::into_inner(claim).expect("the flood has ended"))
    }

    fn release(&mut self) {
        if let Some(claim) = self.take_claim() {
            self.fence.release(Some(claim));
        }
    }

    fn standing(&mut self, look: impl Fn(&mut Self) -> Result<bool, FenceError>) -> Outcome {
        if look(self)? { Ok("registered".to_owned()) } else { Err("gone: the own key is not registered".into()) }
    }

    fn start_flood(&mut self, byte: u8) -> Outcome<()> {
        let claim = Arc::clone(self.claim()?);
        self.flood = Arc::new(Flood { running: AtomicU64::new(4), ..Flood::default() });
        for thread in 0..4 {
            let (claim, flood) = (Arc::clone(&claim), Arc::clone(&self.flood));
            std::thread::spawn(move || {
                let page = Page([byte; PAGE_BYTES]);
                let mut at = thread;
                while !flood.stop.load(Ordering::Relaxed) {
                    if let Err(error) = claim.write_page(FIRST + at % PAGES * PAGE, &page) {
                        flood.error.lock().expect("whole").get_or_insert(error.to_string());
                        break;
                    }
                    flood.pages.fetch_add(1, Ordering::Relaxed);
                    at += 4;
                }
                drop(claim);
                flood.running.fetch_sub(1, Ordering::Release);
            });
        }
        Ok(())
    }

    fn flooded(&self) -> Outcome {
        let error = self.flood.error.lock().expect("whole").clone();
        let pages = self.flood.pages.load(Ordering::Relaxed);
        Ok(format!("{pages} pages, {}", error.unwrap_or_else(|| "not refused".to_owned())))
    }

    fn verify(&self, byte: u8) -> Outcome {
        let disk = self.claim()?;
        let mut page = vec![0_u8; PAGE_BYTES * 2];
        let skip = page.as_ptr().align_offset(PAGE_BYTES);
        for at in 0..PAGES {
            let page = &mut page[skip..skip + PAGE_BYTES];
            rustix::io::pread(disk.as_fd(), &mut *page, FIRST + at * PAGE)?;
            if page.iter().any(|&found| found != byte) {
                return Err(format!("page {at} holds {}, not {byte}: a late write has landed", page[0]).into());
            }
        }
        Ok(format!("{PAGES} pages of {byte}"))
    }
}

/// Stops before the registration of a returning path, until a file is there.
struct Paused {
    lun: DeviceLun,
    flag: Option<PathBuf>,
}

impl Lun for Paused {
    fn live(&mut self) -> Vec<PathId> {
        self.lun.live()
    }

    fn run(&mut self, path: &PathId, command: Command) -> Result<Status, PathError> {
        if matches!(command, Command::RegisterAnyway { .. })
            && let Some(flag) = self.flag.take()
        {
            println!("paused");
            while !flag.exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.lun.run(path, command)
    }

    fn pause(&mut self) {
        self.lun.pause();
    }
}

fn race(disk: &Path, flag: &Path) -> Outcome {
    let mut next = 0x5ace_0000_0000_0000 | u64::from(std::process::id());
    let mut registrar = Registrar::new(Paused { lun: lun(disk)?, flag: None });
    registrar.let_in(&mut || {
        next += 1;
        ReservationKey::new(next).expect("not zero")
    })?;
    let key = registrar.key().ok_or("let in without a key")?;
    let mut known = registrar.registered().clone();
    let last = known.pop_last().ok_or("no path")?;
    if known.is_empty() {
        return Err("the race needs two paths".into());
    }
    ask(registrar.lun(), &last, Command::Register { old: Some(key), new: None })?;
    registrar.doubt(&known);
    registrar.lun().flag = Some(flag.to_owned());
    let stands = registrar.mend(false)?;
    let live = registrar.lun().live();
    let keys = Keys::parse(&ask(registrar.lun(), &live[0], Command::ReadKeys)?)?;
    match (stands, keys.contains(key)) {
        (false, false) => Ok("ok: fenced, and no key left behind".to_owned()),
        (true, true) => Err("nobody fenced".into()),
        (stands, there) => Err(format!("it believes {stands}, its key on the LUN: {there}").into()),
    }
}
