//! The example `cache`: its parts against slow, obvious twins, and the whole server over its port, with both allocators.

#[allow(dead_code)] // Its `main`, and what only that uses.
#[path = "../../examples/cache/main.rs"]
mod example;
mod harness;
mod model;
mod parts;
mod protocol;
mod under_load;
