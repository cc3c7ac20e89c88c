//! `librmalloc.so` and `librmalloc.a`: the functions of `rmalloc/include/rmalloc.h`, which `rmalloc/src/ffi.rs` has.

pub use rm::ffi::*;
