//! Fields of headers.

/// A header field with an impossible value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadField {
    /// The field's name in the boot protocol.
    pub field: &'static str,
    /// Offset of the field in the file.
    pub offset: u64,
    /// Value of the field.
    pub value: u64,
    /// Fault of the value, in words, such as "below 16 MiB".
    pub wanted: &'static str,
}
