//! What one connection may cost.

/// The longest payload of a READ or WRITE: what a client assumes that was told nothing (proto.md, "Block size
/// constraints": 32 MiB), so that nobody is refused what the text lets him hope for.
pub const MAX_PAYLOAD_BYTES: u32 = 32 << 20;
/// The longest string (proto.md, "Conventions").
pub const MAX_STRING_BYTES: usize = 4096;
/// The longest option data that is kept. The longest sensible one is GO: a name and a few information requests.
/// Longer data is read off and answered by `NBD_REP_ERR_TOO_BIG`.
pub const MAX_OPTION_BYTES: usize = 8192;
/// Option data longer than this is not read off any more: the connection ends.
pub const MAX_OPTION_DISCARD_BYTES: u32 = 1 << 20;
/// Options in one handshake; a client that haggles longer is shut out. Real ones need fewer than ten.
pub const MAX_OPTIONS: u32 = 64;

const _: () = assert!(MAX_OPTION_BYTES > 4 + MAX_STRING_BYTES + 2);
const _: () = assert!(MAX_OPTION_DISCARD_BYTES as usize > MAX_OPTION_BYTES);
