//! Small pictures inside a page: decoded, reduced, written as base64.

use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::sources;

/// Longest side of a thumbnail, in pixels: twice what the page shows, for dense screens.
const SIDE: u32 = 224;

/// A picture as the address of an image element.
pub fn data_url(path: &Path) -> Result<String> {
    let bytes = sources::read_image(path).map_err(|reason| anyhow!("{reason}"));
    let small =
        bytes.and_then(|bytes| Ok(diptych_encoder::thumbnail(&diptych_encoder::decode(&bytes)?, SIDE)?));
    let jpeg = small.with_context(|| path.display().to_string())?;
    Ok(format!("data:image/jpeg;base64,{}", base64(&jpeg)))
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_standard() {
        let known = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (bytes, text) in known {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
