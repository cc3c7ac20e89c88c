//! Refuses targets that the library can't serve, and sets how it is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).unwrap_or_default();
    let (arch, os) = (var("CARGO_CFG_TARGET_ARCH"), var("CARGO_CFG_TARGET_OS"));
    if arch != "x86_64" || os != "linux" {
        println!(
            "cargo::error=librmtrace.so records x86-64 Linux programs; this build is for {arch}-{os}. \
             Build with `--target x86_64-unknown-linux-gnu`, or build the readers alone with \
             `cargo build -p rmtrace`."
        );
        return;
    }
    // Before the constructors of other libraries, whose allocations it would miss otherwise.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,initfirst");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,now");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librmtrace.so");
    println!("cargo:rustc-cdylib-link-arg=-nostdlib");
}
