//! The system calls a supervisor needs and `rustix` does not offer, or not without owning what they are about: signal
//! dispositions, the signal mask, `signalfd(2)`, `wait4(2)` with its resource usage, and descriptor flags by number.
//!
//! This is the only module of the crate with `unsafe` code. What makes each call sound is local to it: every pointer
//! goes to a live local of the right type, the kernel keeps none of them, and no signal handler is ever installed
//! (dispositions only go back to their defaults), so no code of ours ever runs in signal context.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Gives every signal its default disposition and empties the signal mask, as a command expects to find them.
///
/// Handlers do not survive `execve(2)`, but ignored signals and the mask do: started under `nohup` or by a shell that
/// ignores SIGINT for its background jobs, the daemon would hand that on to every tool, and `SIGTERM` might end none.
pub(super) fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: an all-zero `sigaction` is valid (no flags, empty mask, handler SIG_DFL, which is 0), the pointer is
        // to a live local, and SIG_DFL runs no code. Numbers that cannot be set (SIGKILL, SIGSTOP, those that libc
        // keeps for itself) give EINVAL, which changes nothing.
        unsafe {
            let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
    }
    set_mask(libc::SIG_SETMASK, &[]).map(drop)
}

/// Has every descriptor but the standard ones closed when the command starts.
///
/// The daemon opens all of its own that way. But it may itself have been started by somebody who leaves descriptors
/// open (shells and build tools do), and a pipe among them would be held open by every tool.
pub(super) fn close_inherited_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if fd > 2 {
            // SAFETY: no memory is involved, and setting this flag takes nothing from whoever owns the descriptor,
            // while this process lives. A number that is closed by now gives EBADF, which changes nothing.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Builds a signal set and applies it to the calling thread's mask.
fn set_mask(how: i32, signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set it is given a valid pointer to; only then is it read, and
    // `pthread_sigmask` only reads it. The null pointer says that the old mask is not wanted.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        match libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) {
            0 => Ok(set),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Signals as something to poll.
pub(super) struct Signals(File);

impl Signals {
    /// Blocks SIGCHLD and the signals that ask a process to end, and reports them here instead.
    ///
    /// To be called after the command is started, which would inherit the mask. A SIGTERM between the two, within
    /// some 100 µs, kills the supervisor; the daemon then ends the command as one whose supervisor was lost.
    pub(super) fn block() -> io::Result<Self> {
        let watched = [
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGQUIT,
        ];
        let set = set_mask(libc::SIG_BLOCK, &watched)?;
        // SAFETY: the set is initialised and only read; a new descriptor is made, which nothing else owns.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made for us and is not negative.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Takes all pending signals; whether one of them asked for the end.
    pub(super) fn drain(&self) -> bool {
        const RECORD_BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut end_asked = false;
        let mut record = [0u8; RECORD_BYTES];
        // `ssi_signo` is the first field, four bytes in native order (signalfd(2)).
        while matches!((&self.0).read(&mut record), Ok(RECORD_BYTES)) {
            let signal = i32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
            end_asked |= signal != libc::SIGCHLD;
        }
        end_asked
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One child that is over and is now reaped.
pub(super) struct Reaped {
    pub(super) pid: i32,
    pub(super) code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) core_dumped: bool,
    pub(super) cpu_user_us: u64,
    pub(super) cpu_system_us: u64,
    pub(super) max_rss_kib: u64,
}

/// What [`reap`] found.
pub(super) enum Reap {
    /// A child that is over.
    One(Reaped),
    /// There are children, all alive.
    AllAlive,
    /// There are no children. A subreaper adopts every orphan below it, so this says that no descendant is left.
    NoChildren,
}

/// Reaps one child of any kind, without waiting.
pub(super) fn reap() -> io::Result<Reap> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers go to live locals of the type that wait4(2) writes.
    let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match pid {
        0 => return Ok(Reap::AllAlive),
        1.. => {}
        _ => {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ECHILD) => Ok(Reap::NoChildren),
                _ => Err(error),
            };
        }
    }
    // SAFETY: all bytes were zeroed, and all-zero is a valid `rusage` of plain integers.
    let usage = unsafe { usage.assume_init() };
    let signalled = libc::WIFSIGNALED(status);
    Ok(Reap::One(Reaped {
        pid,
        code: libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)),
        signal: signalled.then(|| libc::WTERMSIG(status)),
        core_dumped: signalled && libc::WCOREDUMP(status),
        cpu_user_us: micros(usage.ru_utime),
        cpu_system_us: micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }))
}

fn micros(time: libc::timeval) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}
