//! Processes whose time and memory are bounded and measured.
//!
//! In: a command line, a bound of address space, a bound of time. Out: exit code, output, seconds,
//! and two peaks: of resident memory (the kernel's own account, `ru_maxrss`, which counts mapped
//! files too) and of anonymous memory (`RssAnon`, looked at every few milliseconds).

use std::{
    fs::File,
    io::{Read, Seek},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// How a process ended and what it took.
#[derive(Debug)]
pub struct Measured {
    /// None where a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub seconds: f64,
    /// Bytes; mapped files included.
    pub peak_resident: u64,
    /// Bytes; without mapped files.
    pub peak_anonymous: u64,
}

/// What a process may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of address space.
    pub address_space: Option<u64>,
    /// The process is killed when these are over.
    pub seconds: f64,
}

/// Runs a program in `folder`.
#[expect(clippy::zombie_processes, reason = "`wait4` waits for it")]
pub fn run(program: &Path, args: &[&str], folder: &Path, bounds: Bounds) -> Measured {
    let mut command = match bounds.address_space {
        None => Command::new(program),
        Some(bytes) => {
            let mut command = Command::new("prlimit");
            command.arg(format!("--as={bytes}")).arg(program);
            command
        }
    };
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap());
    let start = Instant::now();
    let child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let pid = child.id();
    let mut peak_anonymous = 0;
    let (status, peak_resident) = loop {
        if let Some(ended) = wait(pid) {
            break ended;
        }
        peak_anonymous = peak_anonymous.max(anonymous(pid).unwrap_or(0));
        if start.elapsed().as_secs_f64() > bounds.seconds {
            // SAFETY: the process is our own child, which nobody has waited for yet.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    Measured {
        code: status.code(),
        signal: status.signal(),
        stdout: whole(&mut out),
        stderr: whole(&mut err),
        seconds: start.elapsed().as_secs_f64(),
        peak_resident,
        peak_anonymous,
    }
}

/// The status of a child and its peak of resident bytes; None while it runs.
fn wait(pid: u32) -> Option<(ExitStatus, u64)> {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, and both pointers live for the call.
    let (done, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (
            libc::wait4(pid as libc::pid_t, &mut status, libc::WNOHANG, &mut usage),
            usage,
        )
    };
    assert!(done >= 0, "wait4: {}", std::io::Error::last_os_error());
    (done > 0).then(|| (ExitStatus::from_raw(status), usage.ru_maxrss as u64 * 1024))
}

fn anonymous(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            * 1024,
    )
}

fn whole(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
