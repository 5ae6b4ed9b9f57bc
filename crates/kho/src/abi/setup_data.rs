//! The private `setup_data` types by which an x86 kernel finds the state tree and the mem cache.
//!
//! All types are values of the `type` member of `struct setup_indirect`, the *inner* type of a `setup_data` node
//! whose own, *outer* type is [`SETUP_INDIRECT`]. Layouts: `arch/x86/include/uapi/asm/setup_data.h` (Linux
//! 6.12, 7.3; in 6.1 `bootparam.h` beside it).
//!
//! # Why these numbers are safe
//!
//! Read in Linux 6.1.176, 6.12.95 and 7.3.4 as Debian ships them:
//!
//! - *Early boot reserves them and looks no further.* `memblock_x86_reserve_range_setup_data()`
//!   (`arch/x86/kernel/setup.c`), `e820__reserve_setup_data()` (`arch/x86/kernel/e820.c`, 6.1 and 6.12) and the KASLR
//!   search for free memory (`mem_avoid_overlap()`, `arch/x86/boot/compressed/kaslr.c`) test an inner type only for
//!   being `SETUP_INDIRECT` itself. Hence the types must differ from `0x80000000`.
//! - *The kernel does not act on them.* Every reader of contents (`parse_setup_data()` in `setup.c`, the EFI, PCI,
//!   Jailhouse, SEV and Apple-properties code) compares the *outer* type, which is `SETUP_INDIRECT` here, and none of
//!   these readers has a case for `SETUP_INDIRECT`. In 7.3 an outer type 10, `SETUP_KEXEC_KHO`, starts mainline's own
//!   handover; kho's nodes never have it.
//! - *sysfs shows them.* `type_show()` in `arch/x86/kernel/ksysfs.c` prints the inner type as `0x%x`, and
//!   `setup_data_data_read()` gives the bytes of the range pointed to.
//! - *debugfs reads the right bytes.* `setup_data_read()` in `arch/x86/kernel/kdebugfs.c` skips the 16 bytes of a node
//!   header unless the type it remembered, the inner one, has bit 31 and is not `SETUP_INDIRECT`. Without bit 31 it
//!   would read at an offset of 16 bytes, past the end of the range. The boot protocol
//!   (`Documentation/arch/x86/boot.rst`) wants bit 31 too: "The type member is a `SETUP_INDIRECT | SETUP_*` type".
//! - *Linux is unlikely to assign the numbers soon.* Linux numbers types upwards from 0 and has reached 9 (6.1, 6.12)
//!   and 10 (7.3). kho's types are letters: `0x4b48` is "KH". They are above `SETUP_TYPE_MAX`, which the kernel only
//!   publishes to boot loaders (`kernel_info.S`) and never compares.

/// Outer type of a node whose payload is a `struct setup_indirect`: `1 << 31`.
pub const SETUP_INDIRECT: u32 = 1 << 31;

/// Inner type of the node that points at the state tree: bit 31, then "KHT". Node 0 of the chain.
/// `len` is exactly the total size of the tree.
///
/// sysfs shows it as `0x804b4854`.
pub const SETUP_KHO_TREE: u32 = SETUP_INDIRECT | 0x4b_4854;

/// Inner type of the nodes that only reserve: bit 31, then "KHR". They follow node 0, one for each entry of
/// the root's `mem-cache`, in its order.
///
/// sysfs shows it as `0x804b4852`.
pub const SETUP_KHO_RESERVE: u32 = SETUP_INDIRECT | 0x4b_4852;

/// Inner type of the nodes of a late block: bit 31, then "KHL". The first of them points at the header of the block,
/// the others only reserve; see [`late`](super::late).
///
/// sysfs shows it as `0x804b484c`.
pub const SETUP_KHO_LATE: u32 = SETUP_INDIRECT | 0x4b_484c;

// The types differ from `SETUP_INDIRECT` and from each other, and all have bit 31 set.
const _: () = assert!(
    SETUP_KHO_TREE != SETUP_INDIRECT
        && SETUP_KHO_RESERVE != SETUP_INDIRECT
        && SETUP_KHO_TREE != SETUP_KHO_RESERVE
        && SETUP_KHO_LATE != SETUP_INDIRECT
        && SETUP_KHO_LATE != SETUP_KHO_TREE
        && SETUP_KHO_LATE != SETUP_KHO_RESERVE
        && SETUP_KHO_TREE & SETUP_KHO_RESERVE & SETUP_KHO_LATE & SETUP_INDIRECT != 0
);
