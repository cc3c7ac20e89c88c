//! Finds the functions of an allocator: those of this process, those of a shared library, those of the linked rmalloc.
//!
//! A library is opened with a scope of its own (`dlopen`, `RTLD_LOCAL`): the replayer's own allocations stay with
//! glibc. Most allocators keep a thread's data in static TLS, of which a process has little room for
//! libraries opened late; workers get more through a tunable ([`TUNABLES`]). What still can't be opened is preloaded
//! instead, and then is the allocator of the whole worker.

use crate::functions::Functions;
use crate::handles::HandleFunctions;
use crate::own::Own;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::{self, MaybeUninit};

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
    /// What it says of its version, or empty.
    pub version: String,
    /// The file it was loaded from, or empty.
    pub file: String,
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
        version: format!("glibc {}", version.to_string_lossy()),
        file: String::new(),
    }
}

/// The functions of a shared library, opened now; `preloaded`: it is part of the process already.
///
/// # Errors
/// What the dynamic linker says, or which function is missing.
pub fn library(name: &str, preloaded: bool) -> Result<Allocator, String> {
    let c_name = CString::new(name).map_err(|_| "a name with a zero in it".to_string())?;
    let flags = match preloaded {
        true => libc::RTLD_NOW | libc::RTLD_NOLOAD,
        false => libc::RTLD_NOW | libc::RTLD_LOCAL,
    };
    // SAFETY: the name ends with a zero. A library's constructors run: that is what its user asked for.
    let handle = unsafe { libc::dlopen(c_name.as_ptr(), flags) };
    if handle.is_null() {
        return Err(last_error());
    }
    let find = |name: &CStr| {
        // SAFETY: the handle was just opened and is never closed.
        let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
        // `dlsym` also looks into the libraries that this one needs, where glibc's functions are.
        (!address.is_null() && file_of(address) == file_of_handle(handle)).then_some(address)
    };
    let needed =
        |name: &CStr| find(name).ok_or_else(|| format!("it has no {}", name.to_string_lossy()));
    let file = file_of_handle(handle).unwrap_or_default();
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
        return Ok(Allocator {
            loaded,
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
    Ok(Allocator {
        loaded: Loaded::Functions(functions),
        version: version(find),
        file,
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

/// What a library says of its version through the functions that some have.
fn version(find: impl Fn(&CStr) -> Option<*mut c_void>) -> String {
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
            let number = mi_version();
            return format!(
                "mimalloc {}.{}.{}",
                number / 100,
                number / 10 % 10,
                number % 10
            );
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
    }
    String::new()
}
