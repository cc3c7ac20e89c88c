//! A relocatable allocator: a block is named by a handle, locked to be used, and may move while it is not locked.
#![cfg_attr(not(feature = "system"), no_std)]
