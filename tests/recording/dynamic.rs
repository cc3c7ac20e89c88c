//! Libraries that are loaded and unloaded.

use crate::counted::ROUND;
use crate::harness::{Counts, How, Lab};

#[test]
fn a_library_that_comes_and_goes() {
    for how in How::BOTH {
        let lab = Lab::new();
        let plugin = lab.compile(&["plugin.c"], "plugin.so", &["-shared", "-fPIC"]);
        let run = lab.run(lab.program("dynamic.c")).arg(plugin).arg("20");
        let seen = run.recorded(how).ok().read().clean();
        assert_eq!(seen.between(), Counts::of(ROUND, 10 * 20), "{how:?}");
        let sizes = &seen.threads[&(0, 0)].sizes;
        assert_eq!([sizes[&6001], sizes[&6002]], [20, 20], "{how:?}");
    }
}
