//! Finds the functions of an allocator: those of this process, those of a shared library, those of the linked rmalloc.
//!
//! A library is opened with a scope of its own (`dlopen`, `RTLD_LOCAL`): the replayer's own allocations stay with
//! glibc. Most allocators keep a thread's data in static TLS, of which a process has little room for
//! libraries opened late; workers get more through a tunable ([`TUNABLES`]). What still can't be opened is preloaded
//! instead, and then is the allocator of the whole worker.

use crate::executable;
use crate::functions::Functions;
use crate::handles::HandleFunctions;
use crate::own::Own;
use crate::task::Which;
use crate::watch::Usable;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::path::Path;

/// Environment variable that workers get, and its value: room for the static TLS of libraries opened late.
pub const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=65536");

/// What a loaded allocator offers.
pub enum Loaded {
    /// The malloc family.
    Functions(Functions),
    /// Handles.
    Handles(HandleFunctions, Upkeep),
}

/// What an allocator with handles offers beside blocks. The structures that it fills are its own.
#[derive(Clone, Copy)]
pub struct Upkeep {
    /// `rmcompact`: nanoseconds, or 0 until nothing is left to gain; a result.
    pub compact: unsafe extern "C" fn(u64, *mut c_void) -> c_int,
    /// What it counted by itself. Of a library the layout of that is not known.
    pub own: Option<fn() -> Own>,
}

/// An allocator, its version and where it is from.
pub struct Allocator {
    /// Its functions.
    pub loaded: Loaded,
    /// How it tells usable bytes.
    pub usable: Usable,
    /// What it says of its version, or empty.
    pub version: String,
    /// The file it was loaded from, or empty.
    pub file: String,
}

/// The allocator that is meant; of `null`, which has no functions, the C library's.
///
/// # Errors
/// Why it can't be loaded.
pub fn load(which: &Which) -> Result<Allocator, String> {
    match which {
        Which::System | Which::Null => Ok(system()),
        #[cfg(feature = "rmalloc")]
        Which::Rmalloc => crate::linked::linked(),
        #[cfg(not(feature = "rmalloc"))]
        Which::Rmalloc => Err("this rmtrace was built without it".into()),
        Which::Library { name, preloaded } => library(name, *preloaded),
    }
}

unsafe extern "C" fn malloc_usable_size(block: *mut c_void) -> usize {
    // SAFETY: whoever knows the function gives it a live block of the C library.
    unsafe { libc::malloc_usable_size(block) }
}

/// The C library's, which is this process' own.
pub fn system() -> Allocator {
    // SAFETY: returns a string that lives as long as the library.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    Allocator {
        loaded: Loaded::Functions(Functions {
            malloc: libc::malloc,
            calloc: libc::calloc,
            realloc: libc::realloc,
            free: libc::free,
            posix_memalign: libc::posix_memalign,
        }),
        usable: Usable::Block(malloc_usable_size),
        version: format!("glibc {}", version.to_string_lossy()),
        file: String::new(),
    }
}

