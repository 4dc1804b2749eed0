//! Contents: a label that occurs once in a test, and bytes that follow from it, so that a wrong byte is noticed.

use serde_json::Value;

/// The bytes that belong to a label.
fn filler(label: &str, size: usize) -> String {
    let seed = label.bytes().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut random = fastrand::Rng::with_seed(seed.into());
    (0..size).map(|_| random.lowercase()).collect()
}

/// The content of a message, and its attachment if it has one.
pub(crate) fn make(label: &str, size: usize, is_attached: bool) -> (String, Option<Vec<u8>>) {
    let filler = filler(label, size);
    if is_attached { (format!("{label}:"), Some(filler.into_bytes())) } else { (format!("{label}:{filler}"), None) }
}

/// The label of a message as it came, or a text that begins with `WRONG` if any byte is another one.
pub(crate) fn read(content: &Value, attachment: Option<&[u8]>) -> String {
    let content = content.as_str().unwrap_or_default();
    let whole = content.split_once(':').filter(|(label, rest)| {
        let bytes = attachment.unwrap_or(rest.as_bytes());
        (attachment.is_none() || rest.is_empty()) && bytes == filler(label, bytes.len()).as_bytes()
    });
    whole.map_or_else(
        || format!("WRONG {}", content.chars().take(60).collect::<String>()),
        |(label, _)| label.to_owned(),
    )
}
