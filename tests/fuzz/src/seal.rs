//! A CRC made right, so that the fuzzer gets past it to the checks behind.

/// The bytes with the CRC32C of the first 60 in the last four, as descriptors and mailboxes have it.
#[must_use]
pub fn sealed_64(mut bytes: [u8; 64]) -> [u8; 64] {
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A message with a right header: the first byte of `data` is its kind, the rest its body.
#[must_use]
pub fn sealed_message(data: &[u8]) -> Option<Vec<u8>> {
    let (&kind, body) = data.split_first()?;
    let length = u16::try_from(16 + body.len()).ok()?;
    let mut bytes = b"TwSg\x01".to_vec();
    bytes.push(kind);
    bytes.extend(length.to_le_bytes());
    bytes.extend([0; 4]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), body);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(body);
    Some(bytes)
}
