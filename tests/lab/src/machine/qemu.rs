//! QEMU without KVM: a whole PC that runs Debian's stock kernel, ten times slower than User-Mode Linux and more like a real
//! host: huge pages, modules, and a clock that stands still while the machine does.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use super::qmp::Control;
use super::{Devices, Machine, Spec, agent_line, forget, remember, spawn_with};

/// What all machines boot.
#[derive(Clone, Debug)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// What brings the root's driver.
    pub initrd: PathBuf,
    /// The root, an image that nobody writes to.
    pub root: PathBuf,
}

/// One machine.
#[derive(Debug)]
pub struct Qemu {
    boot: Boot,
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    process: Child,
    control: Control,
}

impl Qemu {
    /// A machine that is off.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        Self { boot, on: None }
    }

    fn control(&mut self) -> Result<&mut Control> {
        Ok(&mut self.on.as_mut().context("the machine is off")?.control)
    }

    /// The machine itself: one CPU, as the others share the host's few; nothing that the lab does not use.
    fn board(&self, command: &mut Command, spec: &Spec) {
        command.args(["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-smp", "1"]);
        command.args(["-M", "q35,usb=off,vmport=off,smbus=off", "-m", &format!("{}M", spec.memory_mib)]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.args(["-name", spec.name]);
        command.arg("-kernel").arg(&self.boot.kernel).arg("-initrd").arg(&self.boot.initrd);
        // The HPET, whose frequency is known: the TSC's is measured at boot, and on a busy host a guest's clock then runs ten
        // times too fast. No mitigations, which are slow here.
        let words = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=unstable clocksource=hpet no_timer_check \
                     random.trust_cpu=on net.ifnames=0 lab.share=9p lab.agent=virtio";
        command.args(["-append", &format!("{words} lab.name={}", spec.name)]);
        command.args(["-device", "virtio-rng-pci"]);
    }
}

/// The root, the folder /lab, and the programs in it once more, as what the guest may keep in its memory: nobody changes
/// them, and reading them anew for every start is slow.
fn files(command: &mut Command, boot: &Boot, spec: &Spec) {
    let drive =
        |id: &str, file: &str, more: &str| format!("id={id},if=none,format=raw,file.locking=off,file={file}{more}");
    command.args(["-drive", &drive("root", &boot.root.display().to_string(), ",readonly=on")]);
    command.args(["-device", "virtio-blk-pci,drive=root"]);
    for (tag, folder, more) in [("lab", spec.share.clone(), ""), ("programs", spec.share.join("bin"), ",readonly=on")] {
        let folder = folder.display();
        command.args(["-fsdev", &format!("local,id={tag},path={folder},security_model=none,multidevs=remap{more}")]);
        command.args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
    }
}

fn plug_in(command: &mut Command, spec: &Spec, devices: &Devices<'_>) {
    for (i, end) in devices.network.iter().enumerate() {
        let mac = format!("52:54:00:00:{:02x}:{i:02x}", spec.number);
        command.args(["-netdev", &format!("dgram,id=n{i},local.type=fd,local.str={}", end.as_raw_fd())]);
        command.args(["-device", &format!("virtio-net-pci,netdev=n{i},mac={mac},host_mtu=9000,romfile=")]);
    }
    if let Some(disk) = devices.disk {
        let file = disk.display();
        command.args(["-drive", &format!("id=disk,if=none,format=raw,file.locking=off,file={file}")]);
        command.args(["-device", "virtio-blk-pci,drive=disk"]);
    }
}

impl Machine for Qemu {
    fn start(&mut self, spec: &Spec, devices: &Devices<'_>) -> Result<UnixStream> {
        let (agent, line) = agent_line()?;
        let (control, monitor) = agent_line()?;
        let control = Control::new(control)?;
        let console = File::options().create(true).append(true).open(&spec.console);
        let console = console.with_context(|| spec.console.display().to_string())?;
        // setpriv, as the kernel ends the machine with its launcher in whatever way that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        self.board(&mut command, spec);
        files(&mut command, &self.boot, spec);
        plug_in(&mut command, spec, devices);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=agent"]);
        command.args(["-chardev", &format!("socket,id=agent,fd={}", line.as_raw_fd())]);
        command.args(["-chardev", &format!("socket,id=monitor,fd={}", monitor.as_raw_fd())]);
        command.args(["-mon", "chardev=monitor,mode=control"]);
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console).process_group(0);
        let mut inherited = devices.network.clone();
        inherited.extend([line.as_fd(), monitor.as_fd()]);
        let process = spawn_with(&mut command, &inherited).context("setpriv (Debian: util-linux)")?;
        remember(Pid::from_child(&process));
        self.on = Some(On { process, control });
        Ok(agent)
    }

    fn kill(&mut self) {
        if let Some(mut on) = self.on.take() {
            let pid = Pid::from_child(&on.process);
            // It may have ended by itself.
            let _ = kill_process_group(pid, Signal::KILL);
            // Before it is reaped, as its number may then be somebody else's.
            forget(pid);
            let _ = on.process.wait();
        }
    }

    fn freeze(&mut self) -> Result<()> {
        self.control()?.execute("stop")
    }

    fn thaw(&mut self) -> Result<()> {
        self.control()?.execute("cont")
    }

    fn is_on(&mut self) -> bool {
        self.on.as_mut().is_some_and(|on| matches!(on.process.try_wait(), Ok(None)))
    }

    fn group(&self) -> Option<Pid> {
        self.on.as_ref().map(|on| Pid::from_child(&on.process))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}
