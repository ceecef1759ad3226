//! Ctrl-C: the first ends the text that is being written, a second one ends the process.
//!
//! Invariant: the handler only sets a flag. Not here: what to do about it; loops ask
//! [`requested`].

use std::sync::atomic::{AtomicBool, Ordering};

static REQUESTED: AtomicBool = AtomicBool::new(false);

extern "C" fn handle(_signal: libc::c_int) {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// Catches the next Ctrl-C until the returned guard is dropped.
pub fn catch() -> Guard {
    REQUESTED.store(false, Ordering::Relaxed);
    set(
        handle as *const () as libc::sighandler_t,
        libc::SA_RESETHAND,
    );
    Guard(())
}

/// Whether Ctrl-C was pressed since [`catch`].
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Gives Ctrl-C its usual meaning back.
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        set(libc::SIG_DFL, 0);
    }
}

fn set(handler: libc::sighandler_t, flags: libc::c_int) {
    // SAFETY: the handler does one atomic store; all fields are initialised.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(libc::SIGINT, &action, std::ptr::null_mut());
    }
}
