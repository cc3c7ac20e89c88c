//! The lock of a heap's slow paths: an atomic word that waits through the platform.

use crate::platform::Platform;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// 0 free, 1 taken, 2 taken and somebody may sleep.
pub(crate) struct Mutex(AtomicU32);

impl Mutex {
    pub const fn new() -> Mutex {
        Mutex(AtomicU32::new(0))
    }

    #[inline]
    pub fn lock(&self, platform: &Platform) {
        if self.0.compare_exchange(0, 1, Acquire, Relaxed).is_err() {
            self.wait(platform);
        }
    }

    #[cold]
    fn wait(&self, platform: &Platform) {
        for _ in 0..100 {
            if self.0.load(Relaxed) == 0 && self.0.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
            {
                return;
            }
            core::hint::spin_loop();
        }
        while self.0.swap(2, Acquire) != 0 {
            (platform.wait)(&self.0, 2);
        }
    }

    #[inline]
    pub fn unlock(&self, platform: &Platform) {
        if self.0.swap(0, Release) == 2 {
            (platform.wake)(&self.0);
        }
    }

    /// Takes it if it is free.
    pub fn try_lock(&self) -> bool {
        self.0.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
    }
}
