//! A handover to an arm64 kernel: the segments, the entry code, and the number of ranges that the kernel can keep.
//!
//! An arm64 kernel starts from a flattened devicetree, also on a machine with ACPI. So the tree carries the handover
//! ([`devicetree`](crate::devicetree)): entries of its memory reservation block keep the ranges, and properties of
//! `/chosen` say what they are. Nothing else is needed: no archive, no node, no configuration of the next kernel.
//!
//! | segment | content | place |
//! | --- | --- | --- |
//! | kernel | the `Image`; the destination covers `image_size` | scratch, at a multiple of 2 MiB plus `text_offset` |
//! | initrd | the initrd, unchanged | scratch, within 32 GiB of the kernel |
//! | parameters | devicetree, entry code | scratch |
//! | state | the state tree | outside scratch |
//!
//! Blobs are the caller's own segments.
//!
//! # Facts of the kernels (6.1, 6.12, 7.3)
//!
//! * **The devicetree** is mapped as a whole, at most 2 MiB of it (`fixmap_remap_fdt`, `arch/arm64/mm/fixmap.c`). The
//!   kernel stops without a message before it has a console if it is larger (`setup_machine_fdt`,
//!   `arch/arm64/kernel/setup.c`).
//! * **Reservations** are made before memblock can grow: one region for each range that touches no other
//!   (`early_init_fdt_scan_reserved_mem`, `drivers/of/fdt.c`; `memblock_allow_resize` follows in `paging_init`). A
//!   kernel whose table is full panics before it has a console. [`early_ranges`] counts the regions.
//! * **`kexec_load`** leaves `x0` = 0 (`machine_kexec`, `arch/arm64/kernel/machine_kexec.c`: only `kexec_file_load` sets
//!   `dtb_mem`), so the entry code loads it.

mod entry;
mod limits;
mod load;

pub use entry::{ENTRY_ALIGN, ENTRY_LEN, code};
pub use limits::{EARLY_RANGES, early_ranges};
pub use load::{Load, assemble, params_len};