/// The functions of a shared library, opened now; `preloaded`: it is part of the process already.
///
/// # Errors
/// What the dynamic linker says, or which function is missing.
pub fn library(name: &str, preloaded: bool) -> Result<Allocator, String> {
    let is_program = name.contains('/') && executable::is_one(Path::new(name));
    let copy = match is_program {
        true if preloaded => return Err("an executable can't be preloaded".into()),
        true => Some(executable::openable(Path::new(name))?),
        false => None,
    };
    let opened = copy.as_deref().unwrap_or(Path::new(name));
    let c_name = CString::new(opened.as_os_str().as_encoded_bytes())
        .map_err(|_| "a name with a zero in it".to_string())?;
    let flags = match preloaded {
        true => libc::RTLD_NOW | libc::RTLD_NOLOAD,
        false => libc::RTLD_NOW | libc::RTLD_LOCAL,
    };
    // SAFETY: the name ends with a zero. A library's constructors run: that is what its user asked for.
    let handle = unsafe { libc::dlopen(c_name.as_ptr(), flags) };
    if handle.is_null() {
        return Err(last_error());
    }
    let file = file_of_handle(handle).unwrap_or_default();
    // SAFETY: the handle was just opened and is never closed.
    let anywhere = |name: &CStr| unsafe { libc::dlsym(handle, name.as_ptr()) };
    let find = |name: &CStr| {
        let address = anywhere(name);
        // `dlsym` also looks into the libraries that this one needs, where glibc's functions are.
        (!address.is_null() && file_of(address).as_deref() == Some(&file)).then_some(address)
    };
    let needed = |name: &CStr| {
        find(name).ok_or_else(|| {
            let text = name.to_string_lossy();
            // Where the program that it is loaded into would find it.
            // SAFETY: the name ends with a zero.
            let others = file_of(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) });
            match others.filter(|_| find(c"malloc").is_some()) {
                // Blocks would be made by one allocator and freed by another.
                Some(other) => format!(
                    "its malloc is its own and its {text} is that of {other}: an allocator has malloc, calloc, realloc, free and \
                     posix_memalign itself"
                ),
                None => format!("it has no {text}"),
            }
        })
    };
    if let Some(rmlock) = find(c"rmlock") {
        // SAFETY: functions of these names have the types of rmalloc.h.
        let loaded = unsafe {
            Loaded::Handles(
                HandleFunctions {
                    rmalloc: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut *mut c_void, isize) -> c_int,
                    >(needed(c"rmalloc")?),
                    rmalloc_aligned: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut *mut c_void, isize, usize) -> c_int,
                    >(needed(c"rmalloc_aligned")?),
                    rmlock: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
                    >(rmlock),
                    rmlock_shared: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int,
                    >(find(c"rmlock_shared").unwrap_or(rmlock)),
                    rmunlock: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut c_void) -> c_int,
                    >(needed(c"rmunlock")?),
                    rmresize: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(*mut c_void, isize) -> c_int,
                    >(needed(c"rmresize")?),
                    rmfree: mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(
                        needed(c"rmfree")?,
                    ),
                },
                Upkeep {
                    compact: mem::transmute::<
                        *mut c_void,
                        unsafe extern "C" fn(u64, *mut c_void) -> c_int,
                    >(needed(c"rmcompact")?),
                    own: None,
                },
            )
        };
        // SAFETY: as above.
        let usable = find(c"rmsize").map_or(Usable::Unknown, |rmsize| unsafe {
            Usable::Handle(mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int,
            >(rmsize))
        });
        return Ok(Allocator {
            loaded,
            usable,
            version: String::new(),
            file,
        });
    }
    // SAFETY: functions of these names have the types that C gives them.
    let functions = unsafe {
        Functions {
            malloc: mem::transmute::<*mut c_void, unsafe extern "C" fn(usize) -> *mut c_void>(
                needed(c"malloc")?,
            ),
            calloc: mem::transmute::<*mut c_void, unsafe extern "C" fn(usize, usize) -> *mut c_void>(
                needed(c"calloc")?,
            ),
            realloc: mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
            >(needed(c"realloc")?),
            free: mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(needed(
                c"free",
            )?),
            posix_memalign: mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int,
            >(needed(c"posix_memalign")?),
        }
    };
    // SAFETY: as above.
    let usable = find(c"malloc_usable_size").map_or(Usable::Unknown, |function| unsafe {
        Usable::Block(mem::transmute::<
            *mut c_void,
            unsafe extern "C" fn(*mut c_void) -> usize,
        >(function))
    });
    let version = match is_program {
        true => executable::version(Path::new(name)),
        false => version(find, &file),
    };
    if is_program {
        touch_code(functions.malloc as *const c_void);
    }
    Ok(Allocator {
        loaded: Loaded::Functions(functions),
        usable,
        version,
        file: match is_program {
            true => name.to_string(),
            false => file,
        },
    })
}

/// What the dynamic linker said last.
fn last_error() -> String {
    // SAFETY: returns NULL or a string of this thread.
    unsafe {
        let said = libc::dlerror();
        match said.is_null() {
            true => "the dynamic linker does not say why".to_string(),
            false => CStr::from_ptr(said).to_string_lossy().into_owned(),
        }
    }
}

/// The file that an address was mapped from.
fn file_of(address: *mut c_void) -> Option<String> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the call takes any address and fills `info` if it is one of a loaded file; zeroed it is valid too.
    unsafe {
        let known = libc::dladdr(address, info.as_mut_ptr());
        let name = info.assume_init().dli_fname;
        (known != 0 && !name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// The file of an opened library.
fn file_of_handle(handle: *mut c_void) -> Option<String> {
    /// The beginning of glibc's `struct link_map`, which is public (link.h).
    #[repr(C)]
    struct LinkMap {
        addr: usize,
        name: *const c_char,
    }
    let mut map: *const LinkMap = std::ptr::null();
    // SAFETY: RTLD_DI_LINKMAP stores a pointer to the library's link map, which lives as long as the library.
    unsafe {
        let failed = libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut map).cast());
        (failed == 0 && !map.is_null())
            .then(|| CStr::from_ptr((*map).name).to_string_lossy().into_owned())
    }
}

/// Reads every page of the file that `address` was mapped from: where files are kept in memory, its pages would be counted as
/// the allocator's once they are used.
fn touch_code(address: *const c_void) {
    let file = file_of(address.cast_mut()).unwrap_or_default();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines().filter(|line| line.ends_with(&file)) {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let number = |text: &str| usize::from_str_radix(text, 16).unwrap_or_default();
        let Some((start, end)) = range.map(|(start, end)| (number(start), number(end))) else {
            continue;
        };
        if line
            .split(' ')
            .nth(1)
            .is_some_and(|rights| rights.starts_with('r'))
        {
            for page in (start..end).step_by(4096) {
                // SAFETY: a page of a file that is mapped readable, and stays so: the library is never closed.
                unsafe { std::ptr::read_volatile(page as *const u8) };
            }
        }
    }
}

