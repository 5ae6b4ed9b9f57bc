//! A kernel with Kexec HandOver of its own: what it shows is decoded.

use super::Scenario;
use crate::kernel::peer;

/// What both kernels leave for a next one.
const OUT: &str = "
mount -t debugfs debugfs /sys/kernel/debug
kho dump --mainline
kho dump --mainline --json >/tmp/state
grep -q '\"version\": \"kho-v4\"' /tmp/state
grep -q '\"format\": \"luo-v5\"' /tmp/state
grep -q '\"format\": \"kexec-metadata version 1\"' /tmp/state
kho dump --mainline | grep -q 'scratch: .0x'
if kho dump --mainline | grep '^  !'; then exit 1; fi
# It is none of ours, and says so.
status=0
kho validate /sys/kernel/debug/kho/out/fdt || status=$?
[ \"$status\" = 62 ]
";

/// The tests of this file.
pub fn scenarios() -> Vec<Scenario> {
    let found = "
grep -q '\"format\": \"kho-test-v1\"' /tmp/state
grep -q '\"nr_folios\"' /tmp/state
";
    vec![
        Scenario::new(
            "mainline",
            "kho dump --mainline decodes what a mainline kernel with KHO leaves and what its successor finds",
        )
        .kernels(&[peer::NAME, peer::NAME])
        .append("kho=on liveupdate=on test_kho.max_mem=1048576")
        .first(&format!(
            "{OUT}{found}
             [ ! -e /sys/kernel/debug/kho/in/fdt ]
             # The kernel's own loader takes the kernel's own state along.
             kho kexec -l -s \"$KHO_NEXT_KERNEL\" --initrd=\"$KHO_NEXT_INITRD\" --command-line=\"$KHO_NEXT_CMDLINE\"
             kho kexec -e"
        ))
        .each(&format!(
            "{OUT}{found}
             [ -e /sys/kernel/debug/kho/in/fdt ]
             grep -q '\"kexec_count\": 1' /tmp/state
             grep -q \"\\\"previous_release\\\": \\\"$KHO_RELEASE\\\"\" /tmp/state"
        )),
    ]
}
