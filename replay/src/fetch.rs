//! Tells the processor what will be read soon. It changes nothing that a program can see.

/// Starts to fetch the cache line of element `at` of a slice, if there is one.
#[inline(always)]
pub fn fetch<T>(values: &[T], at: usize) {
    if let Some(value) = values.get(at) {
        fetch_at(value);
    }
}

/// Starts to fetch the cache line at an address, which need not be one of anything.
#[inline(always)]
pub fn fetch_at<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 reads and writes nothing that a program can see and faults at no address
        // (Intel SDM volume 2, PREFETCHh); SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