/// What a library says of its version: through the functions that some have, through what `scripts/allocators` builds into those
/// that have none, or through where it is.
fn version(find: impl Fn(&CStr) -> Option<*mut c_void>, file: &str) -> String {
    // SAFETY: functions of these names have these types in jemalloc, mimalloc and gperftools.
    unsafe {
        if let Some(mallctl) = find(c"mallctl") {
            let mallctl: unsafe extern "C" fn(
                *const c_char,
                *mut c_void,
                *mut usize,
                *mut c_void,
                usize,
            ) -> c_int = mem::transmute(mallctl);
            let mut text: *const c_char = std::ptr::null();
            let mut length = size_of::<*const c_char>();
            let failed = mallctl(
                c"version".as_ptr(),
                (&raw mut text).cast(),
                &mut length,
                std::ptr::null_mut(),
                0,
            );
            if failed == 0 && !text.is_null() {
                let text = CStr::from_ptr(text).to_string_lossy();
                return format!("jemalloc {}", text.split('-').next().unwrap_or_default());
            }
        }
        if let Some(mi_version) = find(c"mi_version") {
            let mi_version: unsafe extern "C" fn() -> c_int = mem::transmute(mi_version);
            return format!("mimalloc {}", mimalloc_version(mi_version()));
        }
        if let Some(tc_version) = find(c"tc_version") {
            let tc_version: unsafe extern "C" fn(
                *mut c_int,
                *mut c_int,
                *mut *const c_char,
            ) -> *const c_char = mem::transmute(tc_version);
            let (mut major, mut minor, mut patch) = (0, 0, std::ptr::null());
            let text = tc_version(&mut major, &mut minor, &mut patch);
            if !text.is_null() {
                return CStr::from_ptr(text).to_string_lossy().into_owned();
            }
        }
        if let Some(text) = find(c"rmtrace_allocator_version") {
            // A string constant, not a function.
            return CStr::from_ptr(text.cast()).to_string_lossy().into_owned();
        }
    }
    of_llvm(file).unwrap_or_default()
}

/// The version that a number of `mi_version` means: 209 is 2.0.9, and since 2.3 20302 is 2.3.2.
fn mimalloc_version(number: c_int) -> String {
    let base = if number >= 10_000 { 100 } else { 10 };
    let (major, minor, patch) = (number / base / base, number / base % base, number % base);
    format!("{major}.{minor}.{patch}")
}

/// The version of one of LLVM's runtime libraries, which stands in its path only.
fn of_llvm(file: &str) -> Option<String> {
    let (_, rest) = file.split_once("/lib/clang/")?;
    let version = rest.split('/').next()?;
    let library = rest.rsplit_once("libclang_rt.")?.1;
    let name = library.split(['_', '-', '.']).next()?;
    Some(format!("{name} of LLVM {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_meant() {
        assert_eq!(mimalloc_version(209), "2.0.9");
        assert_eq!(mimalloc_version(20302), "2.3.2");
        assert_eq!(mimalloc_version(30302), "3.3.2");
        assert_eq!(
            of_llvm(
                "/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux/libclang_rt.scudo_standalone-x86_64.so"
            ),
            Some("scudo of LLVM 14.0.6".to_string())
        );
        assert_eq!(of_llvm("/usr/lib/libx.so"), None);
    }

    /// An executable's variables of a thread have a place in each thread; blocks go from thread to thread.
    #[test]
    fn an_executable_with_an_allocator_serves_threads() {
        let firefox = "/usr/lib/firefox-esr/firefox-esr";
        if !Path::new(firefox).exists() {
            eprintln!("firefox-esr is not installed: left out");
            return;
        }
        let Loaded::Functions(functions) = library(firefox, false).unwrap().loaded else {
            panic!("it has handles");
        };
        let fill = move |number: u8| -> Vec<usize> {
            let one = |step: usize| {
                let bytes = 1 + step * 37 % 5_000;
                // SAFETY: a block of so many bytes, which is ours.
                unsafe {
                    let block = (functions.malloc)(bytes).cast::<u8>();
                    assert!(!block.is_null());
                    block.write_bytes(number, bytes);
                    block as usize
                }
            };
            (0..2_000).map(one).collect()
        };
        let empty = move |number: u8, blocks: Vec<usize>| {
            for (step, block) in blocks.into_iter().enumerate() {
                let bytes = 1 + step * 37 % 5_000;
                let block = block as *mut u8;
                // SAFETY: made by `fill`, with these sizes, and freed once.
                unsafe {
                    let seen = std::slice::from_raw_parts(block, bytes);
                    assert!(seen.iter().all(|byte| *byte == number));
                    (functions.free)(block.cast());
                }
            }
        };
        for _ in 0..5 {
            let fillers: Vec<_> = (1..=4u8)
                .map(|number| (number, std::thread::spawn(move || fill(number))))
                .collect();
            let emptied: Vec<_> = fillers
                .into_iter()
                .map(|(number, filler)| {
                    let blocks = filler.join().unwrap();
                    std::thread::spawn(move || empty(number, blocks))
                })
                .collect();
            emptied
                .into_iter()
                .for_each(|thread| thread.join().unwrap());
        }
    }
}
