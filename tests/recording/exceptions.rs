//! Exceptions that pass through what is hooked.

use crate::harness::{How, Lab, Seen};
use rmtrace_format::event::Entry;
use std::path::Path;

fn differ(lab: &Lab, program: &Path, how: How) -> [Seen; 2] {
    [1000u64, 2000].map(|n| {
        let recorded = lab.run(program).arg(n.to_string()).recorded(how).ok();
        assert_eq!(recorded.outcome.text(), format!("{n}\n"), "all were caught");
        recorded.read()
    })
}

/// operator new of the C++ library: its call of malloc fails, then it throws.
#[test]
fn a_thousand_caught_bad_alloc() {
    for how in How::BOTH {
        let lab = Lab::new();
        let [once, twice] = differ(&lab, &lab.program("throws.cpp"), how);
        let twice = twice.clean();
        let difference = twice.of(0).minus(&once.of(0));
        // A failed malloc, the exception itself, and the block afterwards.
        assert_eq!(difference.get(Entry::Malloc), 3000, "{how:?}");
        assert_eq!(difference.get(Entry::Free), 2000);
        assert_eq!(difference.total(), 5000);
        assert_eq!(twice.failed(0) - once.failed(0), 1000);
        assert_eq!(twice.threads[&(0, 0)].sizes[&7001], 2000);
    }
}

/// operator new of the program's own allocator, reached by a patch: the exception passes our stub.
#[test]
fn a_thousand_bad_alloc_through_a_patched_operator_new() {
    for how in How::BOTH {
        let lab = Lab::new();
        let object = lab.object("own_allocator.c", &[]);
        let flags = ["-DOWN", "-rdynamic", object.as_str()];
        let [once, twice] = differ(&lab, &lab.compile(&["throws.cpp"], "throws", &flags), how);
        let process = &twice.processes[0];
        assert_ne!(
            process.hooks.detoured & 1 << Entry::New as u64,
            0,
            "{:?}",
            process.hooks
        );
        let difference = twice.of(0).minus(&once.of(0));
        assert_eq!(
            difference.get(Entry::New),
            2000,
            "{how:?}: those that threw, and the others"
        );
        // The exception itself is allocated inside of operator new, where only the outermost call is
        // recorded, and freed outside.
        assert_eq!(difference.get(Entry::Free), 2000);
        assert_eq!(difference.total(), 4000);
        assert_eq!(twice.unknown_frees.get(&0), Some(&2000), "{how:?}");
        assert_eq!(twice.live_duplicates.len(), 0, "{how:?}");
        assert_eq!(twice.failed(0) - once.failed(0), 1000);
        assert_eq!(twice.threads[&(0, 0)].sizes[&7001], 2000);
    }
}
