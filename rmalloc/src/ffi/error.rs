//! The text of a status, for C: [`Error::text`] with a zero behind it.

use super::status_t;
use crate::status::Error;
use core::ffi::c_char;

/// Room for the longest text.
const TEXT_BYTES: usize = 80;

const fn with_zero(text: &str) -> [u8; TEXT_BYTES] {
    let mut bytes = [0; TEXT_BYTES];
    let mut at = 0;
    assert!(text.len() < TEXT_BYTES);
    while at < text.len() {
        bytes[at] = text.as_bytes()[at];
        at += 1;
    }
    bytes
}

/// By status: success, the errors, and one for every other number.
static TEXTS: [[u8; TEXT_BYTES]; Error::ALL.len() + 2] = {
    let mut texts = [with_zero("success"); Error::ALL.len() + 2];
    let mut at = 0;
    while at < Error::ALL.len() {
        assert!(Error::ALL[at] as usize == at + 1);
        texts[at + 1] = with_zero(Error::ALL[at].text());
        at += 1;
    }
    texts[Error::ALL.len() + 1] = with_zero("not a status of rmalloc");
    texts
};

/// See `rmalloc.h`.
#[unsafe(no_mangle)]
pub extern "C" fn rmerror(status: status_t) -> *const c_char {
    let last = TEXTS.len() - 1;
    let at = usize::try_from(status).map_or(last, |at| at.min(last));
    TEXTS[at].as_ptr().cast()
}
