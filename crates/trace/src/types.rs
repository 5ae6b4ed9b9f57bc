//! Sizes of C types as event formats name them.

/// Size in bytes of a C type that the kernel uses in formats, on a 64-bit machine.
pub fn size_of_type(kind: &str) -> Option<usize> {
    if kind.ends_with('*') {
        return Some(8);
    }
    let words: Vec<&str> = kind
        .split_whitespace()
        .filter(|word| !matches!(*word, "const" | "volatile" | "signed" | "unsigned" | "int"))
        .collect();
    Some(match words.as_slice() {
        // `int`, `unsigned`, `unsigned int`.
        [] => 4,
        ["char" | "u8" | "s8" | "__u8" | "__s8" | "bool" | "uint8_t" | "int8_t"] => 1,
        [
            "short" | "u16" | "s16" | "__u16" | "__s16" | "__le16" | "__be16" | "uint16_t"
            | "umode_t" | "ushort",
        ] => 2,
        [
            "u32" | "s32" | "__u32" | "__s32" | "__le32" | "__be32" | "uint32_t" | "int32_t"
            | "pid_t" | "uid_t" | "gid_t" | "gfp_t" | "dev_t" | "enum" | "uint" | "fmode_t",
            ..,
        ] => 4,
        [
            "long" | "u64" | "s64" | "__u64" | "__s64" | "__le64" | "__be64" | "uint64_t"
            | "int64_t" | "size_t" | "ssize_t" | "loff_t" | "sector_t" | "ino_t" | "pgoff_t"
            | "ulong",
        ]
        | ["long", "long"] => 8,
        _ => return None,
    })
}
