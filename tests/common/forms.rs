//! The compressions of the protocol. For deflate the library is another one than the server's.

use serde_json::{Value, json};
use zlib_rs::{DeflateConfig, InflateConfig, ReturnCode, compress_bound, compress_slice, decompress_slice};

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Zstd,
    Deflate,
}

/// No zlib header, and a window of 32 KiB.
const RAW: i32 = -15;

impl Form {
    pub const ALL: [Self; 2] = [Self::Zstd, Self::Deflate];

    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    /// The first byte of its bodies.
    pub fn first_byte(self) -> u8 {
        match self {
            Self::Zstd => 0x02,
            Self::Deflate => 0x03,
        }
    }

    pub fn other(self) -> Self {
        if self == Self::Zstd { Self::Deflate } else { Self::Zstd }
    }

    /// A handshake that offers it.
    pub fn handshake(self) -> Value {
        json!({"type": "handshake", "protocol_version": "1.0", "compression": ["br", self.name()]})
    }

    /// A compressed body.
    pub fn body(self, bytes: &[u8]) -> Vec<u8> {
        let packed = match self {
            Self::Zstd => zstd::bulk::compress(bytes, 3).expect("it compresses"),
            Self::Deflate => {
                let config = DeflateConfig { window_bits: RAW, ..DeflateConfig::default() };
                let mut out = vec![0; compress_bound(bytes.len())];
                let (packed, code) = compress_slice(&mut out, bytes, config);
                assert_eq!(code, ReturnCode::Ok);
                packed.to_vec()
            }
        };
        [&[self.first_byte()][..], &packed].concat()
    }

    /// The body inside a compressed body.
    pub fn inflated(self, body: &[u8]) -> Vec<u8> {
        assert_eq!(body[0], self.first_byte(), "expected a compressed body: {:?}", String::from_utf8_lossy(body));
        match self {
            Self::Zstd => zstd::stream::decode_all(&body[1..]).expect("one zstd frame"),
            Self::Deflate => {
                let mut out = vec![0; 8 << 20];
                let (plain, code) = decompress_slice(&mut out, &body[1..], InflateConfig { window_bits: RAW });
                assert_eq!(code, ReturnCode::Ok, "one deflate stream");
                plain.to_vec()
            }
        }
    }
}
