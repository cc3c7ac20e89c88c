//! Tells the processor what will be read soon. The only unsafe code of the crate: the instruction has
//! no other effect than to fill a cache, but takes a pointer.

/// Starts to fetch the cache line at which `value` begins; does not wait for it.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: PREFETCHT0 reads and writes nothing that a program can see and faults at no address
        // (Intel SDM volume 2, PREFETCHh); SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

/// Starts to fetch element `at` of a slice, if there is one.
#[inline(always)]
pub(crate) fn prefetch_at<T>(values: &[T], at: usize) {
    if let Some(value) = values.get(at) {
        prefetch(value);
    }
}
