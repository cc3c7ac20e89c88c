//! A column: bytes of one meaning, stored as they are or compressed with zstd.

use crate::error::Malformed;
use crate::varint::{self, Cursor};
use std::io::Read;

/// Codec: the bytes as they are.
pub const CODEC_RAW: u8 = 0;
/// Codec: one zstd frame.
pub const CODEC_ZSTD: u8 = 1;
/// Level that measured best for size against time.
const LEVEL: i32 = 1;
/// Level of traces that are to be kept: some 30 times slower, a tenth to two fifths smaller.
const LEVEL_SMALL: i32 = 19;
/// Columns shorter than this are stored as they are.
const COMPRESS_BYTES_MIN: usize = 48;

/// Compresses columns, with a context kept from one to the next.
pub struct Packer {
    context: zstd::zstd_safe::CCtx<'static>,
    /// Whether columns that shrink are compressed.
    compresses: bool,
}

impl Default for Packer {
    fn default() -> Self {
        let mut context = zstd::zstd_safe::CCtx::create();
        // Our checksum covers the frame and our header has the length.
        for parameter in [
            zstd::zstd_safe::CParameter::CompressionLevel(LEVEL),
            zstd::zstd_safe::CParameter::ContentSizeFlag(false),
            zstd::zstd_safe::CParameter::ChecksumFlag(false),
            zstd::zstd_safe::CParameter::DictIdFlag(false),
        ] {
            // A parameter that can't be set keeps its default: a few bytes more, the same data.
            let _ = context.set_parameter(parameter);
        }
        Packer {
            context,
            compresses: true,
        }
    }
}

impl Packer {
    /// One that takes its time to make columns as small as it can.
    pub fn small() -> Packer {
        let mut packer = Packer::default();
        let level = zstd::zstd_safe::CParameter::CompressionLevel(LEVEL_SMALL);
        // As above.
        let _ = packer.context.set_parameter(level);
        packer
    }

    /// Stores everything as it is from now on.
    pub fn store_only(&mut self) {
        self.compresses = false;
    }

    /// Appends `bytes` to `out`, compressed if that is shorter, and returns the codec used.
    pub fn pack(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> u8 {
        let start = out.len();
        if self.compresses && bytes.len() >= COMPRESS_BYTES_MIN {
            let bound = zstd::zstd_safe::compress_bound(bytes.len());
            out.resize(start + bound, 0);
            if let Some(target) = out.get_mut(start..)
                && let Ok(written) = self.context.compress2(target, bytes)
                && written < bytes.len()
            {
                out.truncate(start + written);
                return CODEC_ZSTD;
            }
            out.truncate(start);
        }
        out.extend_from_slice(bytes);
        CODEC_RAW
    }

    /// Appends a blob: codec, length, bytes.
    pub fn pack_blob(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let at = out.len();
        out.push(CODEC_RAW);
        varint::put(out, bytes.len() as u64);
        let codec = self.pack(bytes, out);
        if let Some(byte) = out.get_mut(at) {
            *byte = codec;
        }
    }
}

/// Decompresses columns, with a context kept from one to the next.
pub struct Unpacker {
    context: zstd::zstd_safe::DCtx<'static>,
}

impl Default for Unpacker {
    fn default() -> Self {
        Unpacker {
            context: zstd::zstd_safe::DCtx::create(),
        }
    }
}

impl Unpacker {
    /// The column of `raw_bytes` bytes stored as `stored`. The caller has checked that `raw_bytes`
    /// is a length it wants to hold.
    pub fn unpack(
        &mut self,
        codec: u8,
        raw_bytes: usize,
        stored: &[u8],
    ) -> Result<Vec<u8>, Malformed> {
        match codec {
            CODEC_RAW if stored.len() == raw_bytes => Ok(stored.to_vec()),
            CODEC_RAW => Err(Malformed::new("a stored column has another length")),
            CODEC_ZSTD => {
                let mut raw = vec![0; raw_bytes];
                match self.context.decompress(raw.as_mut_slice(), stored) {
                    Ok(written) if written == raw_bytes => Ok(raw),
                    Ok(_) => Err(Malformed::new("a column has another length than it says")),
                    Err(_) => Err(Malformed::new("a column can't be decompressed")),
                }
            }
            _ => Err(Malformed::new("a column has an unknown codec")),
        }
    }
}

/// Reads what [`Packer::pack_blob`] wrote, all of `bytes`; `bytes_max` is the longest accepted.
pub fn unpack_blob(bytes: &[u8], bytes_max: u64) -> Result<Vec<u8>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let codec = cursor.byte()?;
    let raw_bytes = cursor.varint()?;
    if raw_bytes > bytes_max {
        return Err(Malformed::new(
            "it says it is longer than the format allows",
        ));
    }
    let stored = cursor.rest();
    // Read as a stream: what is allocated grows with what is there, not with what is claimed.
    let mut raw = Vec::new();
    match codec {
        CODEC_RAW => raw.extend_from_slice(stored),
        CODEC_ZSTD => {
            let bad = |_| Malformed::new("it can't be decompressed");
            let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)
                .map_err(bad)?
                .single_frame()
                .take(raw_bytes.saturating_add(1));
            decoder.read_to_end(&mut raw).map_err(bad)?;
        }
        _ => return Err(Malformed::new("it has an unknown codec")),
    }
    if raw.len() as u64 == raw_bytes {
        Ok(raw)
    } else {
        Err(Malformed::new("it has another length than it says"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn columns_and_blobs_round_trip(bytes in proptest::collection::vec(0u8..4, 0..2000)) {
            let mut packer = Packer::default();
            let mut stored = Vec::new();
            let codec = packer.pack(&bytes, &mut stored);
            let raw = Unpacker::default().unpack(codec, bytes.len(), &stored);
            prop_assert_eq!(raw.as_deref(), Ok(&bytes[..]));
            prop_assert!(Unpacker::default().unpack(codec, bytes.len() + 1, &stored).is_err());
            let mut blob = Vec::new();
            packer.pack_blob(&bytes, &mut blob);
            let unpacked = unpack_blob(&blob, 2000);
            prop_assert_eq!(unpacked.as_deref(), Ok(&bytes[..]));
        }

        #[test]
        fn no_bytes_make_unpacking_panic(codec in 0u8..3, bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0usize..5000) {
            let _ = Unpacker::default().unpack(codec, length, &bytes);
            let _ = unpack_blob(&bytes, 5000);
        }
    }

    #[test]
    fn a_blob_beyond_the_limit_is_refused() {
        let mut blob = Vec::new();
        Packer::default().pack_blob(&[0; 1001], &mut blob);
        assert!(unpack_blob(&blob, 1000).is_err());
    }
}
