//! jemalloc 5.3. Source: its manual, section "Implementation notes", table 1 "Size classes": 8; multiples
//! of 16 to 128; then four classes in each power of two, without end. Debian's build has pages of
//! 4 KiB and the default quantum of 16 bytes. A large block gets whole pages; it has no header.

pub fn usable(bytes: u64) -> u64 {
    super::quarters(bytes)
}
